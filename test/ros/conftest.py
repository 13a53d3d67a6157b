"""The node in a process of its own, and a peer in the test's process that publishes, listens and calls services.

These tests run where rclpy and our messages are there (make messages, or a sourced ROS 2 workspace); elsewhere they are
skipped by name. Every test process has its own ROS domain on this machine only.
"""

from __future__ import annotations

import csv
import fcntl
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

import cv2
import numpy as np
import pytest
from rendered_flight import Flown, flown

from ros2_densematch.live.products import image_message
from ros2_densematch.messages.conversions import header_message, time_ns, to_cdr
from ros2_densematch.messages.typestore import message_class

LONG_S = 180.0  # a busy machine takes this long for what is done in a second or two


@pytest.fixture(scope="session")
def ros_environment() -> Iterator[None]:
    """rclpy, our messages, and a domain of this process's own."""
    pytest.importorskip("rclpy", reason="rclpy is not here: make messages, or source a ROS 2 workspace")
    pytest.importorskip("densematch.msg", reason="densematch.msg is not built: make messages, or colcon build")
    before = dict(os.environ)
    os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"
    os.environ["OMP_NUM_THREADS"] = "1"
    domain, lock = free_domain()
    os.environ["ROS_DOMAIN_ID"] = str(domain)
    import rclpy

    rclpy.init()
    yield
    rclpy.try_shutdown()
    lock.close()
    os.environ.clear()
    os.environ.update(before)


def free_domain() -> tuple[int, IO[str]]:
    """A ROS domain that no other run of these tests on this machine uses, and the lock that holds it."""
    for domain in range(1, 101):
        lock = Path(tempfile.gettempdir(), f"densematch-test-ros-domain-{domain}.lock").open("w")  # noqa: SIM115
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            lock.close()
            continue
        return domain, lock
    raise RuntimeError("all ROS domains are in use by runs of these tests")


class LiveNode:
    """`densematch live` in a process; its log is kept for messages."""

    PROGRAM = ("-m", "ros2_densematch", "live")

    def __init__(self, program: tuple[str, ...], arguments: list[str], log: Path, wait_for: str) -> None:
        self._log = log
        with log.open("w") as out:
            command = [sys.executable, *program, *arguments]
            self.process = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT)
        self.wait_for(wait_for)

    @property
    def log(self) -> str:
        return self._log.read_text()

    def wait_for(self, text: str, seconds: float = LONG_S) -> None:
        """Until the log holds this text."""
        end = time.monotonic() + seconds
        while text not in self.log:
            if self.process.poll() is not None:
                raise AssertionError(f"the node ended with {self.process.returncode}:\n{self.log}")
            if time.monotonic() > end:
                raise AssertionError(f"the node never said {text!r}:\n{self.log}")
            time.sleep(0.05)

    def memory_mb(self) -> float:
        """Resident memory."""
        for line in Path(f"/proc/{self.process.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) / 1024
        raise AssertionError("no VmRSS")

    def stop(self, number: int = signal.SIGINT) -> int:
        """Asks the process to end and returns its exit code."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        try:
            return self.process.wait(LONG_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise AssertionError(f"the node did not end after signal {number}:\n{self.log}") from None


@pytest.fixture
def start_node(ros_environment: None, tmp_path: Path) -> Iterator[Callable[..., LiveNode]]:
    """Starts `densematch live ARGUMENTS`, or another program with a node; at the end of the test every node ends in
    order, with exit code 0."""
    nodes: list[LiveNode] = []

    def start(
        *arguments: str, wait_for: str = "active: images from", program: tuple[str, ...] = LiveNode.PROGRAM
    ) -> LiveNode:
        nodes.append(LiveNode(program, list(arguments), tmp_path / f"node{len(nodes)}.log", wait_for))
        return nodes[-1]

    yield start
    codes = [(node.stop(), node.log) for node in nodes]
    for code, log in codes:
        assert code == 0, log
        assert "Traceback" not in log, log


class Peer:
    """Publishes typestore messages, keeps what it hears, calls services. Its executor runs in a thread."""

    def __init__(self) -> None:
        import rclpy
        from rclpy.executors import SingleThreadedExecutor

        self.node: Any = rclpy.create_node(f"peer_{os.getpid()}_{time.monotonic_ns() % 10**9}")
        self.heard: dict[str, list[Any]] = {}
        self.changed = threading.Condition()
        self._publishers: dict[str, Any] = {}
        self._executor = SingleThreadedExecutor()
        self._executor.add_node(self.node)
        self._running = True
        self._thread = threading.Thread(target=self._spin, daemon=True)
        self._thread.start()

    def _spin(self) -> None:
        while self._running:
            self._executor.spin_once(timeout_sec=0.1)

    def close(self) -> None:
        self._running = False
        self._thread.join()
        self._executor.shutdown()
        self.node.destroy_node()

    def listen(self, topic: str, kind: str, *, latched: bool = False, wait: bool = True) -> list[Any]:
        """Subscribes reliably; returns the list that messages are appended to."""
        from rclpy.qos import DurabilityPolicy, QoSProfile

        from ros2_densematch.live.ros_graph import ros_type

        kept = self.heard.setdefault(topic, [])

        def take(message: Any) -> None:
            with self.changed:
                kept.append(message)
                self.changed.notify_all()

        durability = DurabilityPolicy.TRANSIENT_LOCAL if latched else DurabilityPolicy.VOLATILE
        subscription = self.node.create_subscription(
            ros_type(kind), topic, take, QoSProfile(depth=1000, durability=durability)
        )
        if wait:
            self.until(lambda: subscription.get_publisher_count() > 0, f"a publisher on {topic}")
        return kept

    def listen_to_node(self) -> None:
        """What every image leads to."""
        self.listen("/matcher/status", "densematch/msg/MatcherStatus")
        self.listen("/matcher/correspondences", "densematch/msg/Correspondences")
        self.listen("/matcher/relative_pose", "densematch/msg/RelativePose")
        self.listen("/diagnostics", "diagnostic_msgs/msg/DiagnosticArray")

    def diagnostics(self) -> dict[str, str]:
        """The values of the next diagnostics message."""
        return {item.key: item.value for item in self._next_diagnostics().values}

    def diagnostics_message(self) -> str:
        """What the next diagnostics message says in words."""
        return str(self._next_diagnostics().message)

    def _next_diagnostics(self) -> Any:
        kept = self.heard["/diagnostics"]
        before = len(kept)
        self.until(lambda: len(kept) > before + 1, "diagnostics")
        return kept[-1].status[0]

    def until(self, condition: Callable[[], bool], what: str, seconds: float = LONG_S) -> None:
        """Waits for a condition."""
        end = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > end:
                raise AssertionError(f"{what} did not come within {seconds:g} s")
            with self.changed:
                self.changed.wait(0.05)

    def publish(self, topic: str, message: Any, *, to_nobody: bool = False) -> None:
        """Publishes reliably; the first message on a topic waits for the node's subscription."""
        from rclpy.qos import QoSProfile

        from ros2_densematch.live.ros_graph import ros_type

        publisher = self._publishers.get(topic)
        if publisher is None:
            publisher = self.node.create_publisher(ros_type(message.__msgtype__), topic, QoSProfile(depth=20))
            self._publishers[topic] = publisher
        if not to_nobody:
            self.until(lambda: publisher.get_subscription_count() > 0, f"a subscription on {topic}")
        publisher.publish(to_cdr(message))

    def stop_publishing(self, *topics: str) -> None:
        """Ends publishers, as the end of a bag does, once what they sent has been received."""
        from rclpy.duration import Duration

        for topic in topics:
            publisher = self._publishers.pop(topic)
            publisher.wait_for_all_acked(Duration(seconds=LONG_S))
            self.node.destroy_publisher(publisher)

    def calibrate(self, info: Any) -> None:
        """Publishes a calibration again and again, as a camera does: the first may come before the node listens."""
        for _ in range(5):
            self.publish("/camera_info", info)
            time.sleep(0.1)

    def call(self, service: str, kind: str, **fields: Any) -> Any:
        """Calls a service and returns its response."""
        from ros2_densematch.live.ros_graph import ros_type

        cls = ros_type(kind)
        client = self.node.create_client(cls, service)
        self.until(client.service_is_ready, f"service {service}")
        future = client.call_async(cls.Request(**fields))
        self.until(future.done, f"an answer of {service}")
        response = future.result()
        self.node.destroy_client(client)
        return response

    def status_of(self, stamp_ns: int) -> Any:
        """The status message of an image; waits for it."""
        kept = self.heard["/matcher/status"]
        found: list[Any] = []

        def there() -> bool:
            found[:] = [m for m in kept if time_ns(m.header.stamp) == stamp_ns]
            return bool(found)

        self.until(there, f"a status for the image at {stamp_ns}")
        return found[0]


@pytest.fixture
def peer(ros_environment: None) -> Iterator[Peer]:
    made = Peer()
    yield made
    made.close()


class Camera30Hz:
    """Real images with their calibration, as messages: TUM fr1_rpy, 640 x 480."""

    def __init__(self, folder: Path) -> None:
        with (folder / "frames.csv").open() as file:
            rows = list(csv.DictReader(file))
        self.paths = [folder / row["image"] for row in rows]
        self.camera = json.loads((folder / "camera.json").read_text())
        self._stamp_ns = 0

    def next_stamp(self) -> int:
        """Now, later than the one before."""
        self._stamp_ns = max(time.time_ns(), self._stamp_ns + 1_000_000)
        return self._stamp_ns

    def image(self, index: int) -> np.ndarray:
        """uint8 RGB (480, 640, 3)."""
        return np.ascontiguousarray(cv2.imread(str(self.paths[index]))[:, :, ::-1])

    def raw(self, index: int, stamp_ns: int | None = None) -> Any:
        """sensor_msgs/Image rgb8."""
        stamp = self.next_stamp() if stamp_ns is None else stamp_ns
        return image_message(self.image(index), "rgb8", stamp, "camera_optical_frame")

    def compressed(self, index: int, stamp_ns: int | None = None) -> Any:
        """sensor_msgs/CompressedImage, the bytes of the file."""
        stamp = self.next_stamp() if stamp_ns is None else stamp_ns
        data = np.frombuffer(self.paths[index].read_bytes(), np.uint8)
        header = header_message(stamp, "camera_optical_frame")
        return message_class("sensor_msgs/msg/CompressedImage")(header=header, format="jpeg", data=data)

    def info(self, **changes: Any) -> Any:
        """sensor_msgs/CameraInfo."""
        k = np.asarray(self.camera["K"], np.float64)
        p = np.zeros((3, 4))
        p[:, :3] = k.reshape(3, 3)
        window = message_class("sensor_msgs/msg/RegionOfInterest")(
            x_offset=0, y_offset=0, height=0, width=0, do_rectify=False
        )
        fields = {
            "header": header_message(time.time_ns(), "camera_optical_frame"),
            "height": self.camera["height"],
            "width": self.camera["width"],
            "distortion_model": "plumb_bob",
            "d": np.asarray(self.camera["D"], np.float64),
            "k": k,
            "r": np.eye(3).ravel(),
            "p": p.ravel(),
            "binning_x": 0,
            "binning_y": 0,
            "roi": window,
        }
        return message_class("sensor_msgs/msg/CameraInfo")(**{**fields, **changes})


@pytest.fixture
def camera(shared_data: Any) -> Camera30Hz:
    return Camera30Hz(shared_data.need("sequences/tum_fr1_rpy"))


@pytest.fixture(scope="session")
def flight() -> Flown:
    return flown()
