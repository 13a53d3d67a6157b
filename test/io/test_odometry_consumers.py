"""Our odometry is what evo, robot_localization and RTAB-Map take: their rules, on a bag that the package wrote."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from rosbags.highlevel import AnyReader
from rosbags.rosbag2 import Reader

from ros2_densematch.geometry import poses
from ros2_densematch.geometry.correspondences import Correspondences
from ros2_densematch.geometry.relative_pose import Geometry, RelativePose, Scale
from ros2_densematch.io.results.odometry import T_BODY_FROM_OPTICAL
from ros2_densematch.io.results.result_bag import TOPICS, ResultBag
from ros2_densematch.messages.typestore import ros2_typestore
from ros2_densematch.tracking.tracked_frame import Status, TrackedFrame

START, STEP = 1_600_000_000 * 10**9, 100_000_000


def flight(count: int = 12) -> list[TrackedFrame]:
    """A camera that goes forward by 0.1 m an image while it turns, matched against its first image."""
    rng = np.random.default_rng(0)
    xy = rng.uniform(0, 40, (2, 30, 2)).astype(np.float32)
    m = Correspondences(xy[0], xy[1], np.full(30, 0.5, np.float32), 0.9, (64, 48), (64, 48))
    root = rng.normal(0, 1e-3, (6, 6))
    frames = []
    for i in range(count):
        T = np.eye(4)
        T[:3, :3] = poses.exp_rotation(np.array([0.0, 0.03 * i, 0.0]))
        T[:3, 3] = [0.02 * i, 0.0, 0.1 * i]
        pose = RelativePose(
            np.linalg.inv(T), Geometry.CALIBRATED, Scale.METRIC, 0.01, root @ root.T + 1e-6 * np.eye(6),
            np.ones(30, np.bool_), 30, 30, 1.0, 0.3, 2.0, 0.4, "fine",
        )  # fmt: skip
        first = i == 0
        frames.append(
            TrackedFrame(
                i,
                START + i * STEP,
                Status.INITIALISED if first else Status.TRACKED,
                "fine",
                0,
                0,
                START,
                None if first else m,
                None if first else pose,
                T,
                Scale.METRIC,
                is_keyframe=first,
                num_inliers=0 if first else 30,
                inliers=None if first else pose.inliers,
                timings_ms={},
                T_frame_from_keyframe=None if first else pose.T_query_from_reference,
            )
        )
    return frames


@pytest.fixture(scope="module")
def bag(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("odometry") / "bag"
    with ResultBag(folder, frame_id="camera_optical_frame") as out:
        for frame in flight():
            out.write(frame)
    return folder


@pytest.fixture(scope="module")
def odometry(bag: Path) -> list[Any]:
    with AnyReader([bag], default_typestore=ros2_typestore()) as reader:
        connections = [c for c in reader.connections if c.topic == "/matcher/odometry"]
        return [reader.deserialize(raw, c.msgtype) for c, _, raw in reader.messages(connections)]


def test_evo_reads_the_trajectory_from_the_bag(bag: Path) -> None:
    pytest.importorskip("evo", reason="evo is not installed (GPL, development only)")
    from evo.core import metrics, sync
    from evo.core.trajectory import PoseTrajectory3D
    from evo.tools import file_interface

    with Reader(bag) as reader:
        estimate = file_interface.read_bag_trajectory(reader, "/matcher/odometry")
    frames = flight()
    truth = PoseTrajectory3D(
        timestamps=np.array([f.stamp_ns * 1e-9 for f in frames]),
        poses_se3=[T_BODY_FROM_OPTICAL @ f.T_world_from_camera for f in frames],
    )
    error = metrics.APE(metrics.PoseRelation.full_transformation)
    error.process_data(sync.associate_trajectories(truth, estimate, max_diff=1e-3))
    assert estimate.num_poses == len(frames)
    assert error.get_statistic(metrics.StatisticsType.max) < 1e-6


def test_robot_localization_can_fuse_it(odometry: list[Any]) -> None:
    """It drops measurements without frames, and with a covariance that is not one."""
    assert len(odometry) == 12
    for message in odometry:
        assert message.header.frame_id == "odom"
        assert message.child_frame_id == "camera_optical_frame"
        q = message.pose.pose.orientation
        assert abs(np.linalg.norm([q.x, q.y, q.z, q.w]) - 1) < 1e-6
        for covariance in (message.pose.covariance, message.twist.covariance):
            matrix = np.asarray(covariance).reshape(6, 6)
            assert np.isfinite(matrix).all()
            assert np.abs(matrix).max() <= 1e9
            np.testing.assert_allclose(matrix, matrix.T, atol=1e-12)
            assert np.linalg.eigvalsh(matrix).min() >= -1e-9
    times = [m.header.stamp.sec + m.header.stamp.nanosec * 1e-9 for m in odometry]
    assert (np.diff(times) > 0).all()


def test_the_example_for_robot_localization_fuses_what_we_publish(repository: Path, odometry: list[Any]) -> None:
    example = yaml.safe_load((repository / "config/robot_localization.yaml").read_text())
    settings = example["ekf_filter_node"]["ros__parameters"]
    assert settings["odom0"] in TOPICS
    assert TOPICS[settings["odom0"]] == "nav_msgs/msg/Odometry"
    assert len(settings["odom0_config"]) == 15
    assert settings["odom0_config"][6:12] == [True] * 6
    assert settings["world_frame"] == settings["odom_frame"] == odometry[0].header.frame_id
    # what is fused has a variance from the second image on
    assert (np.diag(np.asarray(odometry[2].twist.covariance).reshape(6, 6)) > 0).all()


def test_the_twist_is_in_the_child_frame(odometry: list[Any]) -> None:
    before, after = odometry[5], odometry[6]
    R = poses.matrix_from_quaternion([getattr(after.pose.pose.orientation, k) for k in "xyzw"])[:3, :3]
    step = [getattr(after.pose.pose.position, k) - getattr(before.pose.pose.position, k) for k in "xyz"]
    velocity = [getattr(after.twist.twist.linear, k) for k in "xyz"]
    np.testing.assert_allclose(velocity, R.T @ np.array(step) / 0.1, atol=1e-6)
    np.testing.assert_allclose(after.twist.twist.angular.y, 0.3, atol=1e-6)


def test_rtabmap_takes_the_covariance_of_the_twist_where_it_is_known(odometry: list[Any]) -> None:
    """It reads a variance of exactly 9999 as not known and takes the pose's; anything else weighs its links."""
    assert odometry[0].twist.covariance[0] == 9999.0
    for message in odometry[2:]:
        assert 0 < message.twist.covariance[0] < 9999.0
        assert message.twist.covariance[0] != 1.0
