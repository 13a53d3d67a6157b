"""The launch files and ROS's own tools against the running node: where launch, ros2cli, tf2, ros2bag and cv_bridge are.

They need the package in a sourced workspace (colcon build); each test that cannot run says by name what is missing.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from ros2_densematch.live.products import image_message

WAIT_S = 120.0


def need(*modules: str) -> None:
    """Skips by name where a ROS package that the rclpy wheels lack is not installed."""
    for module in modules:
        if importlib.util.find_spec(module) is None:
            pytest.skip(f"the ROS package {module} is not installed")


@pytest.fixture
def workspace(ros_environment: None) -> None:
    # not "launch": from the source tree Python takes the folder of that name for it
    need("launch_ros", "ros2cli", "ros2launch", "ament_index_python")
    if shutil.which("ros2") is None:
        pytest.skip("the command ros2 is not on the PATH")
    from ament_index_python import PackageNotFoundError, get_package_prefix

    try:
        prefix = Path(get_package_prefix("densematch"))
    except PackageNotFoundError:
        pytest.skip("densematch is not in AMENT_PREFIX_PATH: colcon build, source install/setup.bash")
    if not (prefix / "lib/densematch/matcher").is_file():
        pytest.skip(f"the executables are not in {prefix}: colcon build, source install/setup.bash")


def ros2(*arguments: str, seconds: float = WAIT_S) -> str:
    """Output of a ros2 command."""
    done = subprocess.run(["ros2", *arguments], capture_output=True, text=True, timeout=seconds)
    return done.stdout + done.stderr


def wait_for_state(node: str, state: str) -> None:
    """Until `ros2 lifecycle` sees a node in this state: it may have to find the node first."""
    end = time.monotonic() + WAIT_S
    while not (said := ros2("lifecycle", "get", node)).startswith(state):
        assert time.monotonic() < end, f"{node} is never {state}: {said}"


class Launched:
    """`ros2 launch densematch FILE ARGUMENTS`, ended by SIGINT as Ctrl-C does."""

    def __init__(self, log: Path, file: str, *arguments: str) -> None:
        self._log = log
        with log.open("w") as out:
            self.process = subprocess.Popen(
                ["ros2", "launch", "densematch", file, *arguments],
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @property
    def log(self) -> str:
        return self._log.read_text()

    def wait_for(self, text: str) -> None:
        end = time.monotonic() + WAIT_S
        while text not in self.log:
            assert self.process.poll() is None, self.log
            assert time.monotonic() < end, f"{text!r} never came:\n{self.log}"
            time.sleep(0.1)

    def descendants(self) -> set[int]:
        found, queue = set(), [self.process.pid]
        while queue:
            children = Path(f"/proc/{queue.pop()}/task").glob("*/children")
            for child in (int(word) for path in children for word in path.read_text().split()):
                found.add(child)
                queue.append(child)
        return found

    def stop(self) -> None:
        if self.process.poll() is not None:  # it ended by itself, and the test has looked at that
            return
        started = self.descendants()
        self.process.send_signal(signal.SIGINT)
        assert self.process.wait(WAIT_S) == 0, self.log
        left = {pid for pid in started if Path(f"/proc/{pid}").exists()}
        assert not left, f"processes {left} outlived the launch:\n{self.log}"
        assert "Traceback" not in self.log, self.log


@pytest.fixture
def launch(workspace: None, tmp_path: Path) -> Iterator[Callable[..., Launched]]:
    running: list[Launched] = []

    def start(file: str, *arguments: str) -> Launched:
        running.append(Launched(tmp_path / f"launch{len(running)}.log", file, *arguments))
        return running[-1]

    yield start
    for launched in running:
        launched.stop()


@pytest.fixture
def images(peer: Any, camera: Any) -> Iterator[None]:
    """Images and calibration at 4 Hz for as long as the test runs."""
    done = threading.Event()

    def publish() -> None:
        index = 0
        while not done.is_set():
            stamp = camera.next_stamp()
            peer.publish("/camera/camera_info", camera.info(), to_nobody=True)
            peer.publish("/camera/image_raw", camera.raw(index % 40, stamp), to_nobody=True)
            index += 1
            done.wait(0.25)

    thread = threading.Thread(target=publish)
    thread.start()
    yield
    done.set()
    thread.join()


CAMERA = ("camera:=/camera", "device:=cpu", "matcher:=sift")


def test_launch_and_the_command_line_tools(launch: Callable[..., Launched], images: None, tmp_path: Path) -> None:
    need("ros2topic", "ros2param", "ros2lifecycle", "ros2service", "ros2interface")
    parameters = tmp_path / "parameters.yaml"
    parameters.write_text(
        "/**:\n  ros__parameters:\n    image_reliability: reliable\n    tracker:\n      min_inliers: 25\n"
    )
    launch("matcher.launch.py", *CAMERA, f"config:={parameters}").wait_for("active: images from /camera/image_raw")
    wait_for_state("/matcher", "active")

    pose = ros2("topic", "echo", "/matcher/relative_pose", "--once", "--no-arr")
    assert "frame_id: camera_optical_frame" in pose
    assert "reference_stamp:" in pose

    assert "tracker.min_inliers" in ros2("param", "list", "/matcher")
    described = ros2("param", "describe", "/matcher", "tracker.min_inliers")
    assert "Min value: 8" in described
    assert "Max value: 1000" in described
    assert "25" in ros2("param", "get", "/matcher", "tracker.min_inliers")
    assert "successful" in ros2("param", "set", "/matcher", "tracker.min_inliers", "30")
    assert "out of range" in ros2("param", "set", "/matcher", "tracker.min_inliers", "3")
    assert "read-only" in ros2("param", "set", "/matcher", "image_transport", "compressed")
    assert "unknown preset" in ros2("param", "set", "/matcher", "preset", "nonsense")

    assert "success=True" in ros2("service", "call", "/matcher/reset", "std_srvs/srv/Trigger")
    assert "success=True" in ros2("service", "call", "/matcher/set_keyframe", "std_srvs/srv/Trigger")
    assert "success=True" in ros2("service", "call", "/matcher/enable", "std_srvs/srv/SetBool", "{data: true}")
    refused = ros2("service", "call", "/matcher/match_pair", "densematch/srv/MatchPair", "{}")
    assert "success=False" in refused
    assert "encoding" in refused

    for transition, state in [("deactivate", "inactive"), ("cleanup", "unconfigured")]:
        assert "successful" in ros2("lifecycle", "set", "/matcher", transition)
        wait_for_state("/matcher", state)
    for transition, state in [("configure", "inactive"), ("activate", "active")]:
        assert "successful" in ros2("lifecycle", "set", "/matcher", transition)
        wait_for_state("/matcher", state)

    shown = ros2("interface", "show", "densematch/msg/MatcherStatus")
    assert "string odometry_reason" in shown
    assert "densematch/srv/MatchPair" in ros2("interface", "list")


def test_a_lifecycle_manager_may_activate(launch: Callable[..., Launched]) -> None:
    need("ros2lifecycle")
    started = launch("matcher.launch.py", *CAMERA, "auto_activate:=false")
    wait_for_state("/matcher", "unconfigured")
    assert "successful" in ros2("lifecycle", "set", "/matcher", "configure")
    assert "successful" in ros2("lifecycle", "set", "/matcher", "activate")
    started.wait_for("active: images from /camera/image_raw")


def test_a_wrong_parameter_file_is_one_clear_message(launch: Callable[..., Launched], tmp_path: Path) -> None:
    parameters = tmp_path / "wrong.yaml"
    parameters.write_text("/**:\n  ros__parameters:\n    tracker:\n      min_inliers: 3\n")
    started = launch("matcher.launch.py", *CAMERA, f"config:={parameters}")
    started.wait_for("min_inliers")
    started.wait_for("process has died")
    started.process.wait(WAIT_S)  # nothing is left to run
    assert "Traceback" not in started.log


def test_two_cameras(launch: Callable[..., Launched]) -> None:
    need("ros2lifecycle")
    started = launch("two_cameras.launch.py", "device:=cpu", "first:=/a", "second:=/b")
    started.wait_for("active: images from /a/image_raw")
    started.wait_for("active: images from /b/image_raw")
    for node in ("/first/matcher", "/second/matcher"):
        wait_for_state(node, "active")


def test_replay_beside_the_node(launch: Callable[..., Launched], shared_data: Any, tmp_path: Path) -> None:
    need("ros2bag", "ros2lifecycle")
    bag, out = shared_data.need("rosbag/tum_fr1_rpy_mcap"), tmp_path / "recorded"
    started = launch(
        "replay.launch.py",
        f"bag:={bag}",
        f"out:={out}",
        "camera:=/camera/rgb",
        "image_transport:=compressed",
        *CAMERA[1:],
    )
    assert started.process.wait(300) == 0, started.log
    from rosbags.highlevel import AnyReader

    with AnyReader([out]) as reader:
        counts = {c.topic: c.msgcount for c in reader.connections}
    assert counts["/matcher/status"] > 5
    assert counts["/matcher/relative_pose"] > 5


def test_ros2_bag_records_our_topics(launch: Callable[..., Launched], images: None, tmp_path: Path) -> None:
    need("ros2bag")
    launch("matcher.launch.py", *CAMERA).wait_for("active: images from")
    out = tmp_path / "recorded"
    recorder = subprocess.Popen(
        ["ros2", "bag", "record", "-o", str(out), "/matcher/status", "/matcher/correspondences"]
    )
    time.sleep(15)
    recorder.send_signal(signal.SIGINT)
    assert recorder.wait(60) == 0
    from rosbags.highlevel import AnyReader

    with AnyReader([out]) as reader:
        assert {c.topic for c in reader.connections if c.msgcount} == {"/matcher/status", "/matcher/correspondences"}


def test_tf2_knows_the_pose_while_the_scale_is_metric(launch: Callable[..., Launched], peer: Any, camera: Any) -> None:
    need("tf2_ros", "tf2_msgs")
    from rclpy.time import Time
    from tf2_ros import Buffer, TransformListener

    launch("matcher.launch.py", *CAMERA[1:], "image:=/sim/image", "depth:=/sim/depth", "publish_tf:=true").wait_for(
        "active: images from"
    )
    buffer = Buffer()
    listener = TransformListener(buffer, peer.node)
    rng = np.random.default_rng(0)
    texture = cv2.resize(rng.integers(0, 255, (130, 170), np.uint8), (680, 520), interpolation=cv2.INTER_CUBIC)
    for step in range(40):  # a wall, 2 m away, that passes by at 10 mm an image
        stamp = time.time_ns()
        image = np.ascontiguousarray(texture[20:500, step % 40 : step % 40 + 640])
        depth = np.full((480, 640), 2.0, np.float32)
        for topic, pixels, encoding in (("image", image, "mono8"), ("depth", depth, "32FC1")):
            peer.publish(
                f"/sim/{topic}", image_message(pixels, encoding, stamp, "camera_optical_frame"), to_nobody=True
            )
        peer.publish("/sim/camera_info", camera.info(d=np.zeros(5)), to_nobody=True)
        time.sleep(0.3)
        if buffer.can_transform("odom", "camera_optical_frame", Time()):
            break
    else:
        raise AssertionError("no transform")
    del listener


def test_cv_bridge_reads_the_match_picture(launch: Callable[..., Launched], images: None, peer: Any) -> None:
    need("cv_bridge")
    from cv_bridge import CvBridge

    launch("matcher.launch.py", *CAMERA).wait_for("active: images from")
    heard = peer.listen("/matcher/matches_image", "sensor_msgs/msg/Image")
    peer.until(lambda: len(heard) > 0, "a match picture", WAIT_S)
    picture = CvBridge().imgmsg_to_cv2(heard[0], "rgb8")
    assert picture.shape[2] == 3
    assert np.asarray(picture).std() > 10


def test_executables_run_under_the_interpreter_that_has_the_packages(workspace: None, tmp_path: Path) -> None:
    """With a PATH that holds another python3 only."""
    from ament_index_python import get_package_prefix

    executable = Path(get_package_prefix("densematch")) / "lib/densematch/densematch"
    wrong = tmp_path / "python3"
    wrong.write_text("#!/bin/sh\nexit 9\n")
    wrong.chmod(0o755)
    environment = os.environ | {"PATH": f"{tmp_path}:/usr/bin:/bin"}
    done = subprocess.run([executable, "--version"], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("densematch ")
