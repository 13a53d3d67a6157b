"""What the node adds to the matcher's own time, from an image's arrival to publication, and where it goes.

    python benchmarks/transport.py [--frames 60] [--rate 5] [--out FILE.json]

Needs rclpy and our messages (make messages). Two parts:

1. A node in a process of its own with matcher sift, 640 x 480 rgb8 images sent reliably, slower than the matcher works:
   `overhead` is arrival (the middleware's time of reception) to the last message published, minus the tracker's time.
2. The conversions alone, in this process, against the baseline: rclpy's own messages, as a plain node would use them.

Copies of an image on its way, each of the whole image:
  1  the middleware's receive buffer into the `bytes` that rclpy hands over (raw=True)
  -  rosbags' Image is a view of these bytes
  2  pixels in memory order of the matcher, uint8 RGB (`decode_image`); it must outlive the message
  3  a picture of at most 640 pixels for ~/matches_image
  and the matcher's own (resizing, grey, tensor). Outgoing arrays: one into the message's buffer (`serialize_cdr`), one
  into `bytes`, one into the middleware.
"""

from __future__ import annotations

import argparse
import array
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from statistics import median
from typing import Any

import numpy as np

from ros2_densematch.geometry.correspondences import Correspondences
from ros2_densematch.live.products import image_message
from ros2_densematch.messages.conversions import correspondences_message, to_cdr
from ros2_densematch.messages.image import decode_image
from ros2_densematch.messages.typestore import ros2_typestore

WIDTH, HEIGHT, MATCHES = 640, 480, 2000


def picture(seed: int) -> np.ndarray:
    """Smooth random texture with some hundred key points, uint8 (480, 640, 3), shifted by `seed` pixels."""
    import cv2

    noise = np.random.default_rng(0).integers(0, 255, (HEIGHT // 16, (WIDTH + 256) // 16), np.uint8)
    smooth = cv2.resize(noise, (WIDTH + 256, HEIGHT), interpolation=cv2.INTER_CUBIC)
    return np.repeat(smooth[:, seed : seed + WIDTH, None], 3, axis=2)


def in_the_graph(frames: int, rate_hz: float) -> dict[str, float]:
    """Medians in milliseconds that the node itself reports after so many images."""
    import rclpy
    from diagnostic_msgs.msg import DiagnosticArray
    from rclpy.qos import QoSProfile
    from sensor_msgs.msg import Image

    command = [sys.executable, "-m", "ros2_densematch", "live", "--matcher", "sift"]
    command += ["--ros-args", "-p", "image_reliability:=reliable"]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    rclpy.init()
    node = rclpy.create_node("benchmark")
    last: dict[str, str] = {}

    def take(message: Any) -> None:
        last.update({item.key: item.value for item in message.status[0].values})

    node.create_subscription(DiagnosticArray, "/diagnostics", take, 10)
    publisher = node.create_publisher(Image, "/image", QoSProfile(depth=10))
    try:
        while publisher.get_subscription_count() == 0:
            rclpy.spin_once(node, timeout_sec=0.1)
        for number in range(frames):
            message = image_message(picture(number % 64), "rgb8", time.time_ns(), "camera")
            publisher.publish(to_cdr(message))
            end = time.monotonic() + 1.0 / rate_hz
            while time.monotonic() < end:
                rclpy.spin_once(node, timeout_sec=0.02)
        end = time.monotonic() + 3.0
        while time.monotonic() < end:
            rclpy.spin_once(node, timeout_sec=0.1)
    finally:
        process.terminate()
        process.wait(20)
        node.destroy_node()
        rclpy.try_shutdown()
    stages = ("overhead", "waited", "matcher", "total")
    found = {stage: float(last[f"{stage}_ms.median"]) for stage in stages}
    return {**found, "images": float(last["images_processed"]), "dropped": float(last["images_dropped"])}


def timed(function: Callable[[], Any], repeat: int = 60) -> float:
    """Median milliseconds."""
    times = []
    for _ in range(repeat):
        start = time.perf_counter()
        function()
        times.append(1000.0 * (time.perf_counter() - start))
    return median(times)


def conversions() -> dict[str, tuple[float, float]]:
    """Step -> (ours, rclpy's) in milliseconds."""
    from densematch.msg import Correspondences as CorrespondencesMessage
    from rclpy.serialization import deserialize_message, serialize_message
    from sensor_msgs.msg import Image

    store = ros2_typestore()
    data = to_cdr(image_message(picture(0), "rgb8", 1, "camera"))
    rng = np.random.default_rng(0)
    xy = rng.uniform(0, WIDTH, (2, MATCHES, 2)).astype(np.float32)
    score, precision = rng.uniform(size=MATCHES).astype(np.float32), rng.uniform(size=(MATCHES, 3)).astype(np.float32)
    found = Correspondences(xy[0], xy[1], score, 0.5, (WIDTH, HEIGHT), (WIDTH, HEIGHT), precision)

    def ours_in() -> Any:
        return decode_image(store.deserialize_cdr(data, "sensor_msgs/msg/Image"))

    def theirs_in() -> Any:
        return decode_image(deserialize_message(data, Image))

    def ours_out() -> bytes:
        message = correspondences_message(
            found, stamp_ns=1, frame_id="a", reference_stamp_ns=0, reference_frame_id="a", keyframe_id=0
        )
        return to_cdr(message)

    def theirs_out() -> bytes:
        message = CorrespondencesMessage()
        for name, values in (("query_xy", xy[1]), ("reference_xy", xy[0]), ("score", score), ("precision", precision)):
            setattr(message, name, array.array("f", values.tobytes()))
        return bytes(serialize_message(message))

    return {
        "image in: bytes -> uint8 RGB": (timed(ours_in), timed(theirs_in)),
        f"{MATCHES} correspondences out: arrays -> bytes": (timed(ours_out), timed(theirs_out)),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=60)
    parser.add_argument("--rate", type=float, default=5.0, help="images a second, below the matcher's rate")
    parser.add_argument("--out", help="file for the figures (JSON)")
    arguments = parser.parse_args()
    os.environ.setdefault("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    os.environ.setdefault("ROS_DOMAIN_ID", str(1 + os.getpid() % 100))
    graph = in_the_graph(arguments.frames, arguments.rate)
    print(f"{graph['images']:.0f} images of {WIDTH} x {HEIGHT}, {graph['dropped']:.0f} dropped; medians in ms:")
    print(f"  overhead {graph['overhead']:.2f} (goal: below 5), of it before the tracker {graph['waited']:.2f}")
    print(f"  matcher  {graph['matcher']:.2f}, arrival to publication {graph['total']:.2f}")
    steps = conversions()
    for step, (ours, theirs) in steps.items():
        print(f"  {step}: {ours:.2f} ms, with rclpy's messages {theirs:.2f} ms, ratio {ours / theirs:.2f}")
    if arguments.out:
        with open(arguments.out, "w", encoding="utf-8") as file:
            json.dump({"graph_ms": graph, "conversions_ms": steps}, file, indent=2)


if __name__ == "__main__":
    main()
