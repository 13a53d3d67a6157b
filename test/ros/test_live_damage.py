"""Malformed messages, silence, a publisher that is killed, a matcher that is too slow: counted, named, survived."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from ros2_densematch.live.products import image_message
from ros2_densematch.messages.conversions import header_message, pose_message
from ros2_densematch.messages.typestore import message_class

REJECTED = 7
RELIABLE = ("--ros-args", "-p", "image_reliability:=reliable")


def changed(message: Any, **fields: Any) -> Any:
    for name, value in fields.items():
        setattr(message, name, value)
    return message


def short(camera: Any, stamp: int) -> Any:
    message = camera.raw(0, stamp)
    return changed(message, data=message.data[:1000])


RAW: dict[str, tuple[Callable[[Any, int], Any], str]] = {
    "short data": (short, "data has 1000 bytes for 480 rows of 1920"),
    "wrong step": (lambda c, s: changed(c.raw(0, s), step=100), "step is 100 for 640 pixels"),
    "unknown encoding": (lambda c, s: changed(c.raw(0, s), encoding="rgb10"), "rgb10"),
    "zero size": (lambda c, s: changed(c.raw(0, s), width=0), "the size is 0 x 480"),
    "huge size": (lambda c, s: changed(c.raw(0, s), width=2**31), "the size is 2147483648 x 480"),
    "depth instead of a picture": (lambda c, s: changed(c.raw(0, s), encoding="16UC1"), "this is a depth image"),
}


def test_malformed_images_are_counted_named_and_survived(start_node: Any, peer: Any, camera: Any) -> None:
    node = start_node("--matcher", "sift", *RELIABLE)
    peer.listen_to_node()
    peer.calibrate(camera.info())

    def good() -> Any:
        stamp = camera.next_stamp()
        peer.publish("/image", camera.raw(0, stamp))
        status = peer.status_of(stamp)
        assert status.state in (1, 2, 3), status.reason
        return status

    good()
    for count, (make, words) in enumerate(RAW.values(), start=1):
        stamp = camera.next_stamp()
        peer.publish("/image", make(camera, stamp))
        status = peer.status_of(stamp)
        assert status.state == REJECTED
        assert words in status.reason
        assert status.frames_refused == count
        assert good().num_inliers > 50  # the next good image is matched

    # a stamp that goes back: one image is refused, the others go on
    stamp = camera.next_stamp() - 10_000_000_000
    peer.publish("/image", camera.raw(0, stamp))
    status = peer.status_of(stamp)
    assert status.state == REJECTED
    assert "is not after the previous image's" in status.reason
    assert good().num_inliers > 50

    # a calibration that is no number: the one before stays, and the fault is named
    bad = np.asarray(camera.camera["K"], np.float64)
    bad[0] = np.nan
    peer.publish("/camera_info", camera.info(k=bad))
    peer.until(lambda: "not a finite number" in str(peer.diagnostics().get("complaint.0")), "the complaint")
    assert good().num_inliers > 50
    peer.calibrate(camera.info())

    # bytes that are no message at all
    peer._publishers["/image"].publish(b"\x00\x01\x00\x00rubbish")
    peer.until(lambda: "it is not a sensor_msgs/msg/Image" in peer.heard["/matcher/status"][-1].reason, "the refusal")
    assert good().num_inliers > 50

    counts = peer.diagnostics()
    assert counts["dropped.could_not_be_decoded"] == str(len(RAW) + 1)
    assert counts["dropped.stamp_not_after_the_one_before"] == "1"
    assert counts["images_processed"] == str(len(RAW) + 4)
    assert "image 1: " in node.log  # the first case is logged
    # a clock that was set back for good (a bag that begins again): three images later the node restarts
    start = camera.next_stamp() - 3_600_000_000_000
    states = []
    for step in range(3):
        peer.publish("/image", camera.raw(0, start + step * 100_000_000))
        states.append(peer.status_of(start + step * 100_000_000).state)
    assert states == [REJECTED, REJECTED, 1]
    assert "clock was set back" in node.log


def test_malformed_compressed_images(start_node: Any, peer: Any, camera: Any) -> None:
    start_node("--matcher", "sift", *RELIABLE, "-p", "image_transport:=compressed")
    peer.listen_to_node()
    topic = "/image/compressed"
    for make, words in (
        (lambda m: changed(m, data=m.data[: len(m.data) // 2]), "no end marker"),
        (lambda m: changed(m, data=m.data[:0]), "the data is empty"),
        (lambda m: changed(m, data=np.frombuffer(b"BM" + bytes(100), np.uint8)), "only jpeg and png are read"),
    ):
        stamp = camera.next_stamp()
        peer.publish(topic, make(camera.compressed(0, stamp)))
        assert words in peer.status_of(stamp).reason
        stamp = camera.next_stamp()
        peer.publish(topic, camera.compressed(0, stamp))
        # without calibration there are matches with the first image, and no poses
        assert peer.status_of(stamp).state == (6 if words != "no end marker" else 1)


PUBLISHER = """
import sys, time
sys.path.insert(0, sys.argv[1])
from pathlib import Path
import rclpy
from conftest import Camera30Hz, Peer
rclpy.init()
camera, peer = Camera30Hz(Path(sys.argv[2])), Peer()
index = 0
while True:
    peer.calibrate(camera.info())
    peer.publish("/image", camera.raw(index % 20))
    index += 1
    time.sleep(0.1)
"""


def test_a_publisher_is_killed_and_another_takes_its_place(
    start_node: Any, peer: Any, camera: Any, repository: Path
) -> None:
    def publisher() -> subprocess.Popen[bytes]:
        arguments = [str(repository / "test" / "ros"), str(camera.paths[0].parent.parent)]
        environment = {**os.environ, "PYTHONPATH": str(repository)}
        return subprocess.Popen([sys.executable, "-c", PUBLISHER, *arguments], env=environment)

    node = start_node("--matcher", "sift", *RELIABLE, "-p", "no_data_timeout_s:=1.0")
    node.wait_for("no data on /image for")
    assert "nobody publishes it" in node.log
    peer.listen_to_node()
    kept = peer.heard["/matcher/status"]
    first = publisher()
    try:
        peer.until(lambda: len(kept) > 3, "results of the first publisher")
    finally:
        first.kill()
        first.wait()
    node.wait_for("/image: back to normal")
    peer.until(lambda: "no data on /image" in str(peer.diagnostics().get("complaint.0")), "the complaint")
    before = len(kept)
    second = publisher()
    try:
        peer.until(lambda: len(kept) > before + 3, "results of the second publisher")
    finally:
        second.kill()
        second.wait()
    assert kept[-1].state != REJECTED


def test_incompatible_qos_is_named_with_its_publisher(start_node: Any, peer: Any, camera: Any) -> None:
    from rclpy.qos import QoSProfile, ReliabilityPolicy

    from ros2_densematch.live.ros_graph import ros_type

    best_effort = QoSProfile(depth=5, reliability=ReliabilityPolicy.BEST_EFFORT)
    peer.node.create_publisher(ros_type("sensor_msgs/msg/Image"), "/image", best_effort)
    node = start_node("--matcher", "sift", *RELIABLE, "-p", "no_data_timeout_s:=1.0")
    node.wait_for(f"/{peer.node.get_name()} publishes best effort, this node asks for reliable: incompatible QoS")


def test_images_in_the_other_form_are_named_with_the_argument_for_them(start_node: Any, peer: Any, camera: Any) -> None:
    node = start_node("--matcher", "sift", *RELIABLE, "-p", "image_transport:=raw", "-p", "no_data_timeout_s:=1.0")
    peer.publish("/image/compressed", camera.compressed(0), to_nobody=True)
    node.wait_for("nobody publishes it, but /image/compressed is published: image_transport:=compressed")


def test_two_nodes_of_one_name_are_noticed_and_named(start_node: Any, peer: Any) -> None:
    first = start_node("--matcher", "sift", *RELIABLE)
    peer.listen("/diagnostics", "diagnostic_msgs/msg/DiagnosticArray")
    second = start_node("--matcher", "sift", *RELIABLE)
    for node in (first, second):
        node.wait_for("2 nodes are called /matcher")
    peer.until(lambda: "2 nodes are called /matcher" in str(peer.diagnostics()), "the complaint in /diagnostics")
    assert second.stop() == 0
    first.wait_for("node name: back to normal")


def test_odometry_that_reaches_no_image_is_no_source_of_scale(start_node: Any, peer: Any, camera: Any) -> None:
    """It was named, and nothing places the camera on what it moves: the status does not count it."""
    odometry = message_class("nav_msgs/msg/Odometry")
    node = start_node("--matcher", "sift", *RELIABLE, "-p", "odometry_topic:=/wheels")
    peer.listen_to_node()
    peer.calibrate(camera.info())
    zero = [message_class(f"geometry_msgs/msg/{name}") for name in ("PoseWithCovariance", "TwistWithCovariance")]
    vector, twist = message_class("geometry_msgs/msg/Vector3"), message_class("geometry_msgs/msg/Twist")
    pose = zero[0](pose=pose_message(np.eye(4)), covariance=np.zeros(36))
    still = vector(x=0.0, y=0.0, z=0.0)

    def sources() -> str:
        stamp = camera.next_stamp()
        peer.publish("/wheels", odometry(
            header=header_message(stamp, "odom"), child_frame_id="base_link", pose=pose,
            twist=zero[1](twist=twist(linear=still, angular=still), covariance=np.zeros(36)),
        ))  # fmt: skip
        peer.publish("/image", camera.raw(0, stamp))
        return str(peer.status_of(stamp).scale_sources)

    assert node.log.count("scale from odometry /wheels") == 1
    peer.until(lambda: sources() == "", "a status without sources of scale")
    assert "/tf_static has no transform from it to camera_optical_frame" in node.log


def test_depth_that_cannot_be_used_is_said_once_and_counted(start_node: Any, peer: Any, camera: Any) -> None:
    node = start_node("--matcher", "sift", *RELIABLE, "-p", "depth_topic:=depth", "-p", "sync_wait_s:=2.0")
    peer.listen_to_node()
    peer.calibrate(camera.info())

    def counted() -> str:
        """Sends an image with its depth, which a busy machine may bring too late; what is counted of the depth."""
        stamp = camera.next_stamp()
        peer.publish("/depth", image_message(np.ones((100, 640), np.float32), "32FC1", stamp, "camera_optical_frame"))
        peer.publish("/image", camera.raw(0, stamp))
        peer.status_of(stamp)
        return str(peer.diagnostics().get("input.0"))

    kind = "depth images have another shape than the image and are not used; the first: 640 x 100 at frame"
    peer.until(lambda: counted().startswith(f"3 {kind}"), "the count in /diagnostics")
    node.wait_for(kind)
    assert node.log.count(kind) == 1


def test_short_endurance_with_a_matcher_slower_than_the_camera(start_node: Any, peer: Any, camera: Any) -> None:
    node = start_node("--matcher", "sift", *RELIABLE)
    peer.listen_to_node()
    peer.calibrate(camera.info())
    stamp = camera.next_stamp()
    peer.publish("/image", camera.raw(0, stamp))
    peer.status_of(stamp)
    messages = [camera.raw(i % 40) for i in range(40)]
    memory: list[float] = []
    start, number = time.monotonic(), 1
    while time.monotonic() - start < 12.0:
        message = messages[number % 40]
        stamp = camera.next_stamp()
        message.header = header_message(stamp, "camera_optical_frame")
        peer.publish("/image", message)
        number += 1
        memory.append(node.memory_mb())
        time.sleep(max(0.0, start + number / 30.0 - time.monotonic()))
    time.sleep(2.0)
    stamp = camera.next_stamp()
    peer.publish("/image", camera.raw(1, stamp))
    last = peer.status_of(stamp)
    assert last.frames_dropped > 0.2 * number
    assert last.frames_processed + last.frames_dropped == number + 1, peer.diagnostics()
    # keyframes fill the memory during the first part; then it stays
    half, end = np.median(memory[len(memory) // 2 : len(memory) * 3 // 4]), np.median(memory[-20:])
    assert end - half < 60.0  # a leak of every second image would be 200 MB
    counts = peer.diagnostics()
    waited, matcher = float(counts["waited_ms.max"]), float(counts["matcher_ms.max"])
    assert waited < 1.5 * matcher + 1000.0  # a queue would make it wait for most of the 12 s


def test_a_missing_package_is_one_line_with_its_command() -> None:
    for module, words in (
        ("rclpy", "source its setup.bash"),
        ("poselib", "-m pip install"),
        ("densematch", "make mess"),
    ):
        code = (
            f"import sys; sys.modules[{module!r}] = None\n"
            "from ros2_densematch.__main__ import main; sys.exit(main(['live', '--matcher', 'sift']))"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 2, done.stderr
        assert words in done.stderr
        assert len(done.stderr.strip().splitlines()) == 1
