"""Key points are the most salient local maxima; anchors are the pixel of each cell that can be aligned best."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from ros2_densematch.matchers.gcm.encoding import CELL, cell_anchors, detect

BORDER = 4


def saliency(seed: int = 0, height: int = 70, width: int = 90) -> Tensor:
    return torch.randn(height, width, generator=torch.Generator().manual_seed(seed))


def peaks(places: dict[tuple[int, int], float]) -> Tensor:
    field = torch.full((40, 50), -10.0)
    for (x, y), value in places.items():
        field[y, x] = value
    return field


def test_peaks_come_most_salient_first() -> None:
    found = detect(peaks({(10, 12): 1.0, (30, 20): 3.0, (20, 30): 2.0}), None, count=10, threshold=0.0)
    assert found.tolist() == [[30, 20], [20, 30], [10, 12]]


def test_only_the_best_are_kept() -> None:
    field = saliency()
    everything = detect(field, None, count=10_000, threshold=-10.0)
    assert len(everything) > 50
    assert torch.equal(detect(field, None, count=20, threshold=-10.0), everything[:20])
    values = field[everything[:, 1].long(), everything[:, 0].long()]
    assert (values[:-1] >= values[1:]).all()


def test_every_key_point_is_the_largest_around() -> None:
    field = saliency(1)
    for x, y in detect(field, None, count=10_000, threshold=-10.0, radius=2).long().tolist():
        assert field[y, x] == field[y - 2 : y + 3, x - 2 : x + 3].max()


def test_the_border_and_what_is_below_the_threshold_are_left_out() -> None:
    field = saliency(2)
    found = detect(field, None, count=10_000, threshold=0.5)
    height, width = field.shape
    assert found.min() >= BORDER
    assert found[:, 0].max() < width - BORDER
    assert found[:, 1].max() < height - BORDER
    assert (field[found[:, 1].long(), found[:, 0].long()] > 0.5).all()


def test_masked_pixels_are_left_out() -> None:
    field = saliency(3)
    allowed = torch.ones(field.shape, dtype=torch.bool)
    allowed[:, 45:] = False
    found = detect(field, allowed, count=10_000, threshold=-10.0)
    assert len(found)
    assert found[:, 0].max() < 45
    assert len(detect(field, torch.zeros_like(allowed), count=10_000, threshold=-10.0)) == 0


@pytest.mark.parametrize("shape", [(16, 16), (8, 40), (7, 9)])
def test_small_images_are_defined(shape: tuple[int, int]) -> None:
    found = detect(torch.zeros(shape), None, count=10, threshold=-1.0)
    assert found.shape[1] == 2


def test_a_cell_is_anchored_at_its_corner_point() -> None:
    grey = np.zeros((32, 40), np.float32)
    grey[12:, 20:] = 200  # one corner, in the cell of row 1 and column 2
    anchors = cell_anchors(grey, None)
    assert anchors.shape == (4, 5, 2)
    assert np.abs(anchors[1, 2] - (19.5, 11.5)).max() <= 1.5


def test_every_anchor_lies_in_its_own_cell() -> None:
    grey = np.random.default_rng(0).uniform(0, 255, (75, 101)).astype(np.float32)
    anchors = cell_anchors(grey, None)
    # the last row and column of cells are there in part only: the image is covered up to its rim
    rows, columns = 10, 13
    assert anchors.shape == (rows, columns, 2)
    expected = np.stack(np.meshgrid(np.arange(columns), np.arange(rows)), -1)
    np.testing.assert_array_equal(anchors // CELL, expected)
    assert (anchors <= [100, 74]).all()


def test_masked_cells_have_no_anchor_and_half_masked_ones_keep_to_the_rest() -> None:
    grey = np.random.default_rng(1).uniform(0, 255, (32, 32)).astype(np.float32)
    allowed = np.ones((32, 32), np.bool_)
    allowed[:, :12] = False  # the first column of cells, and half of the second
    anchors = cell_anchors(grey, allowed)
    assert np.isnan(anchors[:, 0]).all()
    assert np.isfinite(anchors[:, 1:]).all()
    assert (anchors[:, 1, 0] >= 12).all()
