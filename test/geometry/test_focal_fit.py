"""A focal length that is wrong shows in the epipolar residuals where the camera turns and moves, and only there."""

from __future__ import annotations

import numpy as np
import pytest

from ros2_densematch.geometry import poses
from ros2_densematch.geometry.camera import Camera
from ros2_densematch.geometry.correspondences import Correspondences
from ros2_densematch.geometry.focal_fit import FocalFit
from ros2_densematch.geometry.two_view import estimate_relative_pose

SIZE = 640, 480
FOCAL = 500.0
LENSES = {"none": [], "plumb_bob": [-0.2, 0.05, 0.001, 0.0, 0.0], "equidistant": [0.02, -0.01, 0.0, 0.0]}


def camera(factor: float, lens: str = "none") -> Camera:
    K = np.array([[FOCAL * factor, 0, 319.5], [0, FOCAL * factor, 239.5], [0, 0, 1]])
    return Camera(*SIZE, K, lens, np.array(LENSES[lens]))  # type: ignore[arg-type]  # checked by Camera


def fit(
    factor: float, *, lens: str = "none", turn_deg: float = 8.0, step: float = 0.3, noise: float = 0.5, seed: int = 0
) -> FocalFit:
    """Four keyframes with two frames each: 300 matches of points 2 to 8 m away, seen by a camera of the true lens."""
    rng, true, given, found = np.random.default_rng(seed), camera(1.0, lens), camera(factor, lens), FocalFit()
    for reference in range(0, 40, 10):
        for frame in (reference + 1, reference + 2):
            xy = rng.uniform((0, 0), SIZE, (900, 2))
            rays = np.column_stack([true.normalise(xy), np.ones(len(xy))])
            axis, direction = rng.normal(size=3), rng.normal(size=3)
            R = poses.exp_rotation(np.deg2rad(turn_deg) * axis / np.linalg.norm(axis))
            points = rays * rng.uniform(2, 8, (len(xy), 1)) @ R.T + step * direction / np.linalg.norm(direction)
            other = true.project(points) + rng.normal(0, noise, xy.shape)
            seen = np.flatnonzero(((other > 0) & (other < SIZE)).all(1))[:300]
            ones = np.ones(len(seen), np.float32)
            m = Correspondences(xy[seen].astype(np.float32), other[seen].astype(np.float32), ones, 1.0, SIZE, SIZE)
            pose = estimate_relative_pose(m, given, given)
            found.add(m, pose.inliers, given, pose, frame=frame, reference=reference)
    return found


@pytest.mark.parametrize(
    ("factor", "lens"), [(0.95, "none"), (1.0, "none"), (1.05, "plumb_bob"), (0.95, "equidistant")]
)
def test_the_right_focal_length_is_found_and_a_wrong_one_is_said(factor: float, lens: str) -> None:
    found = fit(factor, lens=lens)
    finding = found.finding()
    assert finding is not None
    assert finding.factor * factor == pytest.approx(1.0, abs=0.02)  # the inliers of a wrong one favour it a little
    assert bool(found.doubt()) == (factor != 1.0)
    if factor != 1.0:
        assert f"instead of {FOCAL * factor:.1f} px" in found.doubt()


@pytest.mark.parametrize("noise", [0.2, 1.0])
def test_noise_alone_makes_no_focal_length_longer(noise: float) -> None:
    finding = fit(1.0, noise=noise, turn_deg=4.0, step=0.15).finding()
    assert finding is not None
    assert finding.factor == pytest.approx(1.0, abs=0.02)


@pytest.mark.parametrize(("turn_deg", "step"), [(0.0, 0.3), (8.0, 0.0)])
def test_a_camera_that_only_moves_or_only_turns_shows_nothing(turn_deg: float, step: float) -> None:
    assert not fit(1.05, turn_deg=turn_deg, step=step).shown


def test_another_calibration_begins_anew() -> None:
    found = fit(1.05)
    xy = np.zeros((0, 2), np.float32)
    empty = Correspondences(xy, xy, np.zeros(0, np.float32), 0.0, SIZE, SIZE)
    pose = estimate_relative_pose(empty, camera(1.0), camera(1.0))
    found.add(empty, pose.inliers, camera(1.0), pose, frame=99, reference=42)
    assert found.finding() is None
