"""Trajectory and pose errors: exact cases, and agreement with evo on random trajectories."""

from __future__ import annotations

import numpy as np
import pytest

from ros2_densematch.evaluation import trajectory
from ros2_densematch.evaluation.pose import pose_auc, pose_error_deg, pose_errors_deg
from ros2_densematch.geometry import poses


def random_walk(rng: np.random.Generator, n: int = 60) -> np.ndarray:
    result = [np.eye(4)]
    for _ in range(n - 1):
        result.append(result[-1] @ poses.make_pose(poses.exp_rotation(rng.normal(0, 0.1, 3)), rng.normal(0.1, 0.2, 3)))
    return np.stack(result)


def disturbed(truth: np.ndarray, rng: np.random.Generator, scale: float) -> np.ndarray:
    """Another world frame and unit, and noise."""
    frame = poses.make_pose(poses.exp_rotation(rng.normal(0, 1, 3)), rng.normal(0, 3, 3))
    moved = np.stack([frame @ T for T in truth])
    moved[:, :3, 3] = scale * (moved[:, :3, 3] + rng.normal(0, 0.05, (len(truth), 3)))
    for T in moved:
        T[:3, :3] = T[:3, :3] @ poses.exp_rotation(rng.normal(0, 0.01, 3))
    return moved


@pytest.mark.parametrize("seed", range(3))
def test_ate_and_alignment_agree_with_evo(seed: int) -> None:
    metrics = pytest.importorskip("evo.core.metrics", reason="evo is a development dependency")
    from evo.core.trajectory import PosePath3D

    rng = np.random.default_rng(seed)
    truth = random_walk(rng)
    estimated = disturbed(truth, rng, scale=0.3)
    ours = trajectory.align(estimated[:, :3, 3], truth[:, :3, 3])
    distance = np.linalg.norm(ours.apply(estimated[:, :3, 3]) - truth[:, :3, 3], axis=1)

    reference, path = PosePath3D(poses_se3=list(truth)), PosePath3D(poses_se3=list(estimated))
    _, _, scale = path.align(reference, correct_scale=True)
    ape = metrics.APE(metrics.PoseRelation.translation_part)
    ape.process_data((reference, path))
    assert ours.scale == pytest.approx(scale, rel=1e-9)
    assert trajectory.rms(distance) == pytest.approx(ape.get_statistic(metrics.StatisticsType.rmse), rel=1e-9)


@pytest.mark.parametrize("step", [1, 5])
def test_rpe_agrees_with_evo(step: int) -> None:
    metrics = pytest.importorskip("evo.core.metrics", reason="evo is a development dependency")
    from evo.core.trajectory import PosePath3D

    rng = np.random.default_rng(step)
    truth = random_walk(rng)
    estimated = disturbed(truth, rng, scale=1.0)
    steps = np.stack([np.arange(len(truth) - step), np.arange(step, len(truth))], 1)
    translation, rotation = trajectory.relative_errors(estimated, truth, steps, 1.0)
    for relation, ours in (
        (metrics.PoseRelation.translation_part, translation),
        (metrics.PoseRelation.rotation_angle_deg, rotation),
    ):
        rpe = metrics.RPE(relation, delta=step, delta_unit=metrics.Unit.frames, all_pairs=True)
        rpe.process_data((PosePath3D(poses_se3=list(truth)), PosePath3D(poses_se3=list(estimated))))
        np.testing.assert_allclose(ours, rpe.error, rtol=1e-6, atol=1e-9)


def test_similarity_alignment_removes_frame_and_unit_exactly() -> None:
    rng = np.random.default_rng(0)
    a = rng.normal(size=(20, 3))
    R = poses.exp_rotation([0.3, -1.0, 2.0])
    b = 2.5 * a @ R.T + [1.0, 2.0, 3.0]
    found = trajectory.align(a, b)
    assert found.scale == pytest.approx(2.5)
    np.testing.assert_allclose(found.R, R, atol=1e-12)
    np.testing.assert_allclose(found.apply(a), b, atol=1e-12)


def test_alignment_of_a_camera_that_stood_still_keeps_the_unit() -> None:
    still = np.zeros((5, 3))
    found = trajectory.align(still, still + np.array([1.0, 0.0, 0.0]))
    assert found.scale == 1.0
    np.testing.assert_allclose(found.apply(still), still + np.array([1.0, 0.0, 0.0]))


def test_alignment_never_mirrors() -> None:
    rng = np.random.default_rng(1)
    a = rng.normal(size=(20, 3))
    assert np.linalg.det(trajectory.align(a, a * [1.0, 1.0, -1.0]).R) == pytest.approx(1.0)


def test_pose_errors_are_the_angles_that_were_put_in() -> None:
    true = poses.make_pose(poses.exp_rotation([0, 0.5, 0]), [1.0, 0, 0])
    tilted = poses.exp_rotation(np.radians([0, 0, 4.0]))
    estimated = poses.make_pose(poses.exp_rotation(np.radians([7.0, 0, 0])) @ true[:3, :3], tilted @ [3.0, 0, 0])
    assert pose_errors_deg(estimated, true) == pytest.approx((7.0, 4.0))
    assert pose_error_deg(estimated, true) == pytest.approx(7.0)
    assert pose_error_deg(None, true) == np.inf


def test_translation_sign_counts_and_no_translation_is_a_failure() -> None:
    true = poses.make_pose(np.eye(3), [0, 0, 1.0])
    assert pose_errors_deg(poses.make_pose(np.eye(3), [0, 0, -1.0]), true)[1] == pytest.approx(180.0)
    assert pose_errors_deg(np.eye(4), true)[1] == 180.0


def test_auc_of_simple_error_sets() -> None:
    np.testing.assert_allclose(pose_auc([0.0, 0.0]), [1.0, 1.0, 1.0])
    np.testing.assert_allclose(pose_auc([np.inf, np.inf]), [0.0, 0.0, 0.0])
    # one pair with error 2.5: recall rises linearly to 1 at 2.5 and stays
    np.testing.assert_allclose(pose_auc([2.5], [5.0]), [0.75])
    # half the pairs fail: half the area
    np.testing.assert_allclose(pose_auc([2.5, np.inf], [5.0]), [0.375])


@pytest.mark.parametrize("errors", [[], [np.nan], [-1.0]])
def test_auc_refuses_what_is_not_an_error(errors: list[float]) -> None:
    with pytest.raises(ValueError, match="pose errors"):
        pose_auc(errors)
