"""A static overlay: two different pictures, or two views of one scene, with the same thing in front of both."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from ros2_densematch.geometry import poses
from ros2_densematch.geometry.correspondences import Correspondences
from ros2_densematch.geometry.two_view import Geometry, estimate_relative_pose
from ros2_densematch.matchers.common.stillness import stillness, thumbnail, unchanged

SIZE = (640, 480)
ROWS, COLUMNS = 9, 12


def static_points(region: str, n: int, g: np.random.Generator) -> np.ndarray:
    low, high = {"top": ([0, 0], [640, 60]), "bottom": ([0, 340], [640, 480]), "everywhere": ([0, 0], [640, 480])}[
        region
    ]
    return g.uniform(low, high, (n, 2)).astype(np.float32)


def with_static(m: Correspondences, xy: np.ndarray, still: np.ndarray, g: np.random.Generator) -> Correspondences:
    n = len(xy)
    precision = None if m.precision is None else np.tile(np.float32([10, 0, 10]), (n + len(m), 1))
    return Correspondences(
        np.concatenate([m.reference_xy, xy]),
        np.concatenate([m.query_xy, xy + g.normal(0, 0.05, (n, 2)).astype(np.float32)]),
        np.ones(n + len(m), np.float32),
        1.0,
        SIZE,
        SIZE,
        precision,
        stillness=still.astype(np.float32),
    )


@pytest.mark.parametrize("region", ["top", "bottom"])
def test_the_scene_behind_an_overlay_gives_the_pose(make_pair: Callable, region: str) -> None:
    g = np.random.default_rng(0)
    pair = make_pair("general", n=300)
    still = np.full((ROWS, COLUMNS), 0.1)
    if region == "bottom":  # a robot body hides the scene: these tiles do not change at all
        still[6:] = 0.95
        keep = pair.matches.reference_xy[:, 1] < 330
        pair = replace(pair, matches=pair.matches.select(keep))
    m = with_static(pair.matches, static_points(region, 900, g), still, g)
    pose = estimate_relative_pose(m, pair.camera, pair.camera)
    assert pose.geometry is Geometry.CALIBRATED
    assert poses.rotation_angle_deg(pair.T, pose.T_query_from_reference) < 0.5
    assert "static overlay, left out" in pose.status
    assert not pose.inliers[len(pair.matches) :].any()
    without = estimate_relative_pose(replace(m, stillness=None), pair.camera, pair.camera)
    # a body takes the pose over; a line of text at the rim is surrounded by a scene with parallax, which is preferred
    taken_over = poses.rotation_angle_deg(pair.T, without.T_query_from_reference) > 1.0
    assert taken_over is (region == "bottom")


@pytest.mark.parametrize(("region", "geometry"), [("top", Geometry.WATERMARK), ("everywhere", Geometry.DEGENERATE)])
def test_two_different_pictures_with_one_overlay_have_no_pose(
    make_pair: Callable, region: str, geometry: Geometry
) -> None:
    g = np.random.default_rng(1)
    camera = make_pair("general").camera
    a, b = (g.uniform([0, 0], SIZE, (40, 2)).astype(np.float32) for _ in range(2))
    wrong = Correspondences(a, b, np.ones(40, np.float32), 0.2, SIZE, SIZE)
    m = with_static(wrong, static_points(region, 600, g), np.full((ROWS, COLUMNS), 0.1), g)
    pose = estimate_relative_pose(m, camera, camera)
    assert pose.geometry is geometry, pose.status
    assert not pose.ok
    assert "static overlay" in pose.status
    np.testing.assert_array_equal(pose.T_query_from_reference, np.eye(4))


def test_a_standing_camera_stays_standing(make_pair: Callable) -> None:
    g = np.random.default_rng(2)
    pair = make_pair("identical", n=300)
    m = with_static(pair.matches, static_points("everywhere", 300, g), np.full((ROWS, COLUMNS), 0.9), g)
    pose = estimate_relative_pose(m, pair.camera, pair.camera)
    assert pose.geometry is Geometry.PANORAMIC
    assert poses.rotation_angle_deg(pose.T_query_from_reference) < 0.01


def test_a_far_horizon_on_a_straight_drive_is_no_overlay(make_pair: Callable) -> None:
    """The picture changes near by; what is far stands still, and agrees with the motion."""
    g = np.random.default_rng(3)
    camera = make_pair("general").camera
    near = np.column_stack([g.uniform(-4, 4, 400), g.uniform(0.5, 1.5, 400), g.uniform(4, 12, 400)])
    moved = near - np.array([0.0, 0.0, 1.0])
    m = Correspondences(
        camera.project(near).astype(np.float32),
        camera.project(moved).astype(np.float32),
        np.ones(400, np.float32),
        0.8,
        SIZE,
        SIZE,
    )
    inside = ((m.query_xy > 0) & (m.query_xy < SIZE)).all(1) & ((m.reference_xy > 0) & (m.reference_xy < SIZE)).all(1)
    far = np.column_stack([g.uniform(0, 640, 200), g.uniform(215, 245, 200)]).astype(np.float32)
    still = np.full((ROWS, COLUMNS), 0.1)
    still[4] = 0.8
    both = with_static(m.select(inside), far, still, g)
    pose = estimate_relative_pose(both, camera, camera)
    assert pose.ok
    assert poses.direction_angle_deg(pose.T_query_from_reference[:3, 3], [0, 0, -1]) < 2.0
    assert pose.inliers[int(inside.sum()) :].mean() > 0.9


def test_stillness_tells_what_has_changed() -> None:
    g = np.random.default_rng(4)
    a, b = (g.integers(0, 255, (480, 640, 3), dtype=np.uint8) for _ in range(2))
    # noise at the scale of the tiles: the thumbnail averages what is finer
    coarse = [np.kron(image[::10, ::10], np.ones((10, 10, 1), np.uint8)) for image in (a, b)]
    coarse[1][240:] = coarse[0][240:]
    small = [thumbnail(image) for image in coarse]
    assert small[0].shape == (192, 256)
    still = stillness(*small)
    assert still is not None
    assert still.shape == (ROWS, COLUMNS)
    assert np.nanmax(still[:3]) < 0.5
    assert np.nanmin(still[6:]) > 0.9
    flat = np.full((192, 256), 120, np.uint8)
    assert np.isnan(stillness(flat, flat)).all()
    assert stillness(small[0], small[1][:100]) is None
    ends = np.float32([[100, 100], [100, 400]])
    m = Correspondences(ends, ends, np.ones(2, np.float32), 1.0, SIZE, SIZE)
    changed, same = unchanged(*small, m)
    assert changed < 0.5 < 0.95 < same
