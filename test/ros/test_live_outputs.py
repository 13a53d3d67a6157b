"""What comes out beside the odometry: the offline poses, the map, the path, pictures, times; and scale from stereo."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from relative_pose_reading import relative_pose_from_message
from rendered_flight import (
    BASE_FROM_CAMERA,
    FRAME,
    ROS_SETTINGS,
    SETTINGS,
    WITH_DEPTH,
    Flown,
    flown,
    fly,
    info_of_demo,
    send,
)

from ros2_densematch.configuration import pose_of_text
from ros2_densematch.geometry import poses
from ros2_densematch.geometry.camera import Camera
from ros2_densematch.live.products import image_message
from ros2_densematch.matchers.registry import load_matcher
from ros2_densematch.messages.conversions import header_message, pose_matrix, pose_message, time_ns
from ros2_densematch.messages.image import decode_image
from ros2_densematch.messages.typestore import message_class
from ros2_densematch.tracking.config import TrackerConfig
from ros2_densematch.tracking.frame import Frame
from ros2_densematch.tracking.tracker import Tracker


def test_poses_are_the_offline_ones(
    start_node: Any, peer: Any, camera: Any, flight: Flown, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With nothing dropped and the time budget off."""
    import torch

    settings = [*ROS_SETTINGS, "-p", "depth_topic:=depth", "-p", "tracker.time_budget_ms:=0.0"]
    start_node("--matcher", "gcm", "--preset", "turbo", "--device", "cpu", *settings)
    peer.listen_to_node()
    odometry = peer.listen("/matcher/odometry", "nav_msgs/msg/Odometry")
    images = [*flight, *flight[::-1]]
    stamps = fly(peer, camera, images, depth=True)
    relative = peer.heard["/matcher/relative_pose"]
    peer.until(lambda: len(odometry) == len(relative) + 1 == len(images), "odometry of every image")
    assert peer.status_of(stamps[-1]).frames_dropped == 0

    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as the node's process has
    try:
        tracker = Tracker(load_matcher("gcm", preset="turbo", device="cpu"), TrackerConfig())
        calibration = Camera.from_camera_info(info_of_demo(camera))
        tracked = [
            tracker.process(Frame(image, stamp, index, calibration, depth, source="/image"))
            for index, (stamp, (image, depth, _)) in enumerate(zip(stamps, images, strict=True))
        ]
    finally:
        torch.set_num_threads(threads)
    mount = pose_of_text(BASE_FROM_CAMERA)
    for message, offline in zip(odometry, tracked, strict=True):
        assert time_ns(message.header.stamp) == offline.stamp_ns
        assert offline.T_world_from_camera is not None
        expected = poses.compose(mount, offline.T_world_from_camera, poses.inverse(mount))
        np.testing.assert_allclose(pose_matrix(message.pose.pose), expected, atol=1e-6)
    for message, offline in zip(relative, tracked[1:], strict=True):
        assert offline.relative_pose is not None
        assert (message.num_inliers, message.reference_keyframe_id) == (offline.num_inliers, offline.keyframe_id)
        found = relative_pose_from_message(message).T_query_from_reference
        np.testing.assert_allclose(found, offline.relative_pose.T_query_from_reference, atol=1e-6)
    assert sum(frame.guided for frame in tracked) > 3  # what the live node does by default is what is compared


def test_the_initial_pose_moves_the_map_and_not_the_odometry(
    start_node: Any, peer: Any, camera: Any, flight: Flown
) -> None:
    node = start_node(*WITH_DEPTH)
    peer.listen_to_node()
    odometry = peer.listen("/matcher/odometry", "nav_msgs/msg/Odometry")
    in_map = peer.listen("/matcher/map_pose", "geometry_msgs/msg/PoseWithCovarianceStamped")
    fly(peer, camera, flight[:3], depth=True)
    stamped = message_class("geometry_msgs/msg/PoseWithCovarianceStamped")
    with_covariance = message_class("geometry_msgs/msg/PoseWithCovariance")
    asked = poses.make_pose(poses.exp_rotation(np.array([0.0, 0.0, np.pi / 2])), [5.0, 2.0, 0.0])

    def say(frame: str) -> None:
        pose = with_covariance(pose=pose_message(asked), covariance=np.zeros(36))
        peer.publish("/initialpose", stamped(header=header_message(1, frame), pose=pose))

    say("odom")
    node.wait_for("/initialpose is not used: it is a pose in odom, not in map (map_frame)")
    say("map")
    images = iter([*flight[3:], *flight[::-1], *flight, *flight[::-1], *flight] * 3)

    def moved() -> bool:
        stamp = send(peer, camera, next(images), depth=True)
        peer.until(lambda: time_ns(in_map[-1].header.stamp) == stamp, "the pose in the map")
        return bool(np.linalg.norm(pose_matrix(in_map[-1].pose.pose)[:2, 3]) > 3.0)

    peer.until(moved, "the move of the map")
    in_odom = {time_ns(m.header.stamp): pose_matrix(m.pose.pose) for m in odometry}
    stamp = time_ns(in_map[-1].header.stamp)
    T_map_from_odom = poses.compose(pose_matrix(in_map[-1].pose.pose), poses.inverse(in_odom[stamp]))
    before = in_odom[sorted(in_odom)[-2]]
    np.testing.assert_allclose(poses.compose(T_map_from_odom, before), asked, atol=1e-6)
    for a, b in pairwise(odometry):  # odom went on as if nothing had been said
        step = pose_matrix(b.pose.pose)[:3, 3] - pose_matrix(a.pose.pose)[:3, 3]
        assert np.linalg.norm(step) < 0.12
    # what is announced about where things are is still in odom
    assert {m.header.frame_id for m in odometry} == {"odom"}
    assert {m.header.frame_id for m in in_map} == {"map"}


def test_path_pictures_and_times_are_there_for_those_who_ask(
    start_node: Any, peer: Any, camera: Any, flight: Flown
) -> None:
    start_node(*WITH_DEPTH, "-r", "depth/camera_info:=/depth_camera_info")
    peer.listen_to_node()
    odometry = peer.listen("/matcher/odometry", "nav_msgs/msg/Odometry")
    keyframes = peer.listen("/matcher/keyframe", "densematch/msg/KeyframeInfo", latched=True)
    pictures = peer.listen("/matcher/matches_image/compressed", "sensor_msgs/msg/CompressedImage")
    peer.publish("/camera_info", info_of_demo(camera))
    fly(peer, camera, flight[:2], depth=True)
    # who begins to listen later gets the whole path with the next image
    path = peer.listen("/matcher/path", "nav_msgs/msg/Path", latched=True)
    peer.publish("/depth_camera_info", info_of_demo(camera))
    assert peer.call("/matcher/set_keyframe", "std_srvs/srv/Trigger").success
    fly(peer, camera, flight[2:], depth=True)
    peer.until(lambda: bool(keyframes) and len(odometry) == len(flight), "odometry of every image")
    peer.until(lambda: bool(path) and len(path[-1].poses) == len(keyframes) >= 2, "the path")
    places = {time_ns(m.header.stamp): m.pose.pose for m in odometry}
    for pose in path[-1].poses:
        assert pose.header.frame_id == path[-1].header.frame_id == "odom"
        np.testing.assert_allclose(pose_matrix(pose.pose), pose_matrix(places[time_ns(pose.header.stamp)]), atol=1e-9)
    peer.until(lambda: len(pictures) >= len(flight) - 1, "pictures")
    assert decode_image(pictures[-1]).shape[1:] == (1280, 3)
    values = peer.diagnostics()
    for what in ("callback", "matcher"):
        assert 0.0 < float(values[f"{what}_ms.mean"]) <= float(values[f"{what}_ms.max"])


def test_a_stereo_pair_gives_metres(start_node: Any, peer: Any, camera: Any, flight: Flown) -> None:
    baseline = 0.12
    right = flown(to_the_right=baseline)
    with pytest.raises(AssertionError, match=r"write -p rectified:=\"'true'\""):
        start_node(*SETTINGS, "-p", "rectified:=true")
    start_node(*SETTINGS, "-p", "right_image_topic:=right/image", "-p", "rectified:='true'")
    peer.listen_to_node()
    odometry = peer.listen("/matcher/odometry", "nav_msgs/msg/Odometry")
    peer.calibrate(info_of_demo(camera))
    sent: dict[int, np.ndarray] = {}  # stamp -> true pose
    places: dict[int, np.ndarray] = {}  # stamp -> pose that was heard

    def metric() -> bool:
        """Sends the flight; whether all of it has odometry. The first messages may come before the node listens."""
        for (image, _, T), (other, _, _) in zip(flight, right, strict=True):
            stamp = camera.next_stamp()
            peer.publish("/right/camera_info", info_of_demo(camera, baseline))
            peer.publish("/right/image", image_message(other, "rgb8", stamp, FRAME))
            peer.publish("/image", image_message(image, "rgb8", stamp, FRAME))
            status = peer.status_of(stamp)
            assert status.scale_sources == "stereo /right/image"
            sent[stamp] = T
            if status.odometry_reason == "":
                peer.until(lambda at=stamp: bool(odometry) and time_ns(odometry[-1].header.stamp) == at, "odometry")
                places[stamp] = pose_matrix(odometry[-1].pose.pose)
        return set(list(sent)[-len(flight) :]) <= set(places)

    peer.until(metric, "odometry of the whole flight")
    first, *_, last = list(sent)[-len(flight) :]
    mount = pose_of_text(BASE_FROM_CAMERA)
    moved = poses.compose(poses.inverse(places[first]), places[last])
    true = poses.compose(mount, poses.inverse(sent[first]), sent[last], poses.inverse(mount))
    assert np.linalg.norm(moved[:3, 3] - true[:3, 3]) < 0.04
