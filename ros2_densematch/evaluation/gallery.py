"""Chooses, while a replay runs, the few pairs that its report shows, without knowing how long it will be."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ros2_densematch.arrays import Image
from ros2_densematch.evaluation.pictures import match_picture, smaller, warp_picture, with_mask
from ros2_densematch.evaluation.report import ReportPicture

if TYPE_CHECKING:
    from ros2_densematch.geometry.correspondences import Correspondences
    from ros2_densematch.tracking.frame import Frame
    from ros2_densematch.tracking.tracked_frame import TrackedFrame

KEYFRAMES_KEPT = 64
WARPS_SHOWN = 2


@dataclass(frozen=True)
class _Pair:
    keyframe_index: int
    index: int
    time_s: float
    status: str
    reference: Image
    query: Image
    matches: Correspondences
    inliers: NDArray[np.bool_] | None
    masked: float


class Gallery:
    """Keeps pairs evenly spread over time, and the tracked pair with the fewest inliers; memory is bounded.

    Args:
        wanted: about so many pairs are shown.
    """

    def __init__(self, wanted: int = 6):
        self._wanted = wanted
        self._stride = 1
        self._seen = 0
        self._start_ns: int | None = None
        self._pairs: list[_Pair] = []
        self._weakest: _Pair | None = None
        self._keyframes: OrderedDict[int, Image] = OrderedDict()
        self._last: Frame | None = None  # it may become a keyframe a frame late

    def add(self, frame: Frame, tracked: TrackedFrame) -> None:
        """Takes note of a frame that the tracker has just processed."""
        if self._start_ns is None:
            self._start_ns = frame.stamp_ns
        for keyframe in tracked.new_keyframes:
            if self._last is not None and keyframe.index == self._last.index:
                self._keep_keyframe(self._last)
        pair = self._pair(frame, tracked)
        if pair is not None:
            if self._seen % self._stride == 0:
                self._pairs.append(pair)
                if len(self._pairs) > 2 * self._wanted:
                    self._pairs = self._pairs[::2]
                    self._stride *= 2
            self._seen += 1
            tracks = pair.inliers is not None and tracked.T_world_from_camera is not None
            if tracks and (self._weakest is None or _inlier_count(pair) < _inlier_count(self._weakest)):
                self._weakest = pair
        if tracked.is_keyframe:
            self._keep_keyframe(frame)
        self._last = frame

    def _keep_keyframe(self, frame: Frame) -> None:
        self._keyframes[frame.index] = smaller(frame.image)
        if len(self._keyframes) > KEYFRAMES_KEPT:
            self._keyframes.popitem(last=False)

    def pictures(self) -> list[ReportPicture]:
        """The match pictures in the order of time, the weakest pair last, then pictures of dense warps."""
        chosen = self._pairs
        if len(chosen) > self._wanted:
            chosen = [chosen[i] for i in np.unique(np.linspace(0, len(chosen) - 1, self._wanted).round().astype(int))]
        found = [ReportPicture(match_picture(p.reference, p.query, p.matches, p.inliers), _caption(p)) for p in chosen]
        weakest = self._weakest
        if weakest is not None and all(p.index != weakest.index for p in chosen):
            picture = match_picture(weakest.reference, weakest.query, weakest.matches, weakest.inliers)
            found.append(ReportPicture(picture, f"The weakest tracked frame: {_caption(weakest)}"))
        with_warp = [p for p in chosen if p.matches.warp is not None]
        for p in with_warp[:: max(len(with_warp) // WARPS_SHOWN, 1)][:WARPS_SHOWN]:
            assert p.matches.warp is not None
            picture = warp_picture(p.reference, p.query, p.matches.warp)
            found.append(ReportPicture(picture, f"Frame {p.index} in keyframe {p.keyframe_index}", "warp"))
        return found

    def _pair(self, frame: Frame, tracked: TrackedFrame) -> _Pair | None:
        matches, keyframe = tracked.correspondences, tracked.keyframe_index
        if matches is None or keyframe == tracked.index or keyframe not in self._keyframes:
            return None
        return _Pair(
            keyframe_index=keyframe,
            index=tracked.index,
            time_s=(frame.stamp_ns - (self._start_ns or 0)) * 1e-9,
            status=tracked.status.value,
            reference=self._keyframes[keyframe],
            query=with_mask(smaller(frame.image), tracked.static_mask),
            matches=matches,
            inliers=tracked.inliers,
            masked=0.0 if tracked.static_mask is None else float(tracked.static_mask.mean()),
        )


def _inlier_count(pair: _Pair) -> int:
    return 0 if pair.inliers is None else int(pair.inliers.sum())


def _caption(pair: _Pair) -> str:
    counted = f"{len(pair.matches)} matches"
    if pair.inliers is not None:
        counted = f"{_inlier_count(pair)} inliers of {counted}"
    status = pair.status.lower().replace("_", " ")
    return (
        f"Keyframe {pair.keyframe_index} and frame {pair.index} at {pair.time_s:.2f} s ({status}): {counted}, "
        f"overlap {pair.matches.overlap:.2f}{f', static mask over {pair.masked:.0%} (hatched)' if pair.masked else ''}"
    )
