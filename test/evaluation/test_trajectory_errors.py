"""ATE and RPE: against their definition, and against evo as an independent implementation."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from ros2_densematch.evaluation.accuracy import assess
from ros2_densematch.evaluation.summary import FrameRecord
from ros2_densematch.geometry import poses
from ros2_densematch.geometry.trajectory import Trajectory

STAMPS = 10**9 + np.arange(60, dtype=np.int64) * 10**8


def true_poses() -> NDArray[np.float64]:
    s = np.linspace(0, 2, 60)
    return np.stack(
        [
            poses.make_pose(
                poses.exp_rotation(np.array([0.1 * a, 0.5 * a, 0.0])), [3 * np.cos(a), a, 2 * np.sin(2 * a)]
            )
            for a in s
        ]
    )


def estimated_poses(noise: float, scale: float = 0.25) -> NDArray[np.float64]:
    """The truth in another frame and unit, with noise of `noise` metres and radians."""
    rng = np.random.default_rng(3)
    moved = []
    T_own_from_world = poses.make_pose(poses.exp_rotation(np.array([0.3, -0.8, 0.4])), [5.0, -2.0, 1.0])
    for T in true_poses():
        E = (
            T_own_from_world
            @ T
            @ poses.make_pose(poses.exp_rotation(noise * rng.normal(size=3)), noise * rng.normal(size=3))
        )
        E[:3, 3] *= scale
        moved.append(E)
    return np.stack(moved)


def records_of(T: NDArray[np.float64], lost: slice = slice(0, 0)) -> list[FrameRecord]:
    gone = set(range(*lost.indices(len(T))))
    return [
        FrameRecord(
            i, int(t), "LOST" if i in gone else "TRACKED", "why", T_world_from_camera=None if i in gone else T[i]
        )
        for i, t in enumerate(STAMPS)
    ]


def test_a_perfect_estimate_in_another_frame_and_unit_has_no_error() -> None:
    accuracy = assess(records_of(estimated_poses(0.0)), Trajectory(STAMPS, true_poses())).accuracy
    assert accuracy is not None
    assert accuracy["ate"]["rmse_m"] < 1e-9
    assert accuracy["rpe"]["rotation_rmse_deg"] < 1e-5
    assert accuracy["rpe"]["translation_rmse_m"] < 1e-9
    assert accuracy["scale_factor"] == pytest.approx(4.0)


def test_errors_equal_evo() -> None:
    evo_metrics = pytest.importorskip("evo.core.metrics")
    from evo.core.trajectory import PoseTrajectory3D

    truth, own = true_poses(), estimated_poses(0.02)
    accuracy = assess(records_of(own), Trajectory(STAMPS, truth)).accuracy
    assert accuracy is not None
    seconds = STAMPS * 1e-9
    reference = PoseTrajectory3D(timestamps=seconds, poses_se3=list(truth))
    estimate = PoseTrajectory3D(timestamps=seconds, poses_se3=[T.copy() for T in own])
    estimate.align(reference, correct_scale=True)
    part = evo_metrics.PoseRelation
    ape = evo_metrics.APE(part.translation_part)
    ape.process_data((reference, estimate))
    assert accuracy["ate"]["rmse_m"] == pytest.approx(ape.get_statistic(evo_metrics.StatisticsType.rmse), rel=1e-6)
    for relation, name in (
        (part.rotation_angle_deg, "rotation_rmse_deg"),
        (part.translation_part, "translation_rmse_m"),
    ):
        rpe = evo_metrics.RPE(relation, delta=1, delta_unit=evo_metrics.Unit.frames)
        rpe.process_data((reference, estimate))
        assert accuracy["rpe"][name] == pytest.approx(rpe.get_statistic(evo_metrics.StatisticsType.rmse), rel=1e-5)


def test_ground_truth_is_not_interpolated_across_gaps() -> None:
    sparse = np.array([0, 1, 2, 30, 31, 32])
    accuracy = assess(records_of(estimated_poses(0.0)), Trajectory(STAMPS[sparse], true_poses()[sparse])).accuracy
    assert accuracy is not None
    assert accuracy["poses"] == len(sparse)


def test_a_step_over_lost_frames_is_no_step_of_the_rpe() -> None:
    own = estimated_poses(0.0)
    own[30:, :3, 3] += 1.0  # a jump while lost
    accuracy = assess(records_of(own, slice(28, 30)), Trajectory(STAMPS, true_poses())).accuracy
    assert accuracy is not None
    assert accuracy["poses"] == 58
    assert accuracy["rpe"]["rotation_rmse_deg"] < 1e-5
    assert accuracy["ate"]["rmse_m"] > 0.1


def test_the_longest_segment_is_judged_and_the_rest_is_warned_of() -> None:
    rows = records_of(estimated_poses(0.0))
    rows = [FrameRecord(**{**r.__dict__, "segment": 1 if r.index >= 40 else 0}) for r in rows]
    found = assess(rows, Trajectory(STAMPS, true_poses()))
    assert found.main_segment == 0
    assert found.trajectory is not None
    assert (found.trajectory["poses"], found.trajectory["coverage"]) == (40, pytest.approx(40 / 60))
    assert "2 segments" in found.warnings[0]
    assert found.view is not None
    assert len(found.view.positions) == 40


def test_a_camera_that_stands_still_or_moves_on_a_line_has_finite_errors() -> None:
    truth = np.repeat(np.eye(4)[None], 60, 0)
    still = assess(records_of(truth), Trajectory(STAMPS, truth)).accuracy
    assert still is not None
    assert still["ate"]["rmse_m"] == pytest.approx(0.0)
    assert still["ate"]["percent_of_path"] is None
    truth[:, 2, 3] = np.linspace(0, 10, 60)
    line = truth.copy()
    line[:, :3, 3] *= 0.1
    straight = assess(records_of(line), Trajectory(STAMPS, truth)).accuracy
    assert straight is not None
    assert straight["ate"]["rmse_m"] < 1e-9
    assert straight["rpe"]["rotation_rmse_deg"] < 1e-5


def test_without_poses_or_ground_truth_nothing_is_made_up() -> None:
    own = estimated_poses(0.0)
    assert assess(records_of(own, slice(0, 60)), None).trajectory is None
    assert assess(records_of(own), None).accuracy is None
    late = assess(records_of(own), Trajectory(STAMPS + 10**12, true_poses()))
    assert late.accuracy is None
    assert "check its topic" in late.warnings[0]
