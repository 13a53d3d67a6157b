"""Sub-pixel refinement: on pictures known between the pixels, it finds the place to a twentieth of a pixel."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from ros2_densematch.matchers.common.patch_alignment import Refined, refine, sample

SHIFTED = np.array([[1, 0, 3.37], [0, 1, -2.21]])
AFFINE = np.array([[1.05, -0.14, 12.3], [0.11, 0.97, 6.8]])
WIDTH, HEIGHT = 240, 200


def positions() -> np.ndarray:
    x, y = np.meshgrid(np.arange(30, 190, 10), np.arange(30, 150, 10))
    return np.stack([x.ravel(), y.ravel()], 1).astype(np.float64)


def carry(affine: np.ndarray, xy: np.ndarray) -> np.ndarray:
    return xy @ affine[:, :2].T + affine[:, 2]


def tensor(array: np.ndarray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(array, np.float32))


def refined(
    image0: np.ndarray, image1: np.ndarray, xy: np.ndarray, start: np.ndarray, linear: Any, **options: Any
) -> Refined:
    maps = np.broadcast_to(np.asarray(linear, np.float64), (len(xy), 2, 2))
    return refine(tensor(image0), tensor(image1), tensor(xy), tensor(start), tensor(maps), **options)


@pytest.mark.parametrize("affine", [SHIFTED, AFFINE], ids=["shifted", "affine"])
@pytest.mark.parametrize("exposure", [(1.0, 0.0), (0.55, 40.0), (1.4, -60.0)])
def test_the_place_is_found_below_the_pixel(waves: Any, affine: np.ndarray, exposure: tuple[float, float]) -> None:
    gain, bias = exposure
    image0, image1 = waves.image(WIDTH, HEIGHT), gain * waves.image(WIDTH, HEIGHT, affine) + bias
    xy = positions()
    truth = carry(affine, xy)
    start = truth + np.random.default_rng(0).uniform(-1, 1, truth.shape)
    found = refined(image0, image1, xy, start, affine[:, :2])
    error = np.linalg.norm(found.query_xy.numpy() - truth, axis=1)
    assert np.median(error) < 0.05
    assert np.quantile(error, 0.9) < 0.1
    assert found.correlation.median() > 0.99


def test_eight_bits_and_noise_leave_a_tenth_of_a_pixel(waves: Any) -> None:
    rng = np.random.default_rng(1)
    image0, image1 = (
        np.clip(np.round(waves.image(WIDTH, HEIGHT, a) + rng.normal(0, 3, (HEIGHT, WIDTH))), 0, 255)
        for a in (None, SHIFTED)
    )
    xy = positions()
    truth = carry(SHIFTED, xy)
    found = refined(image0, image1, xy, truth + rng.uniform(-1, 1, truth.shape), np.eye(2))
    assert np.median(np.linalg.norm(found.query_xy.numpy() - truth, axis=1)) < 0.1


def test_a_flat_patch_keeps_its_start_with_correlation_0() -> None:
    flat = np.full((HEIGHT, WIDTH), 90.0)
    start = positions() + 0.3
    found = refined(flat, flat, positions(), start, np.eye(2))
    np.testing.assert_array_equal(found.query_xy.numpy(), start.astype(np.float32))
    assert (found.correlation == 0).all()
    assert torch.isfinite(found.information).all()


def test_a_patch_that_is_flat_in_one_image_only_has_correlation_0(waves: Any) -> None:
    image, flat = waves.image(WIDTH, HEIGHT), np.full((HEIGHT, WIDTH), 90.0)
    for first, second in ((image, flat), (flat, image)):
        assert (refined(first, second, positions(), positions(), np.eye(2)).correlation == 0).all()


@pytest.mark.parametrize("limit", [0.0, 0.5, 2.5])
def test_no_match_moves_beyond_the_limit(waves: Any, limit: float) -> None:
    start = carry(SHIFTED, positions()) + 4.0
    found = refined(
        waves.image(WIDTH, HEIGHT), waves.image(WIDTH, HEIGHT, SHIFTED), positions(), start, np.eye(2), limit=limit
    )
    assert np.linalg.norm(found.query_xy.numpy() - start, axis=1).max() <= limit + 1e-4


def test_it_never_makes_the_correlation_worse(waves: Any) -> None:
    image0, image1 = waves.image(WIDTH, HEIGHT), waves.image(WIDTH, HEIGHT, SHIFTED)
    start = carry(SHIFTED, positions()) + np.random.default_rng(3).uniform(-5, 5, (len(positions()), 2))
    before = refined(image0, image1, positions(), start, np.eye(2), iterations=0)
    after = refined(image0, image1, positions(), start, np.eye(2))
    np.testing.assert_array_equal(before.query_xy.numpy(), start.astype(np.float32))
    assert (after.correlation >= before.correlation).all()
    assert (after.correlation <= 1 + 1e-5).all()


def test_the_information_is_large_across_an_edge_and_none_along_it() -> None:
    ramp = 1 / (1 + np.exp(-(np.arange(WIDTH) - 100.0)))
    image = np.broadcast_to(200 * ramp, (HEIGHT, WIDTH))
    xx, xy, yy = refined(image, image, np.array([[100.0, 90.0]]), np.array([[100.0, 90.0]]), np.eye(2)).information[0]
    assert xx > 0.01
    assert abs(xy) < 1e-4
    assert abs(yy) < 1e-4


def test_no_matches_give_no_matches(waves: Any) -> None:
    image = waves.image(40, 40)
    found = refined(image, image, np.zeros((0, 2)), np.zeros((0, 2)), np.eye(2))
    assert found.query_xy.shape == (0, 2)
    assert found.information.shape == (0, 3)


def test_sampling_takes_pixel_centres_as_whole_numbers() -> None:
    image = torch.arange(12.0).reshape(3, 4)
    at = torch.tensor([[0.0, 0.0], [3.0, 2.0], [1.5, 1.0], [-5.0, 1.0], [9.0, 9.0]])
    assert sample(image, at).tolist() == pytest.approx([0, 11, 5.5, 4, 11], abs=1e-4)
    two = sample(torch.stack([image, -image]), at)
    assert two.shape == (2, 5)
    torch.testing.assert_close(two[1], -two[0])
