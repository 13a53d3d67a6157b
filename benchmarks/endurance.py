"""A camera at 30 Hz before a matcher that is slower, for as long as you like: memory, age of results, drops.

    python benchmarks/endurance.py --sequence ../shared/data/sequences/tum_fr1_rpy [--minutes 30] [--matcher gcm]

Needs rclpy and our messages (make messages). The node runs in a process of its own; this one publishes the sequence's
first images forwards and backwards, reliably, and reads the node's status and diagnostics. It ends with 1 when an image
is neither answered for nor counted as dropped, when the memory of the last sixth is more than 60 MB above that of the
second, or when an image waited longer than one inference.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import time
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from ros2_densematch.geometry.camera import Camera
from ros2_densematch.io.sources.opening import open_source
from ros2_densematch.io.sources.options import SourceOptions
from ros2_densematch.live.products import image_message
from ros2_densematch.messages.conversions import header_message, time_ns, to_cdr
from ros2_densematch.messages.typestore import message_class

RATE_HZ = 30.0
FRAME_ID = "camera_optical_frame"
LEAK_MB = 60.0


def camera_info(camera: Camera) -> Any:
    """sensor_msgs/CameraInfo."""
    return message_class("sensor_msgs/msg/CameraInfo")(
        header=header_message(0, FRAME_ID),
        height=camera.height,
        width=camera.width,
        distortion_model="" if camera.distortion_model == "none" else camera.distortion_model,
        d=np.asarray(camera.D, np.float64),
        k=np.asarray(camera.K, np.float64).reshape(-1),
        r=np.eye(3).reshape(-1),
        p=np.c_[camera.K, np.zeros(3)].reshape(-1),
        binning_x=0,
        binning_y=0,
        roi=message_class("sensor_msgs/msg/RegionOfInterest")(
            x_offset=0, y_offset=0, height=0, width=0, do_rectify=False
        ),
    )


def resident_mb(process: int) -> float:
    """Resident memory of a process in megabytes (Linux)."""
    for line in Path(f"/proc/{process}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    raise RuntimeError(f"process {process} shows no VmRSS")


class Listener:
    """The last status and the last diagnostics of the node."""

    def __init__(self, node: Any) -> None:
        from densematch.msg import MatcherStatus
        from diagnostic_msgs.msg import DiagnosticArray

        self.status: Any = None
        self.diagnostics: dict[str, str] = {}
        self._subscriptions = [
            node.create_subscription(MatcherStatus, "/matcher/status", self._take_status, 10),
            node.create_subscription(DiagnosticArray, "/diagnostics", self._take_diagnostics, 10),
        ]

    def _take_status(self, message: Any) -> None:
        self.status = message

    def _take_diagnostics(self, message: Any) -> None:
        self.diagnostics = {item.key: item.value for item in message.status[0].values}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sequence", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--matcher", default="gcm")
    parser.add_argument("--images", type=int, default=120, help="images of the sequence that are sent again and again")
    arguments = parser.parse_args()
    os.environ.update(ROS_AUTOMATIC_DISCOVERY_RANGE="LOCALHOST", ROS_DOMAIN_ID="77")

    import rclpy
    from rclpy.qos import QoSProfile
    from sensor_msgs.msg import CameraInfo, Image

    frames = list(islice(open_source(arguments.sequence, SourceOptions()), arguments.images))
    camera = frames[0].camera
    if camera is None:
        raise SystemExit(f"{arguments.sequence} has no calibration: choose a sequence with camera.json")
    there = [image_message(frame.image, "rgb8" if frame.image.ndim == 3 else "mono8", 0, FRAME_ID) for frame in frames]
    messages = there + there[-2:0:-1]
    rclpy.init()
    node = rclpy.create_node("endurance")
    command = [sys.executable, "-m", "ros2_densematch", "live", "--matcher", arguments.matcher]
    live = subprocess.Popen([*command, "--ros-args", "-p", "image_reliability:=reliable"])
    images = node.create_publisher(Image, "/image", QoSProfile(depth=20))
    infos = node.create_publisher(CameraInfo, "/camera_info", QoSProfile(depth=20))
    heard = Listener(node)
    while images.get_subscription_count() == 0 or infos.get_subscription_count() == 0:
        rclpy.spin_once(node, timeout_sec=0.1)
        if live.poll() is not None:
            raise SystemExit(f"the node ended with {live.returncode} before it listened")
    infos.publish(to_cdr(camera_info(camera)))

    sent = 0

    def send() -> int:
        nonlocal sent
        message = messages[sent % len(messages)]
        stamp = time.time_ns()
        message.header = header_message(stamp, FRAME_ID)
        images.publish(to_cdr(message))
        sent += 1
        return stamp

    def spin_until(end: float) -> None:
        while (left := end - time.monotonic()) > 0:
            rclpy.spin_once(node, timeout_sec=left)

    def answered(stamp: int, seconds: float) -> bool:
        """Whether the status of an image came."""
        end = time.monotonic() + seconds
        while heard.status is None or time_ns(heard.status.header.stamp) != stamp:
            if time.monotonic() > end:
                return False
            spin_until(time.monotonic() + 0.1)
        return True

    # what is sent before the node's subscription is matched reaches nobody: counting begins with the first answer
    while not answered(send(), 5.0):
        pass
    unheard = sent - heard.status.frames_processed - heard.status.frames_dropped

    memory: list[float] = []
    start, before = time.monotonic(), sent
    while time.monotonic() - start < 60.0 * arguments.minutes:
        send()
        if sent % int(RATE_HZ) == 0:
            memory.append(resident_mb(live.pid))
        if sent % int(60 * RATE_HZ) == 0:
            print(f"{(time.monotonic() - start) / 60:.0f} min, {sent} sent, {memory[-1]:.0f} MB", flush=True)
        # an image that is late is not made up for: the camera would not either
        spin_until(max(time.monotonic(), start + (sent - before) / RATE_HZ))
    spin_until(time.monotonic() + 5.0)
    end = time.monotonic() + 120.0
    if not answered(send(), 120.0):
        print("the last image was not answered within two minutes")
    heard.diagnostics = {}
    while not heard.diagnostics and time.monotonic() < end:
        spin_until(time.monotonic() + 0.1)
    live.send_signal(signal.SIGINT)
    code = live.wait(60.0)
    rclpy.try_shutdown()

    status, values = heard.status, heard.diagnostics
    sixth = max(1, len(memory) // 6)
    parts = [float(np.mean(memory[i * sixth : (i + 1) * sixth])) for i in range(len(memory) // sixth)][:6]
    waited, inference = float(values["waited_ms.max"]), float(values["matcher_ms.max"])
    print(f"sent {sent - unheard} = processed {status.frames_processed} + dropped {status.frames_dropped}")
    print(f"resident memory by sixth of the time, MB: {', '.join(f'{part:.0f}' for part in parts)}")
    print(f"longest wait {waited:.0f} ms, longest inference {inference:.0f} ms; exit code of the node {code}")
    for key in sorted(values):
        if key.startswith(("dropped.", "encode_ms", "match_ms", "pose_ms", "total_ms")):
            print(f"  {key}: {values[key]}")
    counted = status.frames_processed + status.frames_dropped == sent - unheard
    flat = len(parts) < 2 or parts[-1] - parts[1] < LEAK_MB
    return 0 if counted and flat and waited <= inference and code == 0 else 1


if __name__ == "__main__":
    sys.exit(main())
