"""A real sequence through the real transport: what is published is what the offline code computes."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pytest
from relative_pose_reading import relative_pose_from_message

from ros2_densematch.geometry import poses
from ros2_densematch.geometry.camera import Camera
from ros2_densematch.geometry.two_view import Geometry, estimate_relative_pose
from ros2_densematch.matchers.registry import load_matcher
from ros2_densematch.messages.conversions import (
    correspondences_from_message,
    inliers_from_message,
    time_ns,
)
from ros2_densematch.tracking.config import TrackerConfig

RELIABLE = ("--ros-args", "-p", "image_reliability:=reliable")


def send(peer: Any, camera: Any, indices: range, rate_hz: float, topic: str, message: Any) -> dict[int, int]:
    """Publishes images at a rate; returns stamp -> index."""
    sent: dict[int, int] = {}
    start = time.monotonic()
    for count, index in enumerate(indices):
        stamp = camera.next_stamp()
        peer.publish("/camera_info", camera.info())
        peer.publish(topic, message(index, stamp))
        sent[stamp] = index
        time.sleep(max(0.0, start + (count + 1) / rate_hz - time.monotonic()))
    return sent


def all_counted(peer: Any, number: int) -> Any:
    """Waits until the node has accounted for all images; its last status."""
    last = peer.heard["/matcher/status"][-1]
    assert last.frames_processed + last.frames_dropped == number, peer.diagnostics()
    return last


def offline(name: str, camera: Any, reference: int, query: int) -> Any:
    matcher = load_matcher(name, device="cpu")
    config = TrackerConfig()
    encodings = matcher.encode(camera.image(reference), reference=True), matcher.encode(camera.image(query))
    return matcher.match(*encodings, max_matches=config.max_matches, seed=config.seed)


@pytest.mark.parametrize(("transport", "topic"), [("raw", "/image"), ("auto", "/image/compressed")])
def test_sift_at_30_hz(start_node: Any, peer: Any, camera: Any, transport: str, topic: str) -> None:
    start_node("--matcher", "sift", *RELIABLE, "-p", f"image_transport:={transport}")
    peer.listen_to_node()
    peer.calibrate(camera.info())
    message = camera.raw if topic == "/image" else camera.compressed
    # before its first message nobody can tell whether a publisher sent others
    sent = send(peer, camera, range(1), 30.0, topic, message)
    peer.status_of(max(sent))
    sent |= send(peer, camera, range(1, 90), 30.0, topic, message)
    # then a few one by one, so that some lie close together however slow this machine is; the last has the final counts
    for index in range(90, 95):
        stamp = camera.next_stamp()
        peer.publish(topic, message(index, stamp))
        sent[stamp] = index
        peer.status_of(stamp)
    last = all_counted(peer, len(sent))
    messages = peer.heard["/matcher/correspondences"]
    assert last.frames_processed >= 7
    assert len(messages) >= last.frames_processed - 2
    calibration = Camera.from_camera_info(camera.info())
    compared = 0
    for found in [*messages[: -5 : max(len(messages) // 8, 1)], *messages[-5:]]:
        query, reference = sent[time_ns(found.header.stamp)], sent[time_ns(found.reference_stamp)]
        expected, got = offline("sift", camera, reference, query), correspondences_from_message(found)
        np.testing.assert_array_equal(got.reference_xy, expected.reference_xy)
        np.testing.assert_array_equal(got.query_xy, expected.query_xy)
        np.testing.assert_array_equal(got.score, expected.score)
        assert got.precision is not None
        np.testing.assert_array_equal(got.precision, expected.precision)
        assert got.query_size == (640, 480)
        assert found.matcher == "sift"
        assert found.header.frame_id == "camera_optical_frame"
        pose = next((p for p in peer.heard["/matcher/relative_pose"] if p.header.stamp == found.header.stamp), None)
        if pose is None or pose.geometry not in (Geometry.CALIBRATED, Geometry.PANORAMIC, Geometry.PLANAR):
            continue
        assert pose.latency_ms > 0
        online = relative_pose_from_message(pose, inliers_from_message(found))
        again = estimate_relative_pose(expected, calibration, calibration, config=TrackerConfig().pose)
        if online.num_inliers >= 30 and again.ok:
            turn = poses.rotation_angle_deg(online.T_query_from_reference, again.T_query_from_reference)
            assert turn < 1.0
            compared += 1
    assert compared > 0


def test_gcm_gives_the_offline_matches(start_node: Any, peer: Any, camera: Any) -> None:
    start_node("--matcher", "gcm", "--preset", "turbo", "--device", "cpu", *RELIABLE, "-p", "tracker.guided:=false")
    peer.listen_to_node()
    peer.calibrate(camera.info())
    sent = send(peer, camera, range(0, 9, 2), 1.0, "/image", camera.raw)
    peer.status_of(max(sent))
    messages = peer.heard["/matcher/correspondences"]
    assert messages
    matcher = load_matcher("gcm", preset="turbo", device="cpu")
    for found in messages:
        query, reference = sent[time_ns(found.header.stamp)], sent[time_ns(found.reference_stamp)]
        expected = matcher.match(
            matcher.encode(camera.image(reference)),
            matcher.encode(camera.image(query)),
            max_matches=TrackerConfig().max_matches,
            seed=0,
        )
        got = correspondences_from_message(found)
        assert len(got) == len(expected) > 100
        np.testing.assert_allclose(got.query_xy, expected.query_xy, atol=0.01)
        np.testing.assert_allclose(got.overlap, expected.overlap, atol=1e-4)
        assert found.matcher.startswith("gcm@sha256:")
