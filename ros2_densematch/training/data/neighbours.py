"""Neighbouring frames of a recording, matched by a matcher: pseudo-labels where there is no depth."""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from ros2_densematch.files.atomic import replacing
from ros2_densematch.matchers.base import Matcher
from ros2_densematch.matchers.registry import load_matcher
from ros2_densematch.training.data.recording import Recording


class NeighbourConfig(BaseModel):
    """Which frames are matched, by what, and which matches are believed."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    matcher: str = Field("gcm", description="The matches of this matcher are the labels.")
    weights: str | None = Field(None, description="The matcher has these weights; null takes those that ship.")
    pairs: int = Field(150, ge=1, description="This many pairs of frames are matched, evenly over the recording.")
    gaps: list[int] = Field(
        [2, 5, 10, 20],
        min_length=1,
        description="The two frames of a pair are this many frames apart, one of these numbers after the other.",
    )
    epipolar_px: float = Field(
        1.0, gt=0, description="A match is believed up to this distance from its epipolar line, in pixels."
    )
    min_matches: int = Field(60, ge=8, description="Pairs with fewer matches than this are left out.")
    max_matches: int = Field(1500, ge=8, description="This many matches of a pair are kept at most.")


@dataclass(frozen=True)
class MatchedFrames:
    """Two frames and their matches (N, 2) in pixels of the undistorted, reduced images."""

    frames: tuple[int, int]
    xy0: NDArray[np.float32]
    xy1: NDArray[np.float32]


def match_neighbours(
    recording: Recording,
    frames: Sequence[int],
    config: NeighbourConfig,
    cache: Path | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> list[MatchedFrames]:
    """Matches pairs of neighbouring frames; those with too few matches are left out.

    Args:
        recording: the frames.
        frames: numbers of those that may be used, in order.
        config: which pairs and how.
        cache: folder in which the matches of each pair are kept, or None.
        on_progress: called with (pairs done, in all).
    """
    wanted = _pairs(frames, config)
    loaded = None
    result = []
    for number, (i, j) in enumerate(wanted):
        name = f"{recording.stamp_ns(i)}_{recording.stamp_ns(j)}.npz"
        path = None if cache is None else cache / name
        found = None if path is None else _read(path)
        if found is None:
            if loaded is None:
                loaded = load_matcher(config.matcher, device="auto", weights=config.weights)
            found = _matches(loaded, recording, i, j, config)
            if path is not None:
                _write(path, *found)
        if len(found[0]) >= config.min_matches:
            result.append(MatchedFrames((i, j), *found))
        if on_progress is not None:
            on_progress(number + 1, len(wanted))
    return result


def _pairs(frames: Sequence[int], config: NeighbourConfig) -> list[tuple[int, int]]:
    """Pairs evenly over the frames, with the gaps in turn; none twice."""
    wanted: dict[tuple[int, int], None] = {}
    for k in range(config.pairs):
        gap = config.gaps[k % len(config.gaps)]
        room = len(frames) - gap
        if room > 0:
            first = int(k * room / config.pairs)
            wanted[frames[first], frames[first + gap]] = None
    return list(wanted)


def _matches(
    matcher: Matcher, recording: Recording, i: int, j: int, config: NeighbourConfig
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    reference, query = (matcher.encode(recording.view(k).image, reference=r) for k, r in ((i, True), (j, False)))
    m = matcher.match(reference, query, max_matches=config.max_matches, seed=0)
    nothing = np.zeros((0, 2), np.float32)
    if len(m) < config.min_matches:
        return nothing, nothing
    _, mask = cv2.findFundamentalMat(
        m.reference_xy.astype(np.float64),
        m.query_xy.astype(np.float64),
        cv2.USAC_MAGSAC,
        config.epipolar_px,
        0.9999,
        5000,
    )
    if mask is None:
        return nothing, nothing
    keep = mask.ravel().astype(bool)
    return m.reference_xy[keep], m.query_xy[keep]


def _read(path: Path) -> tuple[NDArray[np.float32], NDArray[np.float32]] | None:
    try:
        with np.load(path) as data:
            return data["xy0"], data["xy1"]
    except (OSError, ValueError, KeyError, zipfile.BadZipFile):
        return None  # not made yet, or cut off: it is made again


def _write(path: Path, xy0: NDArray[np.float32], xy1: NDArray[np.float32]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary, temporary.open("wb") as stream:
        np.savez(stream, xy0=xy0, xy1=xy1)
