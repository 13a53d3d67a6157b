"""The demo's flight holds what its description promises, and the sensor does what it says."""

from __future__ import annotations

import numpy as np
import pytest

from ros2_densematch.simulation.flight import DEFAULT_FRAMES, demo_camera, demo_flight, fly, look
from ros2_densematch.simulation.renderer import render
from ros2_densematch.simulation.scene import Scene
from ros2_densematch.simulation.sensor import Sensor
from ros2_densematch.simulation.worlds import workshop


@pytest.fixture(scope="module")
def scene() -> Scene:
    return workshop()


def step_angles(poses: np.ndarray) -> np.ndarray:
    relative = np.linalg.inv(poses[:-1]) @ poses[1:]
    cosine = (np.trace(relative[:, :3, :3], axis1=1, axis2=2) - 1) / 2
    return np.rad2deg(np.arccos(np.clip(cosine, -1, 1)))


def test_the_flight_is_smooth_and_long_enough() -> None:
    flight = demo_flight()
    assert len(flight) == DEFAULT_FRAMES >= 200
    np.testing.assert_array_equal(np.diff(flight.stamps_ns), 50_000_000)
    steps = np.linalg.norm(np.diff(flight.T_world_from_camera[:, :3, 3], axis=0), axis=1)
    assert flight.path_length == pytest.approx(steps.sum())
    assert flight.path_length > 4.0
    assert steps.max() < 0.1
    assert np.abs(np.diff(steps)).max() < 0.015  # metres a frame, from one frame to the next
    assert step_angles(flight.T_world_from_camera).max() < 5.0


def test_there_is_a_stretch_of_pure_rotation() -> None:
    flight = demo_flight()
    turning = np.array([name == "rotation" for name in flight.stretch])
    assert turning.sum() >= 30
    centres = flight.T_world_from_camera[turning, :3, 3]
    np.testing.assert_allclose(centres, np.broadcast_to(centres[0], centres.shape), atol=1e-12)
    assert step_angles(flight.T_world_from_camera[turning]).sum() > 40.0


def test_the_camera_sees_nothing_but_the_blank_wall_for_a_while_and_comes_back_to_a_known_view(
    scene: Scene,
) -> None:
    camera, flight = demo_camera(160, 120), demo_flight()
    blank = [i for i, s in enumerate(scene.surfaces) if s.texture.__name__ == "blank"]
    assert len(blank) == 1
    share = np.array([(render(scene, camera, T).surface == blank[0]).mean() for T in flight.T_world_from_camera[::2]])
    alone = np.flatnonzero(share > 0.999)
    assert 2 * len(alone) >= 8  # frames; every second one was rendered
    assert (np.diff(alone) == 1).all()
    assert share[round(0.8 * len(share)) :].max() < 0.3
    before, after = (flight.T_world_from_camera[round(part * len(flight))] for part in (0.29, 0.81))
    assert np.linalg.norm(before[:3, 3] - after[:3, 3]) < 1.0
    assert before[:3, 2] @ after[:3, 2] > 0.9


def test_far_and_near_things_overlap_in_the_picture(scene: Scene) -> None:
    camera, flight = demo_camera(320, 240), demo_flight()
    frame = render(scene, camera, flight.T_world_from_camera[40])
    assert len(np.unique(frame.surface)) > 20
    assert np.quantile(frame.depth, 0.95) > 2.5 * np.quantile(frame.depth, 0.05)
    jumps = np.abs(np.diff(np.log(frame.depth), axis=1)) > 0.1
    assert jumps.sum() > 800  # occluding outlines, in pixels


def test_look_points_the_optical_axis_and_keeps_the_horizon() -> None:
    pose = look(np.array([1.0, 2, 3]), 0.0, 0.0, 0.0)
    np.testing.assert_allclose(pose[:3, :3] @ [0, 0, 1], [1, 0, 0], atol=1e-15)  # forward is world x
    np.testing.assert_allclose(pose[:3, :3] @ [0, 1, 0], [0, 0, -1], atol=1e-15)  # image y is down
    left = look(np.zeros(3), np.pi / 2, 0.0, 0.0)
    np.testing.assert_allclose(left[:3, 2], [0, 1, 0], atol=1e-15)
    down = look(np.zeros(3), 0.0, 0.3, 0.0)
    assert down[2, 2] == pytest.approx(-np.sin(0.3))


def test_the_sensor_darkens_corners_adds_the_given_noise_and_is_deterministic() -> None:
    grey = np.full((120, 160, 3), 120, np.uint8)
    clean = Sensor(noise=0.0, vignetting=0.2, exposure_drift=0.0).expose(grey, 0)
    assert clean[60, 80, 0] == pytest.approx(120, abs=1)
    assert clean[0, 0, 0] == pytest.approx(96, abs=1)
    sensor = Sensor(noise=3.0, vignetting=0.0, exposure_drift=0.0, seed=4)
    noisy = sensor.expose(grey, 7)
    assert noisy.std() == pytest.approx(3.0, rel=0.05)
    assert noisy.mean() == pytest.approx(120, abs=0.2)
    np.testing.assert_array_equal(noisy, sensor.expose(grey, 7))
    following = sensor.expose(grey, 8).astype(float) - 120
    assert abs(np.corrcoef(following.ravel(), noisy.ravel() - 120.0)[0, 1]) < 0.02
    drifting = Sensor(noise=0.0, vignetting=0.0, exposure_drift=0.1, exposure_period=40)
    assert drifting.expose(grey, 10).mean() == pytest.approx(132, abs=1)
    assert drifting.expose(grey, 30).mean() == pytest.approx(108, abs=1)
    with pytest.raises(ValueError, match="vignetting"):
        Sensor(vignetting=1.0)


def test_a_short_flight_follows_the_same_path(scene: Scene) -> None:
    short, full = demo_flight(12), demo_flight(240)
    np.testing.assert_allclose(short.T_world_from_camera[[0, -1]], full.T_world_from_camera[[0, -1]])
    frames = list(fly(scene, demo_camera(64, 48), short, Sensor()))
    assert len(frames) == 12
    assert frames[0].image.shape == (48, 64, 3)
    with pytest.raises(ValueError, match="at least 2"):
        demo_flight(1)
