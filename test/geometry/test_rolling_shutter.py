"""Cameras that are read out row by row while they turn, checked against a simulation that knows each row's own pose."""

from __future__ import annotations

import numpy as np
import pytest

from ros2_densematch.geometry import poses
from ros2_densematch.geometry.camera import Camera
from ros2_densematch.geometry.rolling_shutter import RollingCamera, shift_px

STILL = Camera(
    640,
    480,
    np.array([[517.3, 0, 318.6], [0, 516.5, 255.3], [0, 0, 1.0]]),
    "plumb_bob",
    np.array([0.26, -0.95, -0.005, 0.003, 1.16]),
)
RATE = np.radians([40.0, -70.0, 25.0])
READOUT_S = 0.026


def points(count: int = 300) -> np.ndarray:
    rng = np.random.default_rng(0)
    z = rng.uniform(1, 6, count)
    return np.stack([rng.uniform(-0.5, 0.5, count) * z, rng.uniform(-0.38, 0.38, count) * z, z], 1)


def seen_by_its_row(point: np.ndarray) -> np.ndarray:
    """The pixel of a point: of all rows, each a still camera with the pose of its own time, the one that shows it."""
    rows = np.arange(-60, 540)
    gap = []
    for row in rows:
        time = ((row + 0.5) / 480 - 0.5) * READOUT_S
        R_middle_from_row = poses.exp_rotation(RATE * time)
        gap.append(STILL.project((R_middle_from_row.T @ point)[None])[0, 1] - row)
    crossing = float(np.interp(0.0, -np.array(gap), rows))  # the gap falls as the row grows
    time = ((crossing + 0.5) / 480 - 0.5) * READOUT_S
    return STILL.project((poses.exp_rotation(RATE * time).T @ point)[None])[0]


def test_a_point_is_seen_in_the_row_that_is_exposed_when_it_passes() -> None:
    camera = RollingCamera.of(STILL, RATE, READOUT_S)
    some = points(25)
    expected = np.stack([seen_by_its_row(p) for p in some])
    np.testing.assert_allclose(camera.project(some), expected, atol=0.02)
    assert np.linalg.norm(camera.project(some) - STILL.project(some), axis=1).max() > 5, "the shutter matters here"


@pytest.mark.parametrize("readout_s", [READOUT_S, -READOUT_S])
def test_normalise_undoes_project(readout_s: float) -> None:
    camera, scene = RollingCamera.of(STILL, RATE, readout_s), points()
    pixels = camera.project(scene)
    np.testing.assert_allclose(camera.normalise(pixels), scene[:, :2] / scene[:, 2:], atol=2e-5)


def test_the_middle_row_and_a_camera_at_rest_see_as_the_still_camera() -> None:
    middle = np.array([[100.0, 239.5], [600.0, 239.5]])
    turning = RollingCamera.of(STILL, RATE, READOUT_S)
    np.testing.assert_allclose(turning.normalise(middle), STILL.normalise(middle), atol=1e-12)
    pixels = STILL.project(points())
    for resting in (RollingCamera.of(STILL, np.zeros(3), READOUT_S), RollingCamera.of(STILL, RATE, 0.0)):
        np.testing.assert_array_equal(resting.normalise(pixels), STILL.normalise(pixels))
    again = turning.at_rest()
    assert type(again) is Camera
    np.testing.assert_array_equal(again.normalise(pixels), STILL.normalise(pixels))


def test_a_resized_image_keeps_its_rays() -> None:
    camera = RollingCamera.of(STILL, RATE, READOUT_S)
    small = camera.resized(320, 240)
    pixels = camera.project(points())
    np.testing.assert_allclose(small.normalise((pixels + 0.5) / 2 - 0.5), camera.normalise(pixels), atol=1e-9)


def test_shift_is_that_of_the_first_row() -> None:
    camera = RollingCamera.of(STILL.undistorted(), [0.5, 0, 0], READOUT_S)
    first_row = np.array([[318.6, -0.5]])
    moved = (camera.normalise(first_row) - STILL.undistorted().normalise(first_row)) * 516.5
    assert abs(moved[0, 1]) == pytest.approx(shift_px(camera, STILL), rel=0.3)
    assert shift_px(camera, camera) == 0
    assert shift_px(STILL, STILL) == 0


def test_infinite_rates_are_refused() -> None:
    with pytest.raises(ValueError, match="angular velocity must be 3 finite numbers"):
        RollingCamera.of(STILL, [np.inf, 0, 0], READOUT_S)
    with pytest.raises(ValueError, match="readout finite seconds"):
        RollingCamera.of(STILL, RATE, float("nan"))
