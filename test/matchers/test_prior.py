"""Priors: what they hold, how they are made, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest

from ros2_densematch.geometry.correspondences import Correspondences, DenseWarp
from ros2_densematch.matchers.prior import Prior
from ros2_densematch.matchers.sift.matcher import SiftMatcher

POINTS = np.array([[10.0, 20.0], [300.0, 40.0], [50.0, 200.0], [333.25, 222.75]])
SIZE = (400, 300)


def carried(H: np.ndarray, xy: np.ndarray) -> np.ndarray:
    rows = [H @ (x, y, 1.0) for x, y in xy]
    return np.array([row[:2] / row[2] for row in rows])


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_a_homography_carries_points_and_their_surroundings(sign: float) -> None:
    H = sign * np.array([[0.9, -0.2, 12.0], [0.15, 1.1, -5.0], [2e-4, -1e-4, 1.0]])
    prior = Prior.from_homography(POINTS, H, sigma=2.0)
    np.testing.assert_allclose(prior.query_xy, carried(H, POINTS), atol=1e-9)
    assert prior.linear is not None
    for axis in range(2):
        offset = 1e-3 * np.eye(2)[axis]
        slope = (carried(H, POINTS + offset) - carried(H, POINTS - offset)) / 2e-3
        np.testing.assert_allclose(prior.linear[:, :, axis], slope, atol=1e-6)
    np.testing.assert_array_equal(prior.sigma, 2.0)


def test_points_behind_a_homographys_horizon_are_left_out() -> None:
    H = np.array([[1.0, 0, 0], [0, 1, 0], [-1 / 200, 0, 1]])  # the horizon is x = 200
    prior = Prior.from_homography(np.array([[10.0, 10], [50, 10], [100, 10], [300, 10]]), H)
    assert prior.reference_xy[:, 0].tolist() == [10, 50, 100]


def test_a_warp_carries_points_where_it_is_certain() -> None:
    width, height = SIZE
    x, y = np.meshgrid(np.arange(width, dtype=np.float64), np.arange(height, dtype=np.float64))
    A = np.array([[1.2, 0.1], [-0.2, 0.8]])
    full = np.stack([x, y], -1) @ A.T + (7.0, -3.0)
    certainty = np.ones((height, width), np.float32)
    certainty[:, :30] = 0.0
    for step in (1, 2):
        # a warp of half the size: its entries belong to the middle of 2 x 2 pixels
        coarse = full.reshape(height // step, step, width // step, step, 2).mean((1, 3)).astype(np.float32)
        sure = certainty.reshape(height // step, step, width // step, step).mean((1, 3))
        prior = Prior.from_warp(POINTS, DenseWarp(coarse, sure, SIZE, SIZE))
        np.testing.assert_array_equal(prior.reference_xy, POINTS[1:])
        np.testing.assert_allclose(prior.query_xy, POINTS[1:] @ A.T + (7.0, -3.0), atol=0.03)
        assert prior.linear is not None
        np.testing.assert_allclose(prior.linear, np.broadcast_to(A, (3, 2, 2)), atol=1e-3)


def test_matches_of_the_frame_before_are_carried_on() -> None:
    matcher = SiftMatcher()
    encoding = matcher.encode(np.zeros((300, 400), np.uint8))
    linear = np.tile(np.eye(2, dtype=np.float32), (4, 1, 1))
    query = (POINTS + 3).astype(np.float32)
    score = np.array([0.1, 0.9, 1.0, 0.5], np.float32)
    matches = Correspondences(POINTS.astype(np.float32), query, score, 0.9, SIZE, SIZE, linear=linear)
    prior = Prior.from_previous(matches, encoding, query_xy=query + 5, sigma=4.0)
    np.testing.assert_array_equal(prior.reference_xy.astype(np.float32), matches.reference_xy)
    np.testing.assert_array_equal(prior.query_xy, query + 5)
    np.testing.assert_array_equal(prior.previous_xy, query)
    assert prior.previous is encoding
    some = prior.select(np.array([True, False, False, True]))
    assert some.score is not None
    assert some.score.tolist() == pytest.approx([0.1, 0.5])
    assert some.previous is encoding
    assert len(some) == 2


def test_at_rest_the_reference_is_the_frame_before() -> None:
    encoding = SiftMatcher().encode(np.zeros((300, 400), np.uint8))
    prior = Prior.at_rest(POINTS, encoding)
    np.testing.assert_array_equal(prior.query_xy, POINTS)
    np.testing.assert_array_equal(prior.previous_xy, POINTS)
    assert prior.previous is encoding
    assert prior.score is None


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"query_xy": np.zeros((3, 2))}, "query_xy"),
        ({"query_xy": np.full((4, 2), np.nan)}, "finite"),
        ({"sigma": np.zeros(4)}, "sigma"),
        ({"linear": np.zeros((4, 2))}, "linear"),
        ({"score": np.full(4, 1.5)}, "score"),
        ({"previous_xy": np.zeros((4, 2))}, "previous"),
    ],
)
def test_wrong_contents_are_refused_by_name(change: dict, named: str) -> None:
    good = {"reference_xy": POINTS, "query_xy": POINTS, "sigma": np.ones(4)}
    with pytest.raises(ValueError, match=named):
        Prior(**{**good, **change})


def test_a_matcher_without_use_for_a_prior_matches_as_without_it() -> None:
    matcher = SiftMatcher()
    assert not matcher.uses_prior
    encoding = matcher.encode(np.zeros((300, 400), np.uint8))
    plain = matcher.match(encoding, encoding)
    guided = matcher.match(encoding, encoding, prior=Prior.at_rest(POINTS, encoding))
    np.testing.assert_array_equal(plain.query_xy, guided.query_xy)
    with pytest.raises(ValueError, match="cannot use a prior"):
        matcher.guide_points(encoding)
