"""A rolling shutter: found from the images while the camera turns, and taken out of poses and points."""

from __future__ import annotations

import copy
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))
from synthetic_world import CAMERA, PointMatcher, World, image_of, look, run

from ros2_densematch.geometry import poses
from ros2_densematch.tracking.frame import Frame
from ros2_densematch.tracking.tracker import TrackedFrame, Tracker, TrackerConfig

FRAMES = 60
READOUT_S = 0.025


def pose_at(frame: float) -> np.ndarray:
    """A camera held in a hand that looks about: up to 90 degrees a second, within 10 cm."""
    phase = 2 * np.pi * frame / 30
    return look(0.08 * np.sin(0.7 * phase), 0.04 * np.sin(phase), 0, 14 * np.sin(phase), 6 * np.sin(1.7 * phase))


class RollingMatcher(PointMatcher):
    """Sees each point from where the camera is when the point's row is exposed; moves and turns within an image."""

    readout_s = 0.0

    def sight(self, number: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        ids, xy, z = self.world.see(self.trajectory[number], CAMERA)
        rows = np.linspace(-60, CAMERA.height + 60, 41)
        times = ((rows + 0.5) / CAMERA.height - 0.5) * self.readout_s
        seen = np.stack(
            [poses.transform_points(poses.inverse(pose_at(number + 30 * t)), self.world.points[ids]) for t in times]
        )
        for _ in range(5):  # between the two poses nearest to the time of the point's row
            at = np.interp(xy[:, 1], rows, np.arange(len(rows)))
            low = np.minimum(at.astype(int), len(rows) - 2)
            share, k = (at - low)[:, None], np.arange(len(ids))
            now = (1 - share) * seen[low, k] + share * seen[low + 1, k]
            xy, z = CAMERA.project(now), now[:, 2]
        inside = (xy > 1).all(1) & (xy[:, 0] < CAMERA.width - 2) & (xy[:, 1] < CAMERA.height - 2)
        return ids[inside], xy[inside], z[inside]


@pytest.fixture(scope="module")
def world() -> World:
    return World(points=3000)


def track(world: World, readout_s: float, **config: float) -> tuple[Tracker, list[TrackedFrame]]:
    """The flight with a depth image for every sixth frame."""
    matcher = RollingMatcher(world, np.stack([pose_at(i) for i in range(FRAMES)]))
    matcher.readout_s = readout_s

    tracker = Tracker(matcher, TrackerConfig(**config))
    return tracker, run(tracker, matcher.trajectory, depth=lambda i: None if i % 6 else depth_image(matcher, i))


@pytest.fixture(scope="module")
def found(world: World) -> tuple[Tracker, list[TrackedFrame]]:
    """A flight of which nothing is known beforehand."""
    return track(world, READOUT_S)


def depth_image(matcher: RollingMatcher, number: int) -> np.ndarray:
    """Knows the depth around each point in view."""
    image = np.zeros((480, 640), np.float32)
    _, xy, z = matcher.sight(number)
    for (x, y), d in zip(np.rint(xy).astype(int), z, strict=True):
        image[max(y - 1, 0) : y + 2, max(x - 1, 0) : x + 2] = d
    return image


def errors(results: list[TrackedFrame]) -> tuple[float, float]:
    """Root mean square of the position error in metres and of the rotation error in degrees, second half."""
    start = poses.inverse(pose_at(0))
    position, turn = [], []
    for result in results[FRAMES // 2 :]:
        assert result.T_world_from_camera is not None
        true = start @ pose_at(result.index)
        position.append(np.linalg.norm(result.T_world_from_camera[:3, 3] - true[:3, 3]))
        turn.append(poses.rotation_angle_deg(result.T_world_from_camera, true))
    return float(np.sqrt(np.mean(np.square(position)))), float(np.sqrt(np.mean(np.square(turn))))


def test_the_readout_is_found_and_its_error_taken_out(world: World, found: tuple[Tracker, list[TrackedFrame]]) -> None:
    tracker, results = found
    assert tracker.readout_s == pytest.approx(READOUT_S, abs=0.005)
    _, ignored = track(world, READOUT_S, estimate_readout=False)
    _, given = track(world, READOUT_S, readout_ms=25.0)
    assert errors(results)[0] < 0.5 * errors(ignored)[0]
    assert errors(results)[1] < 0.5 * errors(ignored)[1]
    assert errors(given)[0] < 0.5 * errors(ignored)[0]
    assert errors(given)[0] < 0.03


def test_rows_from_the_bottom_to_the_top_give_a_negative_time(world: World) -> None:
    tracker, _ = track(world, -0.025)
    assert tracker.readout_s == pytest.approx(-0.025, abs=0.005)
    _, given = track(world, -0.025, readout_ms=-25.0)
    assert errors(given)[0] < 0.03


def test_times_that_leave_no_rate_to_measure_do_no_harm(world: World) -> None:
    """Stamps a nanosecond apart, as of a broken driver, or seconds apart."""
    matcher = RollingMatcher(world, np.stack([pose_at(i) for i in range(12)]))
    for gap_ns in (1, 3_000_000_000):
        tracker = Tracker(matcher, TrackerConfig(readout_ms=25.0))
        for i in range(12):
            depth = depth_image(matcher, i) if i == 0 else None
            result = tracker.process(Frame(image_of(i), 1 + i * gap_ns, i, camera=CAMERA, depth=depth))
            assert result.T_world_from_camera is not None
            assert poses.rotation_angle_deg(result.T_world_from_camera, poses.inverse(pose_at(0)) @ pose_at(i)) < 3


def test_a_global_shutter_stays_one(world: World) -> None:
    tracker, results = track(world, 0.0)
    assert tracker.readout_s == 0.0
    _, told = track(world, 0.0, estimate_readout=False)
    for a, b in zip(results, told, strict=True):
        np.testing.assert_array_equal(a.T_world_from_camera, b.T_world_from_camera)


def test_reset_forgets_the_readout(found: tuple[Tracker, list[TrackedFrame]]) -> None:
    tracker = copy.copy(found[0])
    assert tracker.readout_s != 0.0
    tracker.reset()
    assert tracker.readout_s == 0.0
    tracker.reconfigure(TrackerConfig(readout_ms=20.0))
    assert tracker.readout_s == 0.02
