"""The static mask that the tracker learns, on rendered flights with a robot body over a fifth of the image.

    python benchmarks/static_mask.py [--frames 240]        ATE with the body: no mask, the learnt one, a mask by hand
    python benchmarks/static_mask.py --cost                milliseconds a frame of the learning

A hand-held camera looks about in `worlds.workshop`, stands for a while, and goes on; then a second flight drives
straight on. ATE is the root mean square after similarity alignment, over the path.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace

import cv2
import numpy as np
from numpy.typing import NDArray

from ros2_densematch.arrays import Image, Mask
from ros2_densematch.geometry.camera import Camera
from ros2_densematch.geometry.trajectory import align
from ros2_densematch.matchers.registry import load_matcher
from ros2_densematch.simulation.flight import Flight, demo_camera, look
from ros2_densematch.simulation.renderer import render
from ros2_densematch.simulation.scene import Scene
from ros2_densematch.simulation.sensor import Sensor
from ros2_densematch.simulation.worlds import workshop
from ros2_densematch.tracking.config import TrackerConfig
from ros2_densematch.tracking.frame import Frame
from ros2_densematch.tracking.static_mask import Picture, StaticMask
from ros2_densematch.tracking.tracked_frame import TrackedFrame
from ros2_densematch.tracking.tracker import Tracker

RATE_HZ = 20.0
SIZE = 512, 384


def looking_about(frames: int) -> tuple[Flight, NDArray[np.bool_]]:
    """A flight sideways and forward while the camera looks about, and which frames stand: an eighth, in the middle."""
    share = np.linspace(0.0, 1.0, frames)
    stands = (share > 0.45) & (share < 0.575)
    moved = np.cumsum(~stands) / max((~stands).sum(), 1)
    angle = 2 * np.pi * moved * frames / 80
    poses = [
        look(
            np.array([1.0 + 1.2 * s, -0.9 + 1.6 * s + 0.1 * np.sin(a), 1.35 + 0.12 * np.sin(1.7 * a)]),
            *np.deg2rad([-4 - 8 * s + 9 * np.sin(a), 6 + 6 * np.sin(1.37 * a + 1), 2 * np.sin(0.7 * a)]),
        )
        for s, a in zip(moved, angle, strict=True)
    ]
    return _flight(np.stack(poses)), stands


def straight_on(frames: int) -> Flight:
    """Ahead without turning, as a car drives: what is far ahead stands still."""
    poses = [look(np.array([0.8 + 2.0 * s, 0.0, 1.3]), 0.0, 0.0, 0.0) for s in np.linspace(0.0, 1.0, frames)]
    return _flight(np.stack(poses))


def _flight(poses: NDArray[np.float64]) -> Flight:
    stamps = 1_700_000_000_000_000_000 + np.rint(np.arange(len(poses)) * 1e9 / RATE_HZ).astype(np.int64)
    return Flight(stamps, poses, ("",) * len(poses), RATE_HZ)


def robot_body(size: tuple[int, int], seed: int = 0) -> tuple[Mask, Image]:
    """Where the body covers an image of (width, height), a fifth of it at the lower rim, and what it looks like."""
    rng = np.random.default_rng(seed)
    width, height = size
    top = height * np.array([0.86, 0.78, 0.74, 0.8, 0.83])
    corners = np.concatenate([np.stack([np.linspace(0, width, 5), top], 1), [[width, height], [0, height]]])
    mask = np.zeros((height, width), np.uint8)
    cv2.fillPoly(mask, [np.rint(corners).astype(np.int32)], 1)
    paint = np.zeros((height, width, 3), np.float32)
    for cell, share in ((24, 0.7), (6, 0.3)):
        layer = rng.uniform(20, 235, (height // cell, width // cell, 3)).astype(np.float32)
        paint += share * cv2.resize(layer, (width, height), interpolation=cv2.INTER_CUBIC)
    return mask > 0, np.clip(paint, 0, 255).astype(np.uint8)


def flown(scene: Scene, camera: Camera, flight: Flight, body: tuple[Mask, Image] | None) -> list[Frame]:
    sensor = Sensor()
    frames = []
    for i, pose in enumerate(flight.T_world_from_camera):
        image = render(scene, camera, pose).image
        if body is not None:
            image = np.where(body[0][..., None], body[1], image)
        frames.append(Frame(sensor.expose(image, i), int(flight.stamps_ns[i]), i, camera))
    return frames


def tracked(frames: list[Frame], mask: Mask | None, *, learns: bool) -> list[TrackedFrame]:
    tracker = Tracker(load_matcher("gcm", device="cpu"), TrackerConfig(static_mask=learns))
    return [tracker.process(frame if mask is None else replace(frame, mask=mask)) for frame in frames]


def ate_percent(flight: Flight, answers: list[TrackedFrame]) -> tuple[float, int]:
    """Of the longest segment, over the path in per cent, and how many frames it has."""
    with_pose = [t for t in answers if t.T_world_from_camera is not None]
    segments = [t.segment for t in with_pose]
    longest = max(set(segments), key=segments.count)
    chosen = [t for t in with_pose if t.segment == longest]
    own = np.stack([t.T_world_from_camera[:3, 3] for t in chosen if t.T_world_from_camera is not None])
    true = flight.T_world_from_camera[[t.index for t in chosen], :3, 3]
    found = align(own, true)
    error = np.linalg.norm(found.apply(own) - true, axis=1)
    return 100 * float(np.sqrt((error**2).mean())) / flight.path_length, len(chosen)


def cost(camera: Camera, poses: NDArray[np.float64], thumbnails: list[Image]) -> float:
    """Mean milliseconds a frame of what the learning adds."""
    static = StaticMask()
    start = time.process_time()
    for i, (pose, thumbnail) in enumerate(zip(poses, thumbnails, strict=True)):
        static = static.after(Picture(thumbnail, camera, pose[:3, :3], i * 50_000_000, 0))
        static.pixels(camera.size)
    return 1e3 * (time.process_time() - start) / len(poses)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=240)
    parser.add_argument("--cost", action="store_true")
    arguments = parser.parse_args()
    camera = demo_camera(*SIZE)
    flight, stands = looking_about(arguments.frames)
    body = robot_body(SIZE)
    frames = flown(workshop(), camera, flight, body)
    if arguments.cost:
        from ros2_densematch.matchers.common.stillness import thumbnail

        spent = cost(camera, flight.T_world_from_camera, [thumbnail(frame.image) for frame in frames])
        print(f"{spent:.2f} ms a frame")
        return
    print(f"body over {body[0].mean():.0%} of the image, {flight.path_length:.2f} m, {len(frames)} frames")
    for name, mask, learns in (("no mask", None, False), ("learnt", None, True), ("by hand", ~body[0], False)):
        answers = tracked(frames, mask, learns=learns)
        ate, count = ate_percent(flight, answers)
        lost = sum(t.T_world_from_camera is None for t in answers)
        print(f"{name}: ATE {ate:.3f} % over {count} frames, {lost} lost", flush=True)
        if not learns:
            continue
        covered = [0.0 if t.static_mask is None else float(t.static_mask.mean()) for t in answers]
        first = next((i for i, share in enumerate(covered) if share), None)
        phase = np.flatnonzero(stands)
        changed = len({covered[i] for i in phase[1:]}) - 1
        print(f"  first mask at frame {first}, last share {covered[-1]:.1%}, changes while standing {changed}")
        final = answers[-1].static_mask
        if final is not None:
            full = cv2.resize(final.astype(np.uint8), SIZE, interpolation=cv2.INTER_NEAREST) > 0
            print(f"  covers {full[body[0]].mean():.0%} of the body and {full[~body[0]].mean():.1%} of the rest")
    drive = straight_on(arguments.frames // 3)
    views = flown(workshop(), camera, drive, None)
    for name, learns in (("off", False), ("on", True)):
        answers = tracked(views, None, learns=learns)
        ate, count = ate_percent(drive, answers)
        masks = sum(t.static_mask is not None for t in answers)
        print(
            f"straight on, learning {name}: ATE {ate:.3f} % over {count} frames, {masks} frames with a mask", flush=True
        )


if __name__ == "__main__":
    main()
