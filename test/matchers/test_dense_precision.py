"""Precision of each match from the dense warp, and matching of given key points."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ros2_densematch.matchers.common.dense.keypoints import match_keypoints
from ros2_densematch.matchers.common.dense.precision import carried_precision, warp_precision
from ros2_densematch.matchers.common.dense.result import DenseResult, to_normalised, to_pixels
from ros2_densematch.nn.grid import cell_centres

HEIGHT, WIDTH = 40, 60
LINEAR = np.array([[3.0, 0.5], [-0.4, 2.0]])
MIDDLE = np.array([20 * WIDTH + 30], np.intp)


def affine_warp() -> np.ndarray:
    cells = np.stack(np.meshgrid(np.arange(WIDTH), np.arange(HEIGHT)), -1)
    return (cells @ LINEAR.T).astype(np.float32)


def test_a_smooth_warp_is_as_precise_as_half_a_cell_and_knows_its_affine_map():
    everywhere = np.arange(HEIGHT * WIDTH)
    precision, linear = warp_precision(affine_warp(), np.ones((HEIGHT, WIDTH), np.float32), everywhere, (240, 80))
    # a cell is 4 x 2 pixels
    assert np.allclose(precision, np.diag([1 / 2.0**2, 1 / 1.0**2]), rtol=1e-3, atol=1e-6)
    assert np.allclose(linear, LINEAR, atol=1e-4)


def test_noise_across_one_axis_lowers_the_precision_of_that_axis_only():
    warp = affine_warp()
    warp[..., 0] += np.random.default_rng(0).normal(0, 10, (HEIGHT, WIDTH))
    precision, _ = warp_precision(warp, np.ones((HEIGHT, WIDTH), np.float32), MIDDLE, (WIDTH, HEIGHT))
    assert 1 / precision[0, 0, 0] ** 0.5 == pytest.approx(10, rel=0.4)
    assert 1 / precision[0, 1, 1] ** 0.5 == pytest.approx(0.5, rel=0.3)


def test_less_certainty_means_less_precision():
    certainty = np.full((HEIGHT, WIDTH), 0.25, np.float32)
    low, _ = warp_precision(affine_warp(), certainty, MIDDLE, (WIDTH, HEIGHT))
    high, _ = warp_precision(affine_warp(), np.ones_like(certainty), MIDDLE, (WIDTH, HEIGHT))
    assert np.allclose(low, 0.25 * high)


def test_the_precision_of_a_backward_match_is_carried_over_by_the_affine_map():
    covariance = np.array([[4.0, 1.0], [1.0, 2.0]])
    carried = carried_precision(np.linalg.inv(covariance)[None], LINEAR[None])[0]
    back = np.linalg.inv(LINEAR)
    assert np.allclose(np.linalg.inv(carried), back @ covariance @ back.T, rtol=2e-3)


def test_a_collapsed_warp_still_has_a_positive_definite_precision():
    carried = carried_precision(np.eye(2)[None], np.array([[[1.0, 0.0], [1.0, 0.0]], [[0.0, 0.0], [0.0, 0.0]]]))
    xx, xy, yy = (carried.astype(np.float32)[:, i, j] for i, j in ((0, 0), (0, 1), (1, 1)))
    assert (xx * yy - xy * xy > 0).all()


def test_normalised_positions_have_the_edges_at_one():
    assert to_pixels(np.array([-1.0, 1.0], np.float32), (100, 50)).tolist() == [-0.5, 49.5]
    xy = np.random.default_rng(0).uniform(0, 50, (10, 2))
    assert np.allclose(to_pixels(to_normalised(xy, (640, 480)), (640, 480)), xy, atol=1e-3)


@pytest.fixture
def shifted() -> DenseResult:
    """Every reference pixel lies 8 pixels to the right in the query; both images are 80 x 60."""
    flow = cell_centres(60, 80).permute(1, 2, 0).clone()
    flow[..., 0] += 2 * 8 / 80
    certainty = torch.ones(60, 80)
    certainty[:, 40:] = 0
    return DenseResult(flow, certainty)


def test_key_points_that_the_warp_connects_match(shifted: DenseResult):
    reference = np.array([[10.0, 20.0], [30.0, 5.0], [60.0, 30.0], [20.0, 50.0]])
    # the first two in another order, the third where nothing is certain, the fourth too far off
    query = np.array([[38.0, 5.1], [18.0, 20.0], [68.0, 30.0], [28.0, 55.0]])
    found = match_keypoints(shifted, (80, 60), (80, 60), reference, query)
    assert found.index.tolist() == [[0, 1], [1, 0]]
    assert np.allclose(found.certainty, 1)
    wide = match_keypoints(shifted, (80, 60), (80, 60), reference, query, max_distance=0.5)
    assert [3, 3] in wide.index.tolist()


def test_only_mutual_neighbours_match(shifted: DenseResult):
    reference = np.array([[10.0, 20.0], [10.1, 20.0]])
    found = match_keypoints(shifted, (80, 60), (80, 60), reference, np.array([[18.0, 20.0]]))
    assert found.index.tolist() == [[0, 0]]


def test_no_key_points_no_matches_and_wrong_shapes_are_refused(shifted: DenseResult):
    none = np.zeros((0, 2))
    assert match_keypoints(shifted, (80, 60), (80, 60), none, np.ones((3, 2))).index.shape == (0, 2)
    with pytest.raises(ValueError, match=r"reference_xy must be \(N, 2\)"):
        match_keypoints(shifted, (80, 60), (80, 60), np.ones((3, 3)), none)
