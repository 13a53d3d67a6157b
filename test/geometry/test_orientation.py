"""EXIF orientation: pictures are turned for matcher and eye, matches always speak of the stored pixels."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageOps

from ros2_densematch.geometry.correspondences import Correspondences, DenseWarp
from ros2_densematch.geometry.orientation import back, turned_matches, turned_picture, turned_size

ORIENTATIONS = range(1, 9)
STORED = np.random.default_rng(0).integers(0, 255, (6, 9, 3), np.uint8)


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_pictures_turn_as_pillow_turns_them(orientation: int) -> None:
    image = Image.fromarray(STORED)
    image.getexif()[274] = orientation
    np.testing.assert_array_equal(turned_picture(STORED, orientation), np.asarray(ImageOps.exif_transpose(image)))
    np.testing.assert_array_equal(turned_picture(turned_picture(STORED, orientation), back(orientation)), STORED)
    np.testing.assert_array_equal(
        turned_picture(STORED[..., 0], orientation), turned_picture(STORED, orientation)[..., 0]
    )


def matches_of(points: np.ndarray, size: tuple[int, int]) -> Correspondences:
    n = len(points)
    linear = np.tile(np.array([[2.0, 0.5], [0.1, 1.5]], np.float32), (n, 1, 1))
    precision = np.tile(np.array([[4.0, 1.0, 9.0]], np.float32), (n, 1))
    grid = np.stack(np.meshgrid(np.arange(size[0]), np.arange(size[1])), -1).astype(np.float32)
    warp = DenseWarp(grid + 1, grid[..., 0] / 100, size, size)
    return Correspondences(
        points, points + 1, np.ones(n, np.float32), 0.7, size, size, precision, warp, linear,
        np.arange(6, dtype=np.float32).reshape(2, 3), np.ones(n, np.float32),
    )  # fmt: skip


@pytest.mark.parametrize("reference", ORIENTATIONS)
@pytest.mark.parametrize("query", [1, 5, 6])
def test_a_turned_point_lies_on_the_same_colour(reference: int, query: int) -> None:
    points = np.array([[0, 0], [8, 0], [3, 4], [7, 2]], np.float32)
    stored = matches_of(points, (9, 6))
    turned = turned_matches(stored, reference, query)
    pictures = turned_picture(STORED, reference), turned_picture(STORED, query)
    assert turned.reference_size == turned_size((9, 6), reference) == pictures[0].shape[1::-1]
    for xy, before, picture in (
        (turned.reference_xy, stored.reference_xy, pictures[0]),
        (turned.query_xy[2:], stored.query_xy[2:], pictures[1]),
    ):
        x, y = xy.astype(int).T
        u, v = before.astype(int).T
        np.testing.assert_array_equal(picture[y, x], STORED[v, u])
    # a small step in the reference leads where the local map says, and the warp agrees with the points
    step = np.array([0.25, -0.5], np.float32)
    one = matches_of(points[2:3], (9, 6))
    moved = Correspondences(
        one.reference_xy + step, one.query_xy + one.linear[0] @ step, one.score, 1.0, (9, 6), (9, 6)
    )
    a, b = turned_matches(one, reference, query), turned_matches(moved, reference, query)
    np.testing.assert_allclose(b.query_xy - a.query_xy, (b.reference_xy - a.reference_xy) @ a.linear[0].T, atol=1e-5)
    d, e = moved.query_xy - one.query_xy, b.query_xy - a.query_xy
    cost = [
        v[0] @ np.array([[p[0], p[1]], [p[1], p[2]]]) @ v[0] for v, p in ((d, one.precision[0]), (e, a.precision[0]))
    ]
    assert cost[0] == pytest.approx(cost[1], rel=1e-5)
    for (x, y), target in zip(turned.reference_xy.astype(int), turned.query_xy, strict=True):
        np.testing.assert_allclose(turned.warp.xy[y, x], target)
    assert (turned.stillness is None) == (reference != query)
    again = turned_matches(turned, back(reference), back(query))
    for name in ("reference_xy", "query_xy", "precision", "linear"):
        np.testing.assert_allclose(getattr(again, name), getattr(stored, name), atol=1e-6)
    np.testing.assert_allclose(again.warp.xy, stored.warp.xy)
