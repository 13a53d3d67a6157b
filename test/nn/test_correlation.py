"""Correlations of all cells: order of the indices, normalisation, pooling."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from ros2_densematch.nn import correlation as module
from ros2_densematch.nn.correlation import (
    correlation_3d,
    correlation_4d,
    l2_normalise,
    mutual_matching,
    pooled_correlation,
)


@pytest.fixture
def maps() -> tuple[Tensor, Tensor]:
    drawn = torch.Generator().manual_seed(1)
    a, b = torch.rand(2, 8, 4, 6, generator=drawn), torch.rand(2, 8, 6, 2, generator=drawn)
    return l2_normalise(a), l2_normalise(b)


def test_an_entry_is_the_product_of_its_two_cells(maps: tuple[Tensor, Tensor]) -> None:
    a, b = maps
    correlation = correlation_4d(a, b)
    assert correlation.shape == (2, 1, 4, 6, 6, 2)
    torch.testing.assert_close(correlation[1, 0, 3, 2, 4, 1], (a[1, :, 3, 2] * b[1, :, 4, 1]).sum())
    flat = correlation_3d(a, b)
    products = torch.stack([(a[0, :, row, column] * b[0, :, 5, 1]).sum() for column in range(6) for row in range(4)])
    torch.testing.assert_close(flat[0, :, 5, 1], l2_normalise(products.relu(), 0))


@pytest.mark.parametrize("k", [2, 3])
@pytest.mark.parametrize("block", [1, 1 << 30])
def test_pooling_in_blocks_equals_pooling_the_whole(k: int, block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_BLOCK_BYTES", block)
    drawn = torch.Generator().manual_seed(2)
    a, b = (torch.rand(1, 4, 3 * k, 2 * k, generator=drawn) for _ in range(2))
    pooled, places = pooled_correlation(a, b, k)
    full = correlation_4d(a, b)[0, 0]
    assert pooled.shape == places.shape == (1, 1, 3, 2, 3, 2)
    for i, j, p, q in ((0, 0, 0, 0), (2, 1, 1, 0), (1, 0, 2, 1)):
        box = full[i * k : (i + 1) * k, j * k : (j + 1) * k, p * k : (p + 1) * k, q * k : (q + 1) * k]
        assert pooled[0, 0, i, j, p, q] == box.max()
        assert places[0, 0, i, j, p, q] == box.flatten().argmax()


def test_pooling_refuses_sides_that_do_not_divide(maps: tuple[Tensor, Tensor]) -> None:
    with pytest.raises(ValueError, match=r"\(4, 6, 6, 2\) must be multiples of k = 4"):
        pooled_correlation(*maps, 4)


def test_mutual_matching_keeps_the_mutually_best_and_lowers_the_rest() -> None:
    correlation = torch.tensor([[0.9, 0.3], [0.6, 0.5]]).view(1, 1, 2, 1, 2, 1)
    out = mutual_matching(correlation).view(2, 2)
    torch.testing.assert_close(out[0, 0], torch.tensor(0.9), rtol=1e-4, atol=0)
    torch.testing.assert_close(out[1, 0], torch.tensor(0.6 * (0.6 / 0.9) * (0.6 / 0.6)), rtol=1e-4, atol=0)
    torch.testing.assert_close(out[0, 1], torch.tensor(0.3 * (0.3 / 0.5) * (0.3 / 0.9)), rtol=1e-4, atol=0)


def test_nothing_stays_nothing() -> None:
    zero = torch.zeros(1, 3, 2, 2)
    assert (l2_normalise(zero) == 0).all()
    assert (mutual_matching(correlation_4d(zero, zero)) == 0).all()
