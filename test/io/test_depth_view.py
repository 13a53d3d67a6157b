"""Depth of another camera is brought into the images, with the nearest surface in front."""

from __future__ import annotations

import numpy as np
import pytest

from ros2_densematch.geometry import poses
from ros2_densematch.geometry.camera import Camera
from ros2_densematch.io.sources.depth_view import DepthView, difference

COLOUR = Camera.from_matrix(np.array([[300.0, 0, 159.5], [0, 300, 119.5], [0, 0, 1]]), 320, 240)
DEPTH = Camera.from_matrix(np.array([[220.0, 0, 159.5], [0, 220, 119.5], [0, 0, 1]]), 320, 240)
BESIDE = poses.make_pose(np.eye(3), [-0.05, 0, 0])  # the depth camera sits 5 cm left of the images' camera


def plane(camera: Camera, T_image_from_camera: np.ndarray, normal: np.ndarray, offset: float) -> np.ndarray:
    """Depth (H, W) of the plane normal . X = offset (in the images' frame) as a camera beside sees it."""
    v, u = np.mgrid[: camera.height, : camera.width]
    rays = np.dstack([(u - camera.K[0, 2]) / camera.K[0, 0], (v - camera.K[1, 2]) / camera.K[1, 1], np.ones(u.shape)])
    turned = rays @ T_image_from_camera[:3, :3].T
    return (offset - normal @ T_image_from_camera[:3, 3]) / (turned @ normal)


@pytest.mark.parametrize(
    "T", [np.eye(4), BESIDE, poses.make_pose(poses.exp_rotation([0.01, 0.03, 0.02]), [-0.05, 0.02, 0.01])]
)
def test_a_slanted_plane_comes_out_as_the_images_see_it(T: np.ndarray) -> None:
    normal = np.array([0.3, -0.2, 1.0]) / np.linalg.norm([0.3, -0.2, 1.0])
    seen = plane(DEPTH, T, normal, 2.0).astype(np.float32)
    got = DepthView(DEPTH, T).registered(seen, COLOUR)
    true = plane(COLOUR, np.eye(4), normal, 2.0)
    inner = np.s_[20:-20, 20:-20]
    assert np.isfinite(got[inner]).mean() > 0.99
    error = np.abs(got[inner] / true[inner] - 1)
    assert np.nanmedian(error) < 0.002
    assert np.nanmax(error) < 0.01


def test_what_is_nearer_hides_what_is_behind() -> None:
    depth = np.full((240, 320), 4.0, np.float32)
    depth[80:160, 120:200] = 1.0
    got = DepthView(DEPTH, BESIDE).registered(depth, COLOUR)
    # The board, 109 px wide in the images, is shifted by 300 * 0.05 / 1 px and not mixed with the wall.
    assert np.nanmin(got[70:170, 100:200]) == pytest.approx(1.0)
    assert set(np.unique(got[np.isfinite(got)]).round(3)) == {1.0, 4.0}
    board = np.flatnonzero(got[120] == 1.0)
    assert board[0] == pytest.approx(159.5 + 300 * (120 - 159.5) / 220 - 15, abs=2)


def test_unknown_depth_stays_unknown() -> None:
    depth = np.full((240, 320), np.nan, np.float32)
    assert np.isnan(DepthView(DEPTH, BESIDE).registered(depth, COLOUR)).all()


def test_what_counts_as_another_camera() -> None:
    assert difference(COLOUR, COLOUR, np.eye(4)) == ""
    assert difference(COLOUR.resized(160, 120), COLOUR, None) == "", "registered depth of half the size"
    near = Camera.from_matrix(COLOUR.K * np.array([[1.005], [1.005], [1]]), 320, 240)
    assert difference(near, COLOUR, None) == "", "drivers round"
    assert "fx 220.0" in difference(DEPTH, COLOUR, None)
    assert difference(COLOUR, COLOUR, poses.make_pose(np.eye(3), [0.004, 0, 0])) == ""
    assert "50.0 mm" in difference(COLOUR, COLOUR, BESIDE)
