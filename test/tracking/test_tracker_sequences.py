"""The tracker on real sequences."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from ros2_densematch.evaluation import trajectory
from ros2_densematch.geometry import poses
from ros2_densematch.geometry.camera import Camera
from ros2_densematch.geometry.two_view import Scale
from ros2_densematch.matchers.registry import load_matcher
from ros2_densematch.tracking.frame import Frame
from ros2_densematch.tracking.tracker import TrackedFrame, Tracker

pytestmark = pytest.mark.slow


def track(
    folder: Path, matcher: str, *, with_depth: bool, stop: int | None = None
) -> tuple[list[TrackedFrame], np.ndarray]:
    """Tracks a sequence in the `frames.csv` layout; also its true T_world_from_camera."""
    info = json.loads((folder / "camera.json").read_text())
    camera = Camera.from_matrix(np.reshape(info["K"], (3, 3)), info["width"], info["height"])
    tracker = Tracker(load_matcher(matcher))
    results, truth = [], []
    with (folder / "frames.csv").open() as file:
        rows = list(csv.DictReader(file))[:stop]
    for index, row in enumerate(rows):
        image = cv2.imread(str(folder / row["image"]), cv2.IMREAD_GRAYSCALE)
        depth = None
        if with_depth and row["depth"]:
            depth = cv2.imread(str(folder / row["depth"]), cv2.IMREAD_UNCHANGED).astype(np.float32)
            depth /= info["depth_scale"]
        results.append(tracker.process(Frame(image, int(row["timestamp_ns"]), index, camera, depth=depth)))
        position, rotation = [[float(row[k]) for k in keys] for keys in (["tx", "ty", "tz"], ["qx", "qy", "qz", "qw"])]
        truth.append(poses.pose_from_quaternion(position, rotation))
    return results, np.stack(truth)


def errors(results: list[TrackedFrame], truth: np.ndarray) -> tuple[float, float, float]:
    """Position error (root mean square) as a share of the path after similarity alignment, the alignment's scale, and
    the median rotation error from frame to frame in degrees."""
    index = np.array([i for i, r in enumerate(results) if r.T_world_from_camera is not None])
    estimated = np.stack([results[i].T_world_from_camera for i in index])
    found = trajectory.align(estimated[:, :3, 3], truth[index][:, :3, 3])
    distance = np.linalg.norm(found.apply(estimated[:, :3, 3]) - truth[index][:, :3, 3], axis=1)
    path = np.linalg.norm(np.diff(truth[:, :3, 3], axis=0), axis=1).sum()
    steps = np.stack([np.arange(len(index) - 1), np.arange(1, len(index))], 1)
    _, rotation = trajectory.relative_errors(estimated, truth[index], steps, found.scale)
    return trajectory.rms(distance) / path, found.scale, float(np.median(rotation))


def test_street_by_one_camera(shared_data: Path) -> None:
    shared_data.need("sequences/kitti_a/frames.csv")
    results, truth = track(shared_data / "sequences/kitti_a", "sift", with_depth=False)
    ate, _, rotation = errors(results, truth)
    assert all(r.T_world_from_camera is not None for r in results)
    assert {r.segment for r in results} == {0}
    assert ate < 0.005
    assert rotation < 0.1


def test_room_by_one_camera(shared_data: Path) -> None:
    shared_data.need("sequences/hololens/frames.csv")
    results, truth = track(shared_data / "sequences/hololens", "sift", with_depth=False, stop=120)
    ate, _, rotation = errors(results, truth)
    assert np.mean([r.T_world_from_camera is not None for r in results]) > 0.95
    assert all(r.reason for r in results)
    assert ate < 0.06
    assert rotation < 0.5


def test_room_with_depth_in_metres(shared_data: Path) -> None:
    shared_data.need("sequences/hololens/depth")
    results, truth = track(shared_data / "sequences/hololens", "gcm", with_depth=True, stop=150)
    ate, scale, rotation = errors(results, truth)
    assert np.mean([r.scale is Scale.METRIC for r in results]) > 0.9
    assert scale == pytest.approx(1.0, abs=0.05)
    assert ate < 0.02
    assert rotation < 0.5
