"""Something moves by itself before the camera: the background gives the pose, or the status leaves it open."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from ros2_densematch.geometry import poses, two_motions
from ros2_densematch.geometry.correspondences import Correspondences
from ros2_densematch.geometry.two_view import Geometry, estimate_relative_pose

SIZE = (640, 480)


def board(low: tuple[float, float], high: tuple[float, float], n: int, g: np.random.Generator) -> Correspondences:
    """A thing that moves by itself: its matches go to the right, turn and grow a little."""
    xy = g.uniform(low, high, (n, 2))
    middle = (np.array(low) + high) / 2
    c, s = 1.05 * np.cos(0.1), 1.05 * np.sin(0.1)
    there = (xy - middle) @ np.array([[c, s], [-s, c]]) + middle + [25.0, 3.0]
    there += g.normal(0, 0.1, there.shape)
    precision = np.tile(np.float32([10, 0, 10]), (n, 1))
    return Correspondences(
        xy.astype(np.float32), there.astype(np.float32), np.ones(n, np.float32), 1.0, SIZE, SIZE, precision
    )


def both(a: Correspondences, b: Correspondences) -> Correspondences:
    assert a.precision is not None
    assert b.precision is not None
    return Correspondences(
        np.concatenate([a.reference_xy, b.reference_xy]),
        np.concatenate([a.query_xy, b.query_xy]),
        np.ones(len(a) + len(b), np.float32),
        1.0,
        SIZE,
        SIZE,
        np.concatenate([a.precision, b.precision]),
    )


def outside(m: Correspondences, low: tuple[float, float], high: tuple[float, float]) -> Correspondences:
    inside = ((m.reference_xy > low) & (m.reference_xy < high)).all(1)
    return m.select(~inside)


@pytest.mark.parametrize("seed", range(3))
def test_the_background_gives_the_pose(make_pair: Callable, seed: int) -> None:
    """Twice as many matches lie on the thing in the middle; the scene around it has parallax."""
    g = np.random.default_rng(seed)
    low, high = (180.0, 120.0), (460.0, 360.0)
    pair = make_pair("general", n=400, seed=seed, with_precision=True)
    scene = outside(pair.matches, low, high)
    m = both(scene, board(low, high, 2 * len(scene), g))
    pose = estimate_relative_pose(m, pair.camera, pair.camera)
    assert poses.rotation_angle_deg(pair.T, pose.T_query_from_reference) < 0.5
    assert "another motion, of an object in front" in pose.status
    assert pose.inliers[: len(scene)].mean() > 0.9
    assert pose.inliers[len(scene) :].mean() < 0.3


def test_a_standing_camera_with_a_thing_before_it_stands(make_pair: Callable) -> None:
    g = np.random.default_rng(5)
    low, high = (250.0, 150.0), (640.0, 480.0)
    pair = make_pair("identical", n=600)
    known = np.tile(np.float32([10, 0, 10]), (600, 1))
    scene = outside(replace(pair.matches, precision=known), low, high)
    m = both(scene, board(low, high, 2 * len(scene), g))
    still = np.full((9, 12), 0.9, np.float32)
    still[3:, 5:] = 0.05
    pose = estimate_relative_pose(replace(m, stillness=still), pair.camera, pair.camera)
    assert poses.rotation_angle_deg(pose.T_query_from_reference) < 0.05
    assert pose.geometry is Geometry.PANORAMIC
    assert "another motion, of an object in front" in pose.status


def test_a_plane_over_a_part_of_the_image_may_be_a_thing(make_pair: Callable) -> None:
    pair = make_pair("general", n=20)
    m = board((100, 100), (300, 300), 300, np.random.default_rng(6))
    pose = estimate_relative_pose(m, pair.camera, pair.camera)
    assert pose.geometry is Geometry.PLANAR
    assert "may be an independently moving object" in pose.status
    whole = board((0, 0), (640, 480), 300, np.random.default_rng(6))
    assert "independently moving" not in estimate_relative_pose(whole, pair.camera, pair.camera).status


def test_a_distant_plane_over_a_part_of_the_image_may_be_a_thing(make_pair: Callable) -> None:
    """It shows next to no parallax, so that it may as well be a turn of the camera."""
    pair = make_pair("general", n=20)
    thing = estimate_relative_pose(
        board((100, 100), (300, 300), 300, np.random.default_rng(6)), pair.camera, pair.camera
    )
    part = board((100, 100), (300, 300), 300, np.random.default_rng(6))
    for geometry, suspected in (
        (Geometry.PLANAR, True),
        (Geometry.PLANAR_OR_PANORAMIC, True),
        (Geometry.CALIBRATED, False),
    ):
        word = two_motions.doubt(replace(thing, geometry=geometry), part.reference_xy, SIZE)
        assert ("independently moving object" in word) is suspected
    whole = board((0, 0), (640, 480), 300, np.random.default_rng(6))
    everywhere = replace(thing, geometry=Geometry.PLANAR_OR_PANORAMIC, inliers=np.ones(300, np.bool_))
    assert two_motions.doubt(everywhere, whole.reference_xy, SIZE) == ""


def test_one_motion_has_no_rival(make_pair: Callable) -> None:
    g = np.random.default_rng(7)
    pair = make_pair("general", n=300, with_precision=True)
    wrong = replace(pair.matches.select(np.arange(150)), query_xy=g.uniform([0, 0], SIZE, (150, 2)).astype(np.float32))
    pose = estimate_relative_pose(both(pair.matches, wrong), pair.camera, pair.camera)
    assert poses.rotation_angle_deg(pair.T, pose.T_query_from_reference) < 0.5
    assert "another" not in pose.status
