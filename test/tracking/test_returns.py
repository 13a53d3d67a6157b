"""What a return to a known place needs beside a count of matches."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from ros2_densematch.geometry import poses
from ros2_densematch.geometry.camera import Camera
from ros2_densematch.geometry.correspondences import Correspondences
from ros2_densematch.geometry.relative_pose import no_pose
from ros2_densematch.tracking.attempt import Attempt
from ros2_densematch.tracking.config import TrackerConfig
from ros2_densematch.tracking.frame import Frame
from ros2_densematch.tracking.keyframe import Keyframe
from ros2_densematch.tracking.localisation import Localisation
from ros2_densematch.tracking.returns import Evidence, disagreement, evidence_of, reachable
from ros2_densematch.tracking.segments import LengthSource, Segments
from ros2_densematch.tracking.state import Seen, State
from ros2_densematch.tracking.structure import Structure
from ros2_densematch.tracking.view import View

CAMERA = Camera.from_matrix([[200.0, 0, 159.5], [0, 200.0, 119.5], [0, 0, 1]], 320, 240)
NOTHING: Any = None  # encodings: nothing here matches
GOOD = Evidence(inliers=120, ratio=0.8, expected=0.9, depth=0.95)


def attempt(matched: np.ndarray[Any, Any], depth: float | None = None) -> Attempt:
    """A frame at its keyframe's place, 2 m from a wall whose points cover the image; those of `matched` are found."""
    xy = np.stack(np.meshgrid(np.arange(8.0, 320, 8), np.arange(8.0, 240, 8)), -1).reshape(-1, 2)
    structure, index = Structure(CAMERA, measured=True).with_points(xy)
    structure = structure.with_prior(index, np.full(len(xy), 0.5), np.full(len(xy), 1e4))
    chosen = np.flatnonzero(matched[np.arange(len(xy)) % len(matched)] if len(matched) < len(xy) else matched)
    image = np.zeros((240, 320), np.uint8)
    frame = Frame(image, 1, 0, CAMERA, None if depth is None else np.full((240, 320), depth, np.float32))
    m = Correspondences(
        xy[chosen].astype(np.float32),
        xy[chosen].astype(np.float32),
        np.ones(len(chosen), np.float32),
        1.0,
        (320, 240),
        (320, 240),
    )
    everywhere = np.ones(len(chosen), np.bool_)
    found = Localisation(
        True, np.eye(4), True, everywhere, index[chosen], CAMERA.normalise(xy[chosen]), np.ones(len(chosen)), 0.0, 0.0,
        no_pose(len(chosen), ""), "", structure,
    )  # fmt: skip
    keyframe = Keyframe(0, 0, 0, (320, 240), CAMERA, 0, np.eye(4), NOTHING, NOTHING, structure)
    return Attempt(View(frame, NOTHING, CAMERA), keyframe, m, found)


def grid() -> np.ndarray[Any, Any]:
    return np.stack(np.meshgrid(np.arange(8.0, 320, 8), np.arange(8.0, 240, 8)), -1).reshape(-1, 2)


def test_a_return_that_has_everything_is_one() -> None:
    assert GOOD.weakness(30) == ""
    assert GOOD.strong
    assert replace(GOOD, depth=float("nan")).weakness(30) == ""  # without a depth image the others decide


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"inliers": 25}, "only 25 matches agree, a return needs 30"),
        ({"ratio": 0.38}, "only 38 % of the matches agree"),
        ({"expected": 0.2}, "matches are missing where they should be"),
        ({"depth": 0.3}, "the depth does not fit"),
    ],
)
def test_what_is_missing_is_named(change: dict[str, float], word: str) -> None:
    weak = replace(GOOD, **change)  # type: ignore[arg-type]
    assert word in weak.weakness(30)


def test_matches_in_one_corner_are_too_few_where_the_whole_keyframe_should_be_seen() -> None:
    everywhere = evidence_of(attempt(np.ones(len(grid()), np.bool_)), metric=True)
    corner = evidence_of(attempt((grid() < (110, 90)).all(1)), metric=True)
    assert everywhere.expected > 0.95
    assert corner.inliers > 100
    assert corner.expected < 0.35
    assert "missing" in corner.weakness(30)


def test_a_place_that_looks_alike_at_another_distance_does_not_fit_the_depth_image() -> None:
    everywhere = np.ones(len(grid()), np.bool_)
    assert evidence_of(attempt(everywhere, depth=2.0), metric=True).depth == 1.0
    assert evidence_of(attempt(everywhere, depth=3.0), metric=True).depth == 0.0
    assert np.isnan(evidence_of(attempt(everywhere, depth=3.0), metric=False).depth)  # another unit: nothing to compare


def state(seconds_ago: float, speed: float = 0.5) -> State:
    begun = State.beginning(TrackerConfig())
    seen = Seen(round(1e9 * (100.0 - seconds_ago)), 0, np.eye(4), speed, 0.0)
    return replace(begun, seen=seen, typical_depth=2.0, segments=Segments().with_source(LengthSource.DEPTH))


def at(x: float, yaw_deg: float = 0.0) -> np.ndarray[Any, Any]:
    return poses.make_pose(poses.exp_rotation([0, np.radians(yaw_deg), 0]), [x, 0.0, 0.0])


def test_a_camera_cannot_have_gone_farther_than_the_time_allows() -> None:
    assert reachable(state(0.5), at(0.5), 0, 100 * 10**9) is True
    assert reachable(state(0.5), at(4.5, 0.0), 0, 100 * 10**9) is False
    assert reachable(state(0.2), at(0.0, 90.0), 0, 100 * 10**9) is False


def test_after_some_seconds_and_in_another_segment_it_may_be_anywhere() -> None:
    assert reachable(state(8.0), at(4.5), 0, 100 * 10**9) is None
    assert reachable(state(0.5), at(4.5), 1, 100 * 10**9) is None
    assert reachable(State.beginning(TrackerConfig()), at(4.5), 0, 100 * 10**9) is None


def test_two_keyframes_agree_within_a_share_of_the_depth() -> None:
    assert disagreement(at(0.0), at(0.05, 1.0), 2.0) < 1.0
    assert disagreement(at(0.0), at(0.5), 2.0) > 3.0
    assert disagreement(at(0.0), at(0.0, 10.0), 2.0) > 3.0
