"""What a return to a known place needs beside a count of matches."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))
from synthetic_world import CAMERA as CAMERA_VGA
from synthetic_world import PointMatcher, World, image_of, look

from ros2_densematch.geometry import poses
from ros2_densematch.geometry.camera import Camera
from ros2_densematch.geometry.correspondences import Correspondences
from ros2_densematch.geometry.relative_pose import no_pose
from ros2_densematch.tracking.attempt import Attempt
from ros2_densematch.tracking.config import TrackerConfig
from ros2_densematch.tracking.frame import Frame
from ros2_densematch.tracking.keyframe import Keyframe
from ros2_densematch.tracking.localisation import Localisation
from ros2_densematch.tracking.recovery import Doubt
from ros2_densematch.tracking.returns import Evidence, Sighting, contradiction, disagreement, evidence_of, reachable
from ros2_densematch.tracking.segments import LengthSource, Segments
from ros2_densematch.tracking.state import MotionState, Place, State
from ros2_densematch.tracking.structure import Structure
from ros2_densematch.tracking.tracked_frame import Status, TrackedFrame
from ros2_densematch.tracking.tracker import Tracker
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
        ({"rotation_std_deg": 0.8}, "the matches fix the rotation to 0.8 degrees only"),
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
    seen = MotionState(round(1e9 * (100.0 - seconds_ago)), 0, np.eye(4), speed, 0.0)
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


# --- places that look alike -------------------------------------------------------------------------------------------

WHOLE, HALF, RIM = frozenset(range(48)), frozenset(range(24)), frozenset({7, 15, 23})


def sight(number: int, x: float, cells: frozenset[int]) -> Sighting:
    return Sighting(number, at(x), cells)


def test_a_place_that_explains_as_much_of_the_frame_contradicts() -> None:
    seen = [sight(1, 0.0, WHOLE), sight(2, 6.0, WHOLE)]
    rival = contradiction(at(0.0), seen, seen, 2.0)
    assert rival is not None
    assert rival.keyframe_id == 2
    assert contradiction(at(0.0), seen, seen[:1], 2.0) is None  # the camera cannot have come there


def test_the_rim_of_another_wall_does_not_contradict() -> None:
    seen = [sight(1, 0.0, WHOLE), sight(2, 6.0, RIM)]
    assert contradiction(at(0.0), seen, seen, 2.0) is None
    rim = contradiction(at(6.0), seen, seen, 2.0)
    assert rim is not None  # but it is contradicted itself
    assert rim.keyframe_id == 1


def test_keyframes_that_agree_explain_together() -> None:
    """Each sees half of the frame at the wrong place; the right place is seen whole by none."""
    other = [sight(3, 6.0, HALF), sight(4, 6.01, WHOLE - HALF)]
    assert contradiction(at(0.0), [sight(1, 0.0, WHOLE), other[0]], other[:1], 2.0) is None
    assert contradiction(at(0.0), [sight(1, 0.0, WHOLE), *other], other, 2.0) is not None


def test_a_carried_camera_needs_more_of_the_frame_than_its_rim() -> None:
    assert replace(GOOD, cells=HALF).broad
    assert not replace(GOOD, cells=RIM).broad


def test_ambiguity_is_said_before_other_doubts_and_all_places_wait() -> None:
    ambiguous = Doubt("ambiguous: two", (Place(1, at(0.0), 20),), ambiguous=True)
    later = Doubt("a second frame must agree", (Place(2, at(6.0), 30),))
    for both in (ambiguous.beside(later), later.beside(ambiguous)):
        assert both.reason == "ambiguous: two"
        assert [p.keyframe_id for p in both.places] == [2, 1]  # what explains most comes first
    assert Doubt("weak").beside(Doubt()).reason == "weak"


class Twins(PointMatcher):
    """A matcher that cannot tell the points of the wall at x = 8..12 from those at x = 0..4."""

    def _encode(self, image: np.ndarray[Any, Any], *, reference: bool, mask: Any) -> Any:
        number, ids, xy = super()._encode(image, reference=reference, mask=mask)
        return number, ids % 1500, xy


def wall() -> World:
    """A wall 4 m ahead from x = 0 to 12: the first 4 m and the last are alike, those between are like nothing else."""
    world, rng = World(points=8), np.random.default_rng(1)
    u, v = rng.uniform(0, 4, 750), rng.uniform(-2, 2, 750)
    third = np.stack([u, v, 4 + 0.3 * np.sin(3 * u) * np.cos(2 * v)], 1)
    between = np.stack([rng.uniform(4, 8, 750), rng.uniform(-2, 2, 750), rng.uniform(3.7, 4.3, 750)], 1)
    world.points = np.concatenate([third, between, third + np.array([8.0, 0, 0])])
    return world


def carried_to(x: float, seconds: float, frames: int = 5) -> list[TrackedFrame]:
    """A camera passes the wall from x = 2 to 10, sees nothing for a while, and then frames at x."""
    path = np.stack(
        [look(2 + 0.2 * i, 0, 1.5) for i in range(41)]
        + [look(10, 0, 1.5)]
        + [look(x + 0.02 * i, 0, 1.5) for i in range(frames)]
    )
    matcher = Twins(wall(), path, blind=frozenset({41}), outliers=0.05, missing=0.1)
    tracker = Tracker(matcher, TrackerConfig(max_lost_frames=100))
    stamps = [50_000_000 * (i + 1) + (round(seconds * 1e9) if i > 41 else 0) for i in range(len(path))]
    results = []
    for i, stamp in enumerate(stamps):
        depth = np.zeros((480, 640), np.float32)
        _, xy, z = matcher.sight(i)
        column, row = np.rint(xy).astype(int).T
        for dx in (-1, 0, 1):
            for dy in (-1, 0, 1):
                depth[np.clip(row + dy, 0, 479), np.clip(column + dx, 0, 639)] = z
        results.append(tracker.process(Frame(image_of(i), stamp, i, CAMERA_VGA, depth)))
    assert all(r.status is not Status.LOST for r in results[:41])
    return results[42:]


@pytest.mark.parametrize("x", [2.0, 10.0])
def test_at_one_of_two_doors_alike_the_camera_stays_lost_as_ambiguous(x: float) -> None:
    for found in carried_to(x, seconds=8.0)[1:]:
        assert found.status is Status.LOST
        assert "ambiguous" in found.reason


def test_a_carried_camera_is_found_by_two_frames_where_the_place_is_like_no_other() -> None:
    found = carried_to(6.0, seconds=8.0)
    assert found[0].status is Status.LOST  # one frame is not enough
    back = next(f for f in found[:4] if f.status is Status.RELOCALISED)
    assert back.T_world_from_camera is not None
    np.testing.assert_allclose(back.T_world_from_camera[0, 3], 4.0 + 0.02 * (back.index - 42), atol=0.1)


def test_at_a_door_where_the_camera_was_a_moment_ago_it_is_found_again() -> None:
    """It cannot have come to the other door."""
    found = carried_to(9.8, seconds=0.5)
    back = next(f for f in found[:3] if f.status is Status.RELOCALISED)
    assert back.T_world_from_camera is not None
    assert abs(back.T_world_from_camera[0, 3] - 7.8) < 0.2
