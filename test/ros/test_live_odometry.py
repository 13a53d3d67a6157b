"""Metric odometry over the real transport: from depth, with the frames and the extrinsics that were asked for."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rendered_flight import BASE_FROM_CAMERA, FRAME, SETTINGS, WITH_DEPTH, fly, fly_until, info_of_demo

from ros2_densematch.geometry import poses
from ros2_densematch.io.results.odometry import T_BODY_FROM_OPTICAL
from ros2_densematch.live.products import image_message
from ros2_densematch.messages.conversions import pose_matrix, time_ns, to_cdr


def test_depth_gives_odometry_of_the_base_in_metres(start_node: Any, peer: Any, camera: Any, flight: Any) -> None:
    start_node(*WITH_DEPTH)
    peer.listen_to_node()
    odometry = peer.listen("/matcher/odometry", "nav_msgs/msg/Odometry")
    simple = peer.listen("/matcher/pose", "geometry_msgs/msg/PoseWithCovarianceStamped")
    stamps = fly(peer, camera, flight, depth=True)
    peer.until(lambda: len(odometry) == len(flight) == len(simple), "odometry of every image")
    from ros2_densematch.configuration import pose_of_text

    mount = pose_of_text(BASE_FROM_CAMERA)
    base = [poses.compose(T, poses.inverse(mount)) for _, _, T in flight]
    for found, stamp, T in zip(odometry, stamps, base, strict=True):
        assert (found.header.frame_id, found.child_frame_id) == ("odom", "base_link")
        assert time_ns(found.header.stamp) == stamp
        expected = poses.compose(poses.inverse(base[0]), T)
        got = pose_matrix(found.pose.pose)
        assert np.linalg.norm(got[:3, 3] - expected[:3, 3]) < 0.015
        assert poses.rotation_angle_deg(got, expected) < 0.3
        covariance = np.asarray(found.pose.covariance).reshape(6, 6)
        assert np.linalg.eigvalsh(covariance).min() > -1e-12
        # what nav2 accepts
        assert np.abs(covariance).max() < 1e9
    last, seconds = odometry[-1], (stamps[-1] - stamps[-2]) * 1e-9
    step = poses.compose(poses.inverse(base[-2]), base[-1])
    speed = np.array([last.twist.twist.linear.x, last.twist.twist.linear.y, last.twist.twist.linear.z])
    assert np.linalg.norm(speed * seconds - step[:3, 3]) < 0.015
    assert last.twist.twist.angular.z * seconds == pytest.approx(np.radians(1.0), abs=np.radians(0.3))
    assert simple[-1].pose == last.pose
    status = peer.heard["/matcher/status"][-1]
    assert status.odometry_reason == ""
    assert status.scale_sources == "depth /depth"


def test_a_topic_that_happens_to_be_called_odometry_gives_no_scale(
    start_node: Any, peer: Any, camera: Any, flight: Any
) -> None:
    """Any robot may publish /odometry; metres come only from a source that was named."""
    from nav_msgs.msg import Odometry

    publisher = peer.node.create_publisher(Odometry, "/odometry", 10)
    node = start_node(*SETTINGS)
    node.wait_for("no source of metric scale is configured")
    peer.listen_to_node()
    peer.calibrate(info_of_demo(camera))
    for image, _, T in flight[:4]:
        stamp = camera.next_stamp()
        message = Odometry()
        message.header.stamp.sec, message.header.stamp.nanosec = divmod(stamp, 10**9)
        message.header.frame_id, message.child_frame_id = "odom", FRAME
        message.pose.pose.position.x = 100.0 * float(T[0, 3])
        message.pose.pose.orientation.w = 1.0
        publisher.publish(message)
        peer.publish("/image", image_message(image, "rgb8", stamp, FRAME))
        status = peer.status_of(stamp)
    assert publisher.get_subscription_count() == 0
    assert status.scale != 2, status.reason
    assert status.scale_sources == ""


def test_without_metric_scale_there_is_no_odometry_unless_it_is_asked_for(
    start_node: Any, peer: Any, camera: Any, flight: Any
) -> None:
    from rclpy.parameter import Parameter

    start_node(*SETTINGS)
    peer.listen_to_node()
    odometry = peer.listen("/matcher/odometry", "nav_msgs/msg/Odometry")
    fly(peer, camera, flight, depth=False)
    assert not odometry
    status = peer.heard["/matcher/status"][-1]
    assert status.scale == 1, status.reason
    assert "the scale is not metric" in status.odometry_reason
    wish = Parameter("publish_unscaled_odometry", value=True).to_parameter_msg()
    answer = peer.call("/matcher/set_parameters", "rcl_interfaces/srv/SetParameters", parameters=[wish])
    assert answer.results[0].successful
    fly(peer, camera, flight[::-1], depth=False)
    peer.until(lambda: bool(odometry), "unscaled odometry")
    position = odometry[-1].pose.pose.position
    known = np.linalg.eigvalsh(np.reshape(odometry[-1].pose.covariance, (6, 6))[:3, :3])
    length = float(np.linalg.norm([position.x, position.y, position.z]))
    assert np.sqrt(known[-1]) > 10 * length  # nobody may believe the length
    assert np.sqrt(known[1]) < length  # the direction may be believed


def test_tf_is_published_only_on_request(start_node: Any, peer: Any, camera: Any, flight: Any) -> None:
    pytest.importorskip("tf2_msgs.msg", reason="tf2_msgs is not here: make messages builds it")
    start_node(*WITH_DEPTH, "-p", "publish_tf:=true")
    peer.listen_to_node()
    transforms = peer.listen("/tf", "tf2_msgs/msg/TFMessage")
    fly(peer, camera, flight, depth=True)
    peer.until(lambda: len(transforms) == len(flight), "a transform for every image")
    assert transforms[-1].transforms[0].header.frame_id == "odom"
    assert transforms[-1].transforms[0].child_frame_id == "base_link"


def static_transform(peer: Any, parent: str, child: str, T: np.ndarray) -> Any:
    """Publishes a transform on /tf_static, as a driver does."""
    from rclpy.qos import DurabilityPolicy, QoSProfile

    from ros2_densematch.live.products import transform_message
    from ros2_densematch.live.ros_graph import ros_type

    kept = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
    publisher = peer.node.create_publisher(ros_type("tf2_msgs/msg/TFMessage"), "/tf_static", kept)
    publisher.publish(to_cdr(transform_message(T, 1, parent, child)))
    return publisher


def test_without_base_frame_the_transform_is_that_of_the_top_of_the_cameras_tree(
    start_node: Any, peer: Any, camera: Any, flight: Any
) -> None:
    """A driver publishes camera_link -> optical frame: a second parent of the optical frame would tear that tree."""
    pytest.importorskip("tf2_msgs.msg", reason="tf2_msgs is not here: make messages builds it")
    driver = static_transform(peer, "camera_link", FRAME, T_BODY_FROM_OPTICAL)
    node = start_node(
        "--matcher", "sift", "--ros-args", "-p", "image_reliability:=reliable", "-p", "sync_wait_s:=2.0",
        "-p", "depth_topic:=depth", "-p", "publish_tf:=true", "-p", "publish_map_tf:=true", "-p", "tf_wait_s:=3.0",
    )  # fmt: skip
    peer.listen_to_node()
    transforms = peer.listen("/tf", "tf2_msgs/msg/TFMessage")
    odometry = peer.listen("/matcher/odometry", "nav_msgs/msg/Odometry")
    peer.until(lambda: driver.get_subscription_count() > 0, "the node's subscription of /tf_static")
    fly(peer, camera, flight[:1], depth=True)
    assert "waiting for /tf_static" in peer.heard["/matcher/status"][0].odometry_reason
    fly_until(peer, camera, flight[:2], lambda: bool(odometry), "odometry after the wait for /tf_static")
    stamp = fly(peer, camera, flight, depth=True)[-1]
    peer.until(lambda: time_ns(odometry[-1].header.stamp) == stamp and len(transforms) >= 2, "the last odometry")
    edges = {(t.header.frame_id, t.child_frame_id) for m in transforms for t in m.transforms}
    assert edges == {("map", "odom"), ("odom", "camera_link")}
    # the camera moves to its left, which is +y of a frame that looks along x with z up
    position = odometry[-1].pose.pose.position
    assert position.y == pytest.approx(0.4, abs=0.03)
    assert abs(position.x) + abs(position.z) < 0.1
    assert "odometry describes camera_link in odom" in node.log


def test_a_second_author_of_the_transform_stops_ours_with_an_error(
    start_node: Any, peer: Any, camera: Any, flight: Any
) -> None:
    pytest.importorskip("tf2_msgs.msg", reason="tf2_msgs is not here: make messages builds it")
    from ros2_densematch.live.products import transform_message

    node = start_node(*WITH_DEPTH, "-p", "publish_tf:=true")
    peer.listen_to_node()
    transforms = peer.listen("/tf", "tf2_msgs/msg/TFMessage")
    odometry = peer.listen("/matcher/odometry", "nav_msgs/msg/Odometry")
    fly(peer, camera, flight[:2], depth=True)
    peer.until(lambda: len(transforms) == 2, "our transforms")
    # wheel odometry begins, and goes on: its first messages may come before the node has found the publisher
    refusal = "publish_tf is refused: another node already publishes odom -> base_link on /tf"

    def refused() -> bool:
        peer.publish("/tf", transform_message(np.eye(4), 1, "odom", "base_link"))
        return refusal in node.log

    fly_until(peer, camera, flight, refused, "the refusal")

    stamp = fly(peer, camera, flight[:1], depth=True)[0]
    peer.until(lambda: time_ns(odometry[-1].header.stamp) == stamp, "the odometry, which goes on")
    assert 1 < max(time_ns(t.header.stamp) for m in transforms for t in m.transforms) < stamp
    assert "publish_tf is refused" in peer.diagnostics_message()


def test_odom_does_not_jump_when_everything_is_forgotten(start_node: Any, peer: Any, camera: Any, flight: Any) -> None:
    start_node(*WITH_DEPTH)
    peer.listen_to_node()
    odometry = peer.listen("/matcher/odometry", "nav_msgs/msg/Odometry")
    in_map = peer.listen("/matcher/map_pose", "geometry_msgs/msg/PoseWithCovarianceStamped")
    fly(peer, camera, flight, depth=True)
    peer.until(lambda: len(odometry) == len(flight), "odometry of every image")
    assert peer.call("/matcher/reset", "std_srvs/srv/Trigger").success
    fly(peer, camera, flight, depth=True)
    peer.until(lambda: len(odometry) == len(in_map) == 2 * len(flight), "odometry of every image after the reset too")
    poses_heard = [pose_matrix(m.pose.pose) for m in odometry]
    before, after, next_one = poses_heard[len(flight) - 1 : len(flight) + 2]
    np.testing.assert_allclose(after, before, atol=1e-6)
    assert 0.05 < np.linalg.norm(next_one[:3, 3] - after[:3, 3]) < 0.12
    assert in_map[-1].header.frame_id == "map"
    np.testing.assert_allclose(pose_matrix(in_map[-1].pose.pose), poses_heard[-1], atol=1e-6)  # nothing was corrected


def test_tf_without_tf2_msgs_is_refused_with_the_reason(
    start_node: Any, ros_environment: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hidden = tmp_path / "tf2_msgs"  # a package without messages, before the real one
    hidden.mkdir()
    (hidden / "__init__.py").touch()
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}")
    with pytest.raises(
        AssertionError, match="publish_tf and publish_map_tf need tf2_msgs, which is not installed: run make messages"
    ):
        start_node("--matcher", "sift", "--ros-args", "-p", "publish_tf:=true")


def test_extrinsics_come_from_tf_static(start_node: Any, peer: Any, camera: Any, flight: Any) -> None:
    pytest.importorskip("tf2_msgs.msg", reason="tf2_msgs is not here: make messages builds it")
    from ros2_densematch.configuration import pose_of_text

    publisher = static_transform(peer, "base_link", FRAME, pose_of_text(BASE_FROM_CAMERA))
    start_node(*WITH_DEPTH, "-p", "base_from_camera:=''")
    peer.listen_to_node()
    odometry = peer.listen("/matcher/odometry", "nav_msgs/msg/Odometry")
    peer.until(lambda: publisher.get_subscription_count() > 0, "the node's subscription of /tf_static")
    # the transform may come after the first images
    fly_until(peer, camera, flight[:1], lambda: bool(odometry), "odometry of base_link")
    stamp = fly(peer, camera, flight[:3], depth=True)[-1]
    peer.until(lambda: time_ns(odometry[-1].header.stamp) == stamp, "odometry of the last image")
    assert odometry[-1].child_frame_id == "base_link"
    # 16 cm to the left of a robot that looks along x
    assert odometry[-1].pose.pose.position.y == pytest.approx(0.16, abs=0.02)
