"""The sequences on which trackers are compared: sample bags, sequences with truth, rendered flights with accidents.

`prepare` writes each as one file of arrays, so that two checkouts whose readers differ track the same frames.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ros2_densematch.geometry.camera import Camera
from ros2_densematch.io.sources.opening import open_source
from ros2_densematch.io.sources.options import SourceOptions
from ros2_densematch.simulation.flight import Flight, demo_camera, demo_flight, fly
from ros2_densematch.simulation.sensor import Sensor
from ros2_densematch.simulation.worlds import workshop

Arrays = dict[str, Any]
_RECORDED = {
    "bag_kitti": ("rosbag/kitti_a_sqlite3", False),
    "bag_tum": ("rosbag/tum_fr1_rpy_mcap", False),
    "bag_t265": ("rosbag/real_t265_ros1", False),
    "kitti_a": ("sequences/kitti_a", False),
    "hololens": ("sequences/hololens", False),
    "hololens_depth": ("sequences/hololens", True),
    "tum": ("sequences/tum_fr1_rpy", False),
    "tum_depth": ("sequences/tum_fr1_rpy", True),
}
_SIZE, _FLIGHT_FRAMES, _GREY = (320, 240), 160, 110


def recorded(name: str, data: Path, start: int, count: int) -> Arrays:
    """At most `count` frames of a recording, from number `start` on."""
    folder, with_depth = _RECORDED[name]
    source = open_source(data / folder, SourceOptions())
    images, stamps, depths, camera = [], [], [], None
    for number, frame in enumerate(source):
        if number < start:
            continue
        images.append(frame.image)
        stamps.append(frame.stamp_ns)
        empty = np.zeros((0, 0), np.float32)
        depths.append(frame.depth if with_depth and frame.depth is not None else empty)
        camera = frame.camera if frame.camera is not None else camera
        if len(images) == count:
            break
    truth = np.full((len(stamps), 4, 4), np.nan)
    if source.ground_truth is not None:
        known, inside = source.ground_truth.interpolated(np.array(stamps))
        truth[inside] = known.T_world_from_camera
    return _arrays(images, np.array(stamps), camera, truth, depths)


def flight(start: int, count: int) -> Arrays:
    """The demo's flight."""
    every = demo_flight(_FLIGHT_FRAMES)
    chosen = np.arange(_FLIGHT_FRAMES)[start : start + count]
    return _flown(every, chosen, np.zeros(len(chosen), np.bool_))


def cuts(start: int, count: int) -> Arrays:
    """A flight with missing stretches, blank images in between, and a return."""
    order = np.r_[0:30, 36:60, 60:66, 90:96, 20:30, 130:160]
    blank = np.zeros(len(order), np.bool_)
    blank[[12, *range(40, 46), *range(70, 82)]] = True
    return _flown(demo_flight(_FLIGHT_FRAMES), order[start : start + count], blank[start : start + count])


def kidnapping(start: int, count: int) -> Arrays:
    """The camera is carried off, sees another place for long enough that a new segment begins, and is carried back."""
    order = np.r_[0:20, 84:90, 90:100, 66:74, 22:40]
    blank = np.zeros(len(order), np.bool_)
    blank[20:23] = True
    return _flown(demo_flight(_FLIGHT_FRAMES), order[start : start + count], blank[start : start + count])


RENDERED: dict[str, Callable[[int, int], Arrays]] = {"flight": flight, "cuts": cuts, "kidnapping": kidnapping}
NAMES = (*_RECORDED, *RENDERED)


def prepare(name: str, data: Path, out: Path, start: int = 0, count: int = 60) -> Path:
    """Writes the frames of a sequence into a file of `out` and gives its path."""
    arrays = RENDERED[name](start, count) if name in RENDERED else recorded(name, data, start, count)
    file = out / f"{name}.npz"
    np.savez(file, **arrays)
    return file


def _flown(every: Flight, order: NDArray[np.intp], blank: NDArray[np.bool_]) -> Arrays:
    poses = every.T_world_from_camera[order]
    stamps = every.stamps_ns[0] + 50_000_000 * np.arange(len(order))
    path = Flight(stamps, poses, tuple(every.stretch[i] for i in order), every.rate_hz)
    camera, rng = demo_camera(*_SIZE), np.random.default_rng(0)
    images = []
    for rendering, hidden in zip(fly(workshop(), camera, path, Sensor()), blank, strict=True):
        noise = rng.normal(_GREY, 2, rendering.image.shape).astype(np.uint8)
        images.append(noise if hidden else rendering.image)
    truth = np.where(blank[:, None, None], np.nan, poses)
    return _arrays(images, stamps, camera, truth, [np.zeros((0, 0), np.float32)] * len(images))


def _arrays(
    images: list[NDArray[np.uint8]],
    stamps: NDArray[np.int64],
    camera: Camera | None,
    truth: NDArray[np.float64],
    depths: list[NDArray[np.float32]],
) -> Arrays:
    arrays: Arrays = {"images": np.stack(images), "stamps": stamps, "truth": truth}
    arrays.update({f"depth_{i}": depth for i, depth in enumerate(depths) if depth.size})
    if camera is not None:
        arrays.update(K=camera.K, D=camera.D, model=camera.distortion_model)
    return arrays
