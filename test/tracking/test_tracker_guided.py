"""Guided matching in the tracker: when it is used, when a full match is made, and that the poses are as good."""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))
from synthetic_world import CAMERA, PointMatcher, World, image_of, look, run, similarity_error, through

from ros2_densematch.geometry import poses
from ros2_densematch.geometry.camera import Camera
from ros2_densematch.geometry.correspondences import Correspondences
from ros2_densematch.geometry.relative_pose import Geometry, Scale
from ros2_densematch.geometry.rolling_shutter import RollingCamera
from ros2_densematch.geometry.two_view import PoseConfig
from ros2_densematch.matchers.base import Encoding
from ros2_densematch.matchers.prior import Prior
from ros2_densematch.tracking.frame import Frame
from ros2_densematch.tracking.localisation import localise
from ros2_densematch.tracking.near import localise_near
from ros2_densematch.tracking.pose_prior import prior_from_pose
from ros2_densematch.tracking.structure import Structure
from ros2_densematch.tracking.tracker import Status, TrackedFrame, Tracker, TrackerConfig

SIDEWAYS = through([(0, look(-0.6, 0, 0)), (19, look(0.4, 0.1, 0.1, -3))])


@pytest.fixture(scope="module")
def world() -> World:
    return World(points=2500)


@dataclass
class GuidedMatcher(PointMatcher):
    """Finds again what a prior names, where the prior is right within 40 px, and most of the rest of its key points.

    `lame` images show a guided match only a few of its points.
    """

    uses_prior = True
    finds_new_points = True
    lame: frozenset[int] = frozenset()

    def __post_init__(self) -> None:
        super().__post_init__()
        self.full: list[tuple[int, int]] = []
        self.guided: list[tuple[int, int]] = []

    def _match(self, reference: Encoding, query: Encoding, *, max_matches: int | None, seed: int) -> Correspondences:
        self.full.append((reference.data[0], query.data[0]))
        return super()._match(reference, query, max_matches=max_matches, seed=seed)

    def _match_guided(
        self, reference: Encoding, query: Encoding, prior: Prior, *, max_matches: int | None, seed: int
    ) -> Correspondences:
        numbers = reference.data[0], query.data[0]
        self.guided.append(numbers)
        matches = replace(self, outliers=0.02)._true(reference, query, max_matches)
        near = np.zeros(len(matches), np.bool_)
        for k, xy in enumerate(matches.reference_xy):
            at = int(np.argmin(np.sum((prior.reference_xy - xy) ** 2, 1))) if len(prior) else -1
            if at >= 0 and np.linalg.norm(prior.reference_xy[at] - xy) < 0.01:
                near[k] = np.linalg.norm(prior.query_xy[at] - matches.query_xy[k]) < 40
            else:
                near[k] = k % 4 > 0
        if numbers[1] in self.lame:
            near &= np.arange(len(near)) % 12 == 0
        return matches.select(near)

    def _true(self, reference: Encoding, query: Encoding, max_matches: int | None) -> Correspondences:
        return PointMatcher._match(self, reference, query, max_matches=max_matches, seed=0)

    def _guide_points(self, encoding: Encoding) -> np.ndarray:
        return encoding.data[2].astype(np.float32)


def track(
    world: World, path: np.ndarray = SIDEWAYS, *, lame: frozenset[int] = frozenset(), **config: float
) -> tuple[GuidedMatcher, list[TrackedFrame]]:
    matcher = GuidedMatcher(world, path, lame=lame)
    return matcher, run(Tracker(matcher, TrackerConfig(**config)), path)


def test_frames_are_guided_and_the_poses_as_good(world: World) -> None:
    matcher, guided = track(world)
    full_matcher, full = track(world, guided=False)
    assert full_matcher.guided == []
    assert not any(r.guided for r in full)
    assert np.mean([r.guided for r in guided[1:]]) >= 0.8
    assert all("guided match" in r.reason for r in guided if r.guided)
    assert {r.status for r in guided[1:]} <= {Status.TRACKED, Status.NEW_KEYFRAME}
    assert similarity_error(guided, SIDEWAYS)[0] < max(1.2 * similarity_error(full, SIDEWAYS)[0], 0.003)
    assert len(matcher.full) < 0.2 * len(guided)


def test_frames_after_a_keyframe_and_the_match_back_are_guided(world: World) -> None:
    matcher, results = track(world, keyframe_parallax_deg=2.0, full_match_interval=0)
    keyframes = sorted({r.keyframe_index for r in results} - {0})
    assert len(keyframes) > 2
    for k in keyframes[:-1]:
        assert results[k + 1].guided
        before = results[k].keyframe_index
        assert (k, before) in matcher.guided, "the match back"
    assert {r.segment for r in results} == {0}
    assert similarity_error(results, SIDEWAYS)[0] < 0.02


def test_a_full_match_is_made_as_a_check_at_a_fixed_count(world: World) -> None:
    _, results = track(world, full_match_interval=4, full_match_delay=0)
    checks = [r.index for r in results[1:] if "full match: a check after 4 guided frames" in r.reason]
    assert checks == [5, 10, 15]
    _, results = track(world, full_match_interval=0)
    assert not any("a check" in r.reason for r in results)


def test_a_check_made_beside_the_tracking_is_joined_at_a_fixed_frame(world: World) -> None:
    matcher, results = track(world, full_match_interval=4, full_match_delay=3)
    assert matcher.full == [(0, 4), (0, 11), (0, 18)], "each is of the last frame before it begins"
    joined = [r.index for r in results if "a check made 3 frames ago" in r.reason]
    assert joined == [8, 15]
    assert all(results[k].guided for k in joined)
    assert all(r.guided for r in results[1:])
    waiting, _ = track(world, full_match_interval=4, full_match_delay=3)
    assert waiting.full == matcher.full


def test_a_check_of_a_keyframe_that_was_replaced_is_dropped(world: World) -> None:
    tracker = Tracker(GuidedMatcher(world, SIDEWAYS), TrackerConfig(full_match_interval=4, full_match_delay=6))
    results = run(tracker, SIDEWAYS[:7])
    tracker.request_keyframe()
    frames = [Frame(image_of(k), results[0].stamp_ns + k * 100_000_000, k, camera=CAMERA) for k in range(7, 20)]
    after = [tracker.process(frame) for frame in frames]
    assert after[0].is_keyframe
    joined = [r.index for r in after if "a check made" in r.reason]
    assert all(k > 7 + 4 + 6 for k in joined)


def test_a_check_that_contradicts_the_guided_matches_leads_to_a_full_match(world: World) -> None:
    path = np.concatenate([SIDEWAYS[:1]] * 2 + [SIDEWAYS[1:]])
    matcher = GuidedMatcher(world, path)
    tracker = Tracker(matcher, TrackerConfig(full_match_interval=3, full_match_delay=2))
    honest = matcher._match_guided

    def drifted(*arguments: Any, **named: Any) -> Correspondences:
        found = honest(*arguments, **named)
        return replace(found, query_xy=found.query_xy + np.float32(6.0 if matcher.guided[-1][1] == 3 else 0.0))

    matcher._match_guided = drifted  # type: ignore[method-assign]
    results = run(tracker, path)
    contradicted = [r for r in results if "the check contradicts" in r.reason]
    assert [r.index for r in contradicted] == [6]
    assert not contradicted[0].guided
    assert results[7].guided


def test_an_error_of_a_check_is_raised_where_it_is_joined(world: World) -> None:
    matcher = GuidedMatcher(world, SIDEWAYS)
    tracker = Tracker(matcher, TrackerConfig(full_match_interval=4, full_match_delay=3))
    run(tracker, SIDEWAYS[:5])
    matcher._match = broken  # type: ignore[method-assign]
    with pytest.raises(RuntimeError, match="out of memory"):
        run(tracker, SIDEWAYS, numbers=list(range(5, 12)))


def broken(*arguments: Any, **named: Any) -> Correspondences:
    raise RuntimeError("out of memory")


def test_a_weak_guided_match_is_replaced_by_a_full_one(world: World) -> None:
    matcher, results = track(world, lame=frozenset({9}), full_match_interval=0)
    assert not results[9].guided
    assert "full match: " in results[9].reason
    assert "guided matches agree" in results[9].reason
    assert results[8].guided
    assert results[10].guided
    assert matcher.full == [(0, 9)]


def test_after_a_gap_the_match_is_a_full_one(world: World) -> None:
    tracker = Tracker(GuidedMatcher(world, SIDEWAYS))
    results = run(tracker, SIDEWAYS[:6])
    stamp = results[-1].stamp_ns + 1_000_000_000
    late = tracker.process(Frame(image_of(6), stamp, 6, camera=CAMERA))
    assert not late.guided
    assert "full match: a gap of 1.00 s" in late.reason


def test_a_short_gap_is_bridged_by_a_guided_match_that_finds_its_points_again(world: World) -> None:
    tracker = Tracker(GuidedMatcher(world, SIDEWAYS))
    results = run(tracker, SIDEWAYS[:6])
    late = tracker.process(Frame(image_of(7), results[-1].stamp_ns + 500_000_000, 7, camera=CAMERA))
    assert late.guided
    tracker = Tracker(GuidedMatcher(world, SIDEWAYS, lame=frozenset({7})))
    results = run(tracker, SIDEWAYS[:6])
    late = tracker.process(Frame(image_of(7), results[-1].stamp_ns + 500_000_000, 7, camera=CAMERA))
    assert not late.guided
    assert "after a gap of 0.50 s" in late.reason


def test_relocalisation_is_by_full_matches(world: World) -> None:
    blind = frozenset({7, 8, 9})
    matcher = GuidedMatcher(world, SIDEWAYS, blind=blind)
    results = run(Tracker(matcher), SIDEWAYS)
    assert [r.status for r in results[7:10]] == [Status.LOST] * 3
    assert results[10].status is Status.RELOCALISED
    assert not results[10].guided
    assert results[11].guided


def test_over_the_time_budget_checks_are_left_out(world: World) -> None:
    _, results = track(world, full_match_interval=4, time_budget_ms=1e-6)
    assert not any("a check" in r.reason for r in results)
    assert all(r.status is not Status.LOST for r in results)


def test_over_the_time_budget_a_gap_is_bridged_by_the_frame_before_instead_of_a_full_match(world: World) -> None:
    """Guidance along the keyframe fails in frame 9: it shows hardly any of the points that are followed."""

    class LameAgainstOlder(GuidedMatcher):
        def _match_guided(self, reference: Encoding, query: Encoding, prior: Prior, **options: Any) -> Correspondences:
            matches = super()._match_guided(reference, query, prior, **options)
            follows = (reference.data[0], query.data[0]) == (8, 9) or query.data[0] != 9
            return matches if follows else matches.select(np.arange(len(matches)) % 40 == 0)

    tracked = {}
    for budget in (0.0, 1e-6):
        matcher = LameAgainstOlder(world, SIDEWAYS)
        config = TrackerConfig(full_match_interval=0, time_budget_ms=budget)
        tracked[budget] = matcher, run(Tracker(matcher, config), SIDEWAYS)
    assert [query for _, query in tracked[0.0][0].full] == [9]
    matcher, results = tracked[1e-6]
    assert matcher.full == []
    assert results[9].reason.startswith("frame 8 became a keyframe first")
    assert similarity_error(results, SIDEWAYS)[0] < 0.02


def test_with_a_time_budget_an_older_segment_is_looked_for_beside_the_tracking(world: World) -> None:
    path = through(
        [
            (0, look(-1.0, 0, 2, -60)),
            (12, look(-0.4, 0, 2, -55)),
            (8, look(0, 0, 2, 60)),
            (12, look(0.6, 0, 2, 55)),
            (20, look(0, 0, 2, -50)),
            (50, look(-0.6, 0, 2.1, -50)),
        ]
    )
    matcher = GuidedMatcher(world, path, blind=frozenset(range(13, 21)))
    results = run(Tracker(matcher, TrackerConfig(max_lost_frames=5, time_budget_ms=1e-6)), path)
    assert 1 in {r.segment for r in results}
    back = next(r for r in results if "segment 0 found again" in r.reason)
    assert results[-1].segment == 0
    assert back.index > 52
    seen_by_older = [query for reference, query in matcher.full if reference < 13 and query > 24]
    assert len(seen_by_older) < (back.index - 24) / 3, "not in every third frame"


def test_two_guided_runs_are_identical(world: World) -> None:
    first, second = (track(world)[1] for _ in range(2))
    for a, b in zip(first, second, strict=True):
        assert (a.reason, a.num_inliers) == (b.reason, b.num_inliers)
        np.testing.assert_array_equal(a.T_world_from_camera, b.T_world_from_camera)
        if a.relative_pose is not None:
            np.testing.assert_array_equal(a.relative_pose.covariance, b.relative_pose.covariance)


# ---- the pose near a prediction


def sight(
    T: np.ndarray, *, count: int = 600, noise_px: float = 0.2, plane: bool = False
) -> tuple[Structure, Correspondences]:
    """A keyframe's points of known depth and their matches in a frame with pose T_frame_from_keyframe."""
    rng = np.random.default_rng(1)
    xy = rng.uniform([20, 20], [620, 460], (count, 2))
    depth = np.full(count, 4.0) if plane else rng.uniform(2, 8, count)
    rays = np.column_stack([CAMERA.normalise(xy), np.ones(count)])
    seen = CAMERA.project(poses.transform_points(T, rays * depth[:, None])) + rng.normal(0, noise_px, (count, 2))
    structure, index = Structure(CAMERA).with_points(xy.astype(np.float32))
    xy, seen, rho = xy[index >= 0], seen[index >= 0], 1 / depth[index >= 0]
    structure = structure.with_prior(index[index >= 0], rho, np.full(len(rho), (0.01) ** -2))
    score = np.full(len(xy), 0.9, np.float32)
    size = (640, 480)
    return structure, Correspondences(xy.astype(np.float32), seen.astype(np.float32), score, 0.9, size, size)


def near(structure: Structure, matches: Correspondences, guess: np.ndarray, **changed: float) -> object:
    settings = {"min_inliers": 20, "max_rotation_std_deg": 0.5, **changed}
    return localise_near(matches, structure, CAMERA, predictions=[guess], config=PoseConfig(), **settings)


MOVED = poses.inverse(look(0.3, 0.05, 0.1, 3, 1))


@pytest.mark.parametrize(
    ("T", "plane", "geometry"),
    [
        (MOVED, False, Geometry.CALIBRATED),
        (MOVED, True, Geometry.PLANAR),
        (poses.inverse(look(0, 0, 0, 5, 2)), False, Geometry.PANORAMIC),
    ],
)
def test_a_pose_near_a_prediction_is_that_of_the_two_view_estimate(
    T: np.ndarray, plane: bool, geometry: Geometry
) -> None:
    structure, matches = sight(T, plane=plane)
    found = near(structure, matches, poses.inverse(look(0.02, 0, 0, 0.5)) @ T)
    full = localise(
        matches,
        structure,
        CAMERA,
        min_inliers=20,
        max_rotation_std_deg=0.5,
        predictions=[],
        config=PoseConfig(),
        seed=0,
    )
    assert found is not None
    assert found.ok
    assert found.has_length
    assert poses.rotation_angle_deg(found.T_frame_from_keyframe, T) < 0.05
    assert np.linalg.norm(found.T_frame_from_keyframe[:3, 3] - T[:3, 3]) < 0.01
    pose, other = found.two_view, full.two_view
    assert pose.geometry is geometry
    assert (pose.geometry, pose.scale) == (other.geometry, other.scale)
    assert pose.num_inliers > 0.95 * other.num_inliers
    np.linalg.cholesky(pose.covariance)
    if pose.scale is Scale.UNIT:
        assert np.linalg.norm(pose.T_query_from_reference[:3, 3]) == pytest.approx(1)
        direction = pose.T_query_from_reference[:3, 3] @ other.T_query_from_reference[:3, 3]
        assert direction > np.cos(np.radians(1.0))
        assert pose.median_triangulation_deg == pytest.approx(other.median_triangulation_deg, rel=0.2)


def test_a_fit_that_fails_its_test_is_given_up() -> None:
    structure, matches = sight(MOVED)
    assert near(structure, matches, MOVED) is not None
    wrong = np.random.default_rng(2).uniform(0, 470, matches.query_xy.shape).astype(np.float32)
    mostly = np.where(np.arange(len(matches))[:, None] % 3 > 0, wrong, matches.query_xy)
    assert near(structure, replace(matches, query_xy=mostly), MOVED) is None
    assert near(structure, matches.select(np.arange(30)), MOVED) is None
    assert near(Structure(CAMERA), matches, MOVED) is None


# ---- the prior from a pose


@pytest.mark.parametrize("rate", [None, (0.5, -0.8, 0.3)])
def test_a_prior_from_a_pose_goes_through_distortion_and_rolling_shutter(rate: tuple[float, ...] | None) -> None:
    lens = Camera(640, 480, CAMERA.K, "plumb_bob", np.array([-0.2, 0.05, 0.001, -0.001, 0.0]))
    camera = lens if rate is None else RollingCamera.of(lens, rate, 0.02)
    rng = np.random.default_rng(0)
    structure, index = Structure(lens).with_points(rng.uniform([80, 80], [560, 400], (300, 2)).astype(np.float32))
    depth = rng.uniform(2, 8, len(index))
    structure = structure.with_prior(index, 1 / depth, np.full(len(index), (0.005) ** -2))
    prior = prior_from_pose(structure, camera, MOVED)
    assert len(prior) > 200
    rows = [int(np.flatnonzero((structure.xy == xy).all(1))[0]) for xy in prior.reference_xy]
    rays = np.column_stack([lens.normalise(structure.xy[rows]), np.ones(len(rows))])
    points = poses.transform_points(MOVED, rays * depth[rows][:, None])
    np.testing.assert_allclose(prior.query_xy, camera.project(points), atol=1e-6)
    assert prior.sigma.min() >= 2.0
    # a small step in the keyframe, at the same depth, lands where the local map says
    step = np.array([3.0, -2.0])
    moved = np.column_stack([lens.normalise(structure.xy[rows] + step), np.ones(len(rows))]) * depth[rows][:, None]
    landed = camera.project(poses.transform_points(MOVED, moved)) - prior.query_xy
    np.testing.assert_allclose(landed, prior.linear @ step, atol=0.1)
