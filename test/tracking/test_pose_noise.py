"""What a tracked frame says about its noise, where nothing measures lengths and where the calibration is off."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))
from synthetic_world import CAMERA, PointMatcher, World, look, run, through

from ros2_densematch.geometry import poses
from ros2_densematch.geometry.camera import Camera
from ros2_densematch.geometry.correspondences import Correspondences
from ros2_densematch.geometry.intrinsics import EXACT
from ros2_densematch.geometry.two_view import RelativePose, Scale, estimate_relative_pose
from ros2_densematch.tracking import localisation
from ros2_densematch.tracking.calibration_noise import by_calibration
from ros2_densematch.tracking.keyframe import WidestObservation
from ros2_densematch.tracking.localisation import Fit, Sights
from ros2_densematch.tracking.structure import Structure
from ros2_densematch.tracking.tracked_frame import TrackedFrame
from ros2_densematch.tracking.tracker import Tracker

Pose = np.ndarray[Any, Any]
SIDEWAYS = through([(0, look(-1, 0, 0)), (16, look(0.6, 0.1, 0.2, -4))])
MOVED = poses.inverse(look(0.3, 0.05, 0.1, 3, 1))


@pytest.fixture(scope="module")
def tracked() -> list[TrackedFrame]:
    return [r for r in run(Tracker(PointMatcher(World(points=4500), SIDEWAYS)), SIDEWAYS) if r.scale is Scale.UNIT]


def test_the_frame_of_the_first_baseline_knows_the_noise_of_its_direction_but_has_no_noise_of_the_unit(
    tracked: list[TrackedFrame],
) -> None:
    first = tracked[0]
    assert "points triangulated" in first.reason
    assert first.pose_noise is not None
    assert first.T_frame_from_keyframe is not None
    t = first.T_frame_from_keyframe[:3, 3]
    along = t @ first.pose_noise[:3, :3] @ t / (t @ t)
    assert along < 1e-3 * np.trace(first.pose_noise[:3, :3])
    across = np.sqrt(np.trace(first.pose_noise[:3, :3]) / (t @ t))
    assert 0.0001 < across < 0.1  # of the direction, radians


def test_a_first_baseline_that_leaves_two_motions_is_not_triangulated(monkeypatch: pytest.MonkeyPatch) -> None:
    """A plane seen from two places allows two motions; the wrong one would stay in all that follows."""

    def two_motions(*arguments: Any, **options: Any) -> RelativePose:
        pose = estimate_relative_pose(*arguments, **options)
        return replace(pose, covariance=pose.covariance + np.diag([0, 0, 0, 0, np.radians(1.0) ** 2, 0]))

    tracker = Tracker(PointMatcher(World(points=4500), SIDEWAYS))
    monkeypatch.setattr(localisation, "estimate_relative_pose", two_motions)
    held = run(tracker, SIDEWAYS, numbers=list(range(4)))
    assert {r.scale for r in held} == {Scale.NONE}
    assert "first baseline open" in held[-1].reason
    np.testing.assert_allclose(held[-1].T_world_from_camera[:3, 3], 0)
    monkeypatch.undo()
    assert run(tracker, SIDEWAYS, numbers=[4, 5])[-1].scale is Scale.UNIT


def test_frames_of_triangulated_points_share_an_error_that_shrinks_as_the_baseline_grows(
    tracked: list[TrackedFrame],
) -> None:
    assert all(r.unit_drift > 0 for r in tracked)
    hung = [r for r in tracked if r.keyframe_index == 0]
    direction = [
        np.sqrt(np.trace(r.points_noise[:3, :3])) / np.linalg.norm(r.T_frame_from_keyframe[:3, 3])  # type: ignore[index]
        for r in hung
    ]
    assert len(hung) >= 4
    assert direction[-1] < 0.7 * direction[0]


def test_measured_points_share_no_such_error() -> None:
    wall = np.full((480, 640), 4.0, np.float32)
    tracker = Tracker(PointMatcher(World(points=4500), SIDEWAYS))
    results = run(tracker, SIDEWAYS[:6], depth=lambda _: wall)
    assert {r.scale for r in results} == {Scale.METRIC}
    assert all(r.points_noise is None and r.unit_drift == 0 for r in results)


def test_a_nearer_frame_has_a_smaller_part_of_the_error_of_the_farthest_one() -> None:
    widest = WidestObservation(2.0, np.diag([4e-4] * 3 + [1e-6] * 3))
    half, double = (widest.noise_at(poses.make_pose(np.eye(3), [x, 0, 0])) for x in (1.0, 4.0))
    np.testing.assert_allclose(half, widest.noise / 4)
    np.testing.assert_allclose(np.diag(double), [16e-4] * 3 + [1e-6] * 3)


def fitted(camera: Camera) -> Fit:
    """A frame at MOVED from exact matches at points of known depth, as seen by who has this calibration."""
    rng = np.random.default_rng(1)
    xy = rng.uniform([20, 20], [620, 460], (600, 2))
    depth = rng.uniform(2, 8, 600)
    rays = np.column_stack([CAMERA.normalise(xy), np.ones(600)])
    seen = CAMERA.project(poses.transform_points(MOVED, rays * depth[:, None]))
    structure, index = Structure(camera).with_points(xy.astype(np.float32))
    good = index >= 0
    structure = structure.with_prior(index[good], 1 / depth[good], np.full(int(good.sum()), (0.01) ** -2))
    matches = Correspondences(
        structure.xy.astype(np.float32),
        seen[good].astype(np.float32),
        np.full(int(good.sum()), 0.9, np.float32),
        0.9,
        (640, 480),
        (640, 480),
    )
    return Fit.of(Sights.of(matches, structure, camera), MOVED)


@pytest.mark.parametrize("what", ["focal", "distortion"])
def test_the_noise_by_the_calibration_is_what_another_calibration_does_to_the_pose(what: str) -> None:
    std = 0.005
    changed = replace(CAMERA, D=np.array([std, 0, 0, 0, 0]), distortion_model="plumb_bob")
    if what == "focal":
        K = CAMERA.K.copy()
        K[0, 0] *= 1 + std
        K[1, 1] *= 1 + std
        changed = Camera.from_matrix(K, 640, 480)
    true, off = fitted(CAMERA), fitted(changed)
    assert true.inliers.mean() > 0.99
    turn = poses.log_rotation(off.T[:3, :3] @ true.T[:3, :3].T)
    moved = np.concatenate([off.T[:3, 3] - true.T[:3, 3], turn])
    assert np.linalg.norm(moved) > 1e-4
    stated = by_calibration(true, replace(EXACT, **{what: std}))
    np.testing.assert_allclose(stated, np.outer(moved, moved), atol=0.25 * float(moved @ moved))
