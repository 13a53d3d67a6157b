"""Making keyframes: encodings, metric points, and points carried over from the keyframe before."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from ros2_densematch.geometry import poses
from ros2_densematch.geometry.camera import Camera
from ros2_densematch.geometry.correspondences import Correspondences
from ros2_densematch.geometry.relative_pose import Scale
from ros2_densematch.matchers.base import Encoding, Matcher
from ros2_densematch.tracking import mapping
from ros2_densematch.tracking.config import TrackerConfig
from ros2_densematch.tracking.frame import Frame
from ros2_densematch.tracking.keyframe import Keyframe
from ros2_densematch.tracking.localisation import Localisation, relative_weight
from ros2_densematch.tracking.metric import rho_from_stereo
from ros2_densematch.tracking.refinement import Float
from ros2_densematch.tracking.structure import Structure, transfer

Attempt: TypeAlias = "tuple[Camera | None, Float | None, Correspondences | None, Localisation | None]"


@dataclass
class Seen:
    """A frame in work, or the last one that was tracked.

    Attributes:
        frame, encoding: the frame and its encoding as a query.
        timings: milliseconds by stage.
        camera: of the frame, with its turning where the shutter is a rolling one.
        rate: (3,) angular velocity in rad/s in the frame's own axes; None = not known.
        matches, found: against the keyframe that was tried last.
        T_from_keyframe: (4, 4) T_frame_from_keyframe in map units.
        note: what could not be used of the frame, in words.
    """

    frame: Frame
    encoding: Encoding
    timings: dict[str, float]
    camera: Camera | None
    rate: Float | None = None
    matches: Correspondences | None = None
    found: Localisation | None = None
    T_from_keyframe: Float | None = None
    note: str = ""

    @property
    def attempt(self) -> Attempt:
        """What the last try against a keyframe left; setting it takes the frame back to that try."""
        return self.camera, self.rate, self.matches, self.found

    @attempt.setter
    def attempt(self, attempt: Attempt) -> None:
        self.camera, self.rate, self.matches, self.found = attempt


class KeyframeMaker:
    """Makes keyframes with consecutive numbers.

    Args:
        matcher, config: of the tracker.
    """

    def __init__(self, matcher: Matcher, config: TrackerConfig) -> None:
        self.matcher = matcher
        self.config = config
        self._next_id = 0

    def match(self, seen: Seen, reference: Encoding, query: Encoding) -> Correspondences:
        """Matches two encodings; the time counts for the frame `seen`."""
        start = time.perf_counter()
        matches = self.matcher.match(reference, query, max_matches=self.config.max_matches, seed=self.config.seed)
        seen.timings["match"] += milliseconds_since(start)
        return matches

    def make(self, seen: Seen, T_world_from_camera: Float, segment: int, *, use_metric: bool) -> Keyframe:
        """A keyframe without points but those that depth or stereo measure.

        Args:
            use_metric: the map unit is the metre or not yet chosen; otherwise depth and stereo are left aside.
        """
        frame, reference = seen.frame, seen.encoding
        if self.matcher.reference_encoding_differs:
            start = time.perf_counter()
            reference = self.matcher.encode(frame.image, reference=True, mask=frame.mask)
            seen.timings["encode"] += milliseconds_since(start)
        structure = None
        if seen.camera is not None:
            structure = Structure(seen.camera, frame.depth if use_metric else None, 3 * self.config.max_matches)
            if frame.right_image is not None and frame.right_camera is not None and use_metric:
                try:
                    self._add_stereo(seen, reference, structure)
                except ValueError as error:
                    seen.note = f"; stereo not used: {error}"
        keyframe = Keyframe(
            self._next_id,
            frame.index,
            frame.stamp_ns,
            frame.size,
            seen.camera,
            segment,
            T_world_from_camera,
            reference,
            seen.encoding,
            structure,
            frame.odometry,
            rate=seen.rate,
        )
        self._next_id += 1
        return keyframe

    def promote(self, seen: Seen, previous: Keyframe, *, use_metric: bool) -> Keyframe:
        """A keyframe from a frame that was tracked against `previous`; the points that both see are carried over."""
        assert seen.T_from_keyframe is not None
        assert seen.found is not None
        assert seen.matches is not None
        T_previous_from_new = poses.inverse(seen.T_from_keyframe)
        T_world = poses.compose(previous.T_world_from_camera, T_previous_from_new)
        keyframe = self.make(seen, T_world, previous.segment, use_metric=use_metric)
        if keyframe.structure is None or previous.structure is None:
            return keyframe
        inliers = np.flatnonzero(seen.found.inliers)
        known = int(np.count_nonzero(previous.structure.known()[seen.found.index[inliers]]))
        keyframe.support = min(previous.support, known)
        transfer(
            previous.structure,
            seen.found.index[inliers],
            seen.T_from_keyframe,
            keyframe.structure,
            seen.matches.query_xy[inliers],
        )
        if keyframe.structure.known().any():
            back = self.match(seen, keyframe.reference, previous.query)
            mapping.anchor_to_previous(keyframe, previous, back, T_previous_from_new, relative_weight(back))
        return keyframe

    def _add_stereo(self, seen: Seen, reference: Encoding, structure: Structure) -> None:
        frame = seen.frame
        assert frame.right_image is not None
        assert frame.right_camera is not None
        assert frame.camera is not None
        start = time.perf_counter()
        right = self.matcher.encode(frame.right_image)
        seen.timings["encode"] += milliseconds_since(start)
        matches = self.match(seen, reference, right)
        xy, rho, info = rho_from_stereo(matches, frame.camera, frame.right_camera)
        index = structure.find_or_add(xy)
        _, first = np.unique(index, return_index=True)
        first = first[index[first] >= 0]
        structure.set_prior(index[first], rho[first], info[first])
        structure.measured = bool(structure.known().any())


def milliseconds_since(start: float) -> float:
    """Milliseconds since `time.perf_counter()` was `start`."""
    return 1000.0 * (time.perf_counter() - start)


def unsuitable(keyframe: Keyframe, frame: Frame, scale: Scale) -> str:
    """Why a keyframe must be replaced by this frame whatever their matches are, in words; "" where nothing is wrong.

    Args:
        scale: of the map so far. Where it is metric and not every frame has a depth image, a keyframe without one knows
            its points through others only; the first frame that measures them itself takes its place.
    """
    if frame.size != keyframe.size:
        return f"the image size changed from {keyframe.size} to {frame.size}"
    if frame.depth is None or keyframe.structure is None:
        return ""
    if scale is Scale.NONE and keyframe.structure.depth is None:
        return "it is the first one with a depth image"
    if scale is Scale.METRIC and not keyframe.structure.measured:
        return "it has a depth image and the keyframe has none"
    return ""
