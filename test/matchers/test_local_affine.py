"""Local affine maps: right with half of the matches wrong, and able to tell which ones."""

from __future__ import annotations

import numpy as np
import pytest

from ros2_densematch.matchers.common.local_affine import estimate_local_affine
from ros2_densematch.matchers.gcm.growth import predict

LINEAR = np.array([[1.15, -0.2], [0.25, 0.9]])
SHIFT = np.array([31.0, -12.0])


def carry(xy: np.ndarray) -> np.ndarray:
    return xy @ LINEAR.T + SHIFT


def matches(outliers: float, *, count: int = 800, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Matches under one affine map, with noise of 0.3 px and a share of wrong ones."""
    rng = np.random.default_rng(seed)
    x0 = rng.uniform(0, [640, 480], (count, 2))
    x1 = carry(x0) + rng.normal(0, 0.3, x0.shape)
    wrong = rng.random(count) < outliers
    x1[wrong] = rng.uniform(0, [640, 480], (int(wrong.sum()), 2))
    return x0, x1, wrong


def test_the_map_is_recovered_where_all_matches_are_right() -> None:
    x0, x1, _ = matches(0.0)
    local = estimate_local_affine(x0, x1, pull=1.0)
    assert np.median(np.abs(local.linear - LINEAR)) < 0.02
    assert np.median(local.residual) < 0.5
    assert local.support.mean() > 0.98


def test_the_map_is_recovered_with_half_of_the_matches_wrong() -> None:
    x0, x1, wrong = matches(0.5)
    local = estimate_local_affine(x0, x1, pull=1.0)
    right = ~wrong
    assert np.median(np.abs(local.linear[right] - LINEAR)) < 0.05
    assert np.median(np.linalg.norm(local.predicted - carry(x0), axis=1)[right]) < 1.0


def test_the_pull_draws_the_map_towards_the_identity() -> None:
    x0, x1, _ = matches(0.0)
    away = [
        np.median(np.linalg.norm(estimate_local_affine(x0, x1, pull=pull).linear - np.eye(2), axis=(1, 2)))
        for pull in (1.0, 20.0, 1e4)
    ]
    assert away[0] > away[1] > away[2]
    assert away[2] < 0.01


def test_the_residual_tells_wrong_matches() -> None:
    x0, x1, wrong = matches(0.5)
    far = np.linalg.norm(x1 - carry(x0), axis=1) > 12
    local = estimate_local_affine(x0, x1)
    assert (local.residual[~wrong] < 6).mean() > 0.9
    assert (local.residual[wrong & far] > 6).mean() > 0.9


def test_a_match_has_no_vote_on_itself() -> None:
    x0, x1, _ = matches(0.0)
    x1[17] += (40.0, 0.0)
    assert estimate_local_affine(x0, x1).residual[17] == pytest.approx(40, abs=2)


def test_positions_between_the_matches_are_predicted() -> None:
    x0, x1, _ = matches(0.3)
    at = np.random.default_rng(1).uniform([60, 60], [580, 420], (200, 2))
    local = estimate_local_affine(x0, x1, at=at)
    assert np.median(np.linalg.norm(local.predicted - carry(at), axis=1)) < 1.0
    assert (local.residual == 0).all()
    assert local.linear.shape == (200, 2, 2)


def test_predictions_outside_the_query_image_are_marked() -> None:
    x0, x1, _ = matches(0.0)
    at = np.array([[100.0, 100.0], [635.0, 20.0]])
    local, inside = predict(x0, x1, at, (640, 480))
    assert inside.tolist() == [True, False]
    assert local.predicted[1, 0] > 639


@pytest.mark.parametrize("count", [0, 1, 2, 3, 4])
def test_few_matches_are_defined(count: int) -> None:
    x0 = np.random.default_rng(2).uniform(0, 100, (count, 2))
    x1 = x0 + 5.0
    own = estimate_local_affine(x0, x1)
    other = estimate_local_affine(x0, x1, at=np.array([[50.0, 50.0]]))
    assert own.linear.shape == (count, 2, 2)
    assert other.predicted.shape == (1, 2)
    for part in (*own, *other):
        assert np.isfinite(part).all()
    if count:
        np.testing.assert_allclose(other.predicted, [[55, 55]], atol=0.1)
        np.testing.assert_allclose(own.predicted, x1, atol=0.1)


def test_matches_on_one_point_or_line_are_defined() -> None:
    point = np.full((20, 2), 30.0)
    line = np.stack([np.arange(20.0), np.zeros(20)], 1)
    for x0 in (point, line):
        local = estimate_local_affine(x0, x0 + 3.0)
        assert np.isfinite(local.linear).all()
        np.testing.assert_allclose(local.predicted, x0 + 3.0, atol=0.1)
