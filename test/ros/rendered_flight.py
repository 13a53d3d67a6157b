"""A rendered flight for the live node: images with depth and true poses, and how they are sent."""

from __future__ import annotations

from collections.abc import Callable
from itertools import cycle
from typing import Any

import numpy as np

from ros2_densematch.geometry import poses
from ros2_densematch.live.products import image_message
from ros2_densematch.simulation.flight import demo_camera, look
from ros2_densematch.simulation.renderer import render
from ros2_densematch.simulation.worlds import workshop

Flown = list[tuple[np.ndarray, np.ndarray, np.ndarray]]

FRAME = "camera_optical_frame"
# a camera that looks forward, 0.2 m ahead of and 0.3 m above base_link (x forward, y left, z up)
BASE_FROM_CAMERA = "0.2 0.0 0.3 -0.5 0.5 -0.5 0.5"
ROS_SETTINGS = (
    "--ros-args", "-p", "image_reliability:=reliable", "-p", "base_frame:=base_link",
    "-p", f"base_from_camera:='{BASE_FROM_CAMERA}'", "-p", "sync_wait_s:=2.0", "-p", "tf_wait_s:=0.0",
)  # fmt: skip
SETTINGS = ("--matcher", "sift", *ROS_SETTINGS)
WITH_DEPTH = (*SETTINGS, "-p", "depth_topic:=depth")


def flown(to_the_right: float = 0.0) -> Flown:
    """(image, depth, T_world_from_camera) of a camera that moves to the left by 8 cm and turns by 1 degree a frame.

    Args:
        to_the_right: metres by which another camera of a stereo pair sits there.
    """
    scene, camera = workshop(), demo_camera()
    frames = []
    for step in range(6):
        T = look(np.array([1.0, -1.0 + 0.08 * step, 1.35]), np.radians(step), np.radians(6.0), 0.0)
        T = poses.compose(T, poses.make_pose(np.eye(3), [to_the_right, 0.0, 0.0]))
        drawn = render(scene, camera, T)
        frames.append((drawn.image, drawn.depth.astype(np.float32), T))
    return frames


def info_of_demo(camera: Any, baseline: float = 0.0) -> Any:
    """CameraInfo of these images; with a baseline in metres that of the right camera of a stereo pair."""
    K = demo_camera().K
    p = np.zeros((3, 4))
    p[:, :3] = K
    p[0, 3] = -K[0, 0] * baseline
    return camera.info(k=K.ravel(), p=p.ravel(), d=np.zeros(5))


def fly(peer: Any, camera: Any, flight: Flown, *, depth: bool) -> list[int]:
    """Sends the images one after the other, each when the one before is answered; their stamps."""
    peer.calibrate(info_of_demo(camera))
    return [send(peer, camera, frame, depth=depth) for frame in flight]


def fly_until(peer: Any, camera: Any, flight: Flown, condition: Callable[[], bool], what: str) -> None:
    """Sends the images to and fro, each when the one before is answered, until a condition holds."""
    images = cycle([*flight, *flight[::-1]])
    peer.calibrate(info_of_demo(camera))

    def holds() -> bool:
        send(peer, camera, next(images), depth=True)
        return condition()

    peer.until(holds, what)


def send(peer: Any, camera: Any, frame: tuple[np.ndarray, np.ndarray, np.ndarray], *, depth: bool) -> int:
    """Sends one image, after its depth, and waits for the answer; its stamp."""
    image, metres, _ = frame
    stamp: int = camera.next_stamp()
    if depth:
        peer.publish("/depth", image_message(metres, "32FC1", stamp, FRAME))
    peer.publish("/image", image_message(image, "rgb8", stamp, FRAME))
    peer.status_of(stamp)
    return stamp
