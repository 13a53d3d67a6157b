"""What the tracker tried and did not use leaves no trace.

Most tests track the same flight twice. In one run a keyframe that is tried shows matches that are rejected in the end,
in the other it shows none: whatever the tracker says and knows afterwards must be the same.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))
from synthetic_world import CAMERA, PointMatcher, World, look, run, through

from ros2_densematch.geometry import poses
from ros2_densematch.geometry.correspondences import Correspondences
from ros2_densematch.matchers.base import Encoding
from ros2_densematch.tracking.tracker import Status, TrackedFrame, Tracker, TrackerConfig

Lie = Callable[[int, int], "tuple[int, bool] | None"]
TOO_FEW = 25  # more than `min_inliers`, fewer than `relocalisation_inliers`
ROLLING = {"readout_ms": 20.0}  # so that the angular velocity counts


@pytest.fixture(scope="module")
def world() -> World:
    return World(points=2500)


@dataclass
class Misled(PointMatcher):
    """For some pairs of images (reference, query) makes matches up: so many, of a rigid scene or at random.

    A rigid one shows random points four metres away from a camera that moved and turned a little.
    """

    lie: Lie = lambda reference, query: None

    def _match(self, reference: Encoding, query: Encoding, *, max_matches: int | None, seed: int) -> Correspondences:
        numbers = reference.data[0], query.data[0]
        told = self.lie(*numbers)
        if told is None:
            return super()._match(reference, query, max_matches=max_matches, seed=seed)
        count, rigid = told
        rng = np.random.default_rng(numbers)
        a, b = (rng.uniform(60, [580, 420], (count, 2)) for _ in range(2))
        if rigid:
            points = np.column_stack([CAMERA.normalise(a), np.ones(count)]) * rng.uniform(3, 5, (count, 1))
            b = CAMERA.project(poses.transform_points(poses.inverse(look(0.25, 0.05, 0, 2, 1)), points))
        overlap = count / 500
        score = np.full(count, 0.5, np.float32)
        return Correspondences(a.astype(np.float32), b.astype(np.float32), score, overlap, reference.size, query.size)


def knowledge(tracker: Tracker) -> list[dict[str, object]]:
    """Everything about the keyframes that a rejected attempt could have changed."""
    return [
        {
            "id": k.id,
            "frame": k.frame_index,
            "segment": k.segment,
            "points": k.structure.xy,
            "rays": k.structure.bearing,
            "depths": k.structure.rho,
            "rate": k.rate,
            "best": (repr(k.best_inliers), k.best_cells, k.tracked),
        }
        for k in tracker.keyframes
    ]


def assert_same(first: list[TrackedFrame], second: list[TrackedFrame]) -> None:
    for a, b in zip(first, second, strict=True):
        assert (a.status, a.reason, a.keyframe_id, a.num_inliers) == (b.status, b.reason, b.keyframe_id, b.num_inliers)
        if a.T_world_from_camera is None or b.T_world_from_camera is None:
            assert a.T_world_from_camera is b.T_world_from_camera
        else:
            np.testing.assert_array_equal(a.T_world_from_camera, b.T_world_from_camera)


def both(
    world: World, path: np.ndarray, lies: tuple[Lie, Lie], config: TrackerConfig, blind: frozenset[int] = frozenset()
) -> list[TrackedFrame]:
    """Tracks with each lie and compares what came out and what is known; gives the results."""
    trackers = [Tracker(Misled(world, path, blind=blind, lie=lie), config) for lie in lies]
    results = [run(tracker, path) for tracker in trackers]
    for a, b in zip(*map(knowledge, trackers), strict=True):
        for name, value in a.items():
            np.testing.assert_array_equal(value, b[name], err_msg=f"keyframe {a['id']}: {name}")
    assert_same(*results)
    return results[0]


def about(pairs: Callable[[int, int], bool], count: int, *, rigid: bool = True) -> tuple[Lie, Lie]:
    """The lie about these pairs, and that there is nothing."""
    return (
        lambda reference, query: (count, rigid) if pairs(reference, query) else None,
        lambda reference, query: (0, rigid) if pairs(reference, query) else None,
    )


SIDEWAYS = through([(0, look(-0.6, 0, 0)), (11, look(0.4, 0.1, 0.1, -3))])
EAGER = TrackerConfig(keyframe_parallax_deg=1.5, **ROLLING)


def test_a_keyframe_that_is_not_returned_to(world: World) -> None:
    tried: list[tuple[int, int]] = []

    def first_keyframe(reference: int, query: int) -> bool:
        if reference == 0 and query > 5:
            tried.append((reference, query))
            return True
        return False

    results = both(world, SIDEWAYS, about(first_keyframe, TOO_FEW), EAGER)
    assert tried, "the first keyframe is tried again"
    assert not any("back to keyframe 0" in r.reason for r in results)


def test_the_rays_of_a_rejected_keyframe_stay(world: World) -> None:
    """The readout time is changed on the way: only frames that are tracked against a keyframe move its rays."""
    lie, _ = about(lambda reference, query: reference == 0 and query > 5, TOO_FEW)
    tracker = Tracker(Misled(world, SIDEWAYS, lie=lie), EAGER)
    run(tracker, SIDEWAYS[:6])
    first = tracker.keyframes[0]
    rays, known = first.structure.bearing.copy(), len(first.structure)
    tracker.reconfigure(EAGER.model_copy(update={"readout_ms": 60.0}))
    run(tracker, SIDEWAYS, numbers=list(range(6, len(SIDEWAYS))))
    first = tracker.keyframes[0]
    assert first.id == 0
    assert len(first.structure) == known
    np.testing.assert_array_equal(first.structure.bearing, rays)


APART = through(
    [(0, look(-1.0, 0, 2, -60)), (8, look(-0.6, 0, 2, -56)), (4, look(0, 0, 2, 60)), (12, look(0.6, 0, 2, 55))]
)


def test_an_older_segment_that_is_not_rejoined(world: World) -> None:
    lies = about(lambda reference, query: reference < 9 and query > 14, TOO_FEW)
    config = TrackerConfig(max_lost_frames=2, relocalisation_interval=1, **ROLLING)
    results = both(world, APART, lies, config, blind=frozenset(range(9, 13)))
    assert {r.segment for r in results} == {0, 1}
    assert not any("found again" in r.reason for r in results)


TURNED_AWAY = through(
    [(0, look(-0.6, 0, 0)), (8, look(0.2, 0, 0, 0)), (4, look(0.2, 0, 0, 88)), (5, look(0.2, 0, 0.6, 90))]
)


def test_older_keyframes_that_give_no_length(world: World) -> None:
    lies = about(lambda reference, query: reference < 9 and query > 11, TOO_FEW)
    results = both(world, TURNED_AWAY, lies, TrackerConfig(**ROLLING))
    assert any("the length unit was lost" in r.reason for r in results)


def test_candidates_while_lost(world: World) -> None:
    lies = about(lambda reference, query: reference == 0 and 8 < query < 13, TOO_FEW)
    path = through([(0, look(-0.6, 0, 0)), (8, look(0.2, 0, 0)), (5, look(0.2, 0, 0)), (2, look(0.25, 0, 0.02))])
    results = both(world, path, lies, EAGER, blind=frozenset(range(9, 13)))
    assert [r.status for r in results[9:13]] == [Status.LOST] * 4
    assert results[13].status is Status.RELOCALISED


def test_a_previous_frame_that_does_no_better_is_no_keyframe(world: World) -> None:
    """Few matches with the keyframe, many with the frame before, but these agree on nothing."""

    def lie(reference: int, query: int) -> tuple[int, bool] | None:
        if (reference, query) == (7, 8):
            return 400, False
        return (60, True) if query == 8 else None

    tracker = Tracker(Misled(world, SIDEWAYS, lie=lie), TrackerConfig())
    results = run(tracker, SIDEWAYS[:9])
    assert results[8].status in (Status.TRACKED, Status.NEW_KEYFRAME)
    assert "became a keyframe first" not in results[8].reason
    assert 7 not in {k.frame_index for k in tracker.keyframes}
    assert [k.id for k in tracker.keyframes] == list(range(len(tracker.keyframes)))


def test_a_segment_that_does_not_begin_uses_no_number(world: World) -> None:
    """Lost frames with many matches that agree on nothing."""
    blind = frozenset(range(6, 12))
    lie: Lie = lambda reference, query: (200, False) if {reference, query} <= blind else None  # noqa: E731
    tracker = Tracker(Misled(world, SIDEWAYS, blind=blind, lie=lie), TrackerConfig(max_lost_frames=1))
    results = run(tracker, SIDEWAYS)
    assert [r.status for r in results[6:]] == [Status.LOST] * 6
    tracker.reset()
    assert run(tracker, SIDEWAYS[:1])[0].keyframe_id == 1 + max(r.keyframe_id for r in results)
