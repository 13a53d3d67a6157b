"""Sparse correlation and submanifold convolution, against their dense counterparts."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from ros2_densematch.nn import sparse_correlation as search
from ros2_densematch.nn.conv4d import conv4d
from ros2_densematch.nn.sparse_conv4d import Neighbourhoods, SparseConv4d, SparseCorrelation, SparseNeighConsensus
from ros2_densematch.nn.sparse_correlation import nearest_cells, sparse_correlation

SIDES = (5, 6, 4, 7)


@pytest.fixture
def features() -> tuple[Tensor, Tensor]:
    drawn = torch.Generator().manual_seed(0)
    a, b = torch.randn(8, *SIDES[:2], generator=drawn), torch.randn(8, *SIDES[2:], generator=drawn)
    return functional.normalize(a, dim=0), functional.normalize(b, dim=0)


@pytest.fixture
def correlation(features: tuple[Tensor, Tensor]) -> SparseCorrelation:
    return sparse_correlation(*features, 5)


def dense(correlation: SparseCorrelation, values: Tensor | None = None) -> Tensor:
    """(1, C, hA, wA, hB, wB), zero where there is no entry."""
    values = correlation.values if values is None else values
    full = torch.zeros(values.shape[1], *correlation.sides)
    full[(slice(None), *correlation.places().T)] = values.detach().T
    return full[None]


@pytest.mark.parametrize("block", [1, 1 << 30])
def test_entries_are_the_nearest_cells_of_both_directions(
    features: tuple[Tensor, Tensor], block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search, "_BLOCK_BYTES", block)
    got = sparse_correlation(*features, 5)
    products = features[0].flatten(1).T @ features[1].flatten(1)
    want = torch.zeros_like(products)
    for i, row in enumerate(products):
        want[i, row.topk(5).indices] += row.topk(5).values
    for j, column in enumerate(products.T):
        want[column.topk(5).indices, j] += column.topk(5).values
    torch.testing.assert_close(dense(got).view(want.shape), want)
    assert len(got.keys) == int((want != 0).sum())
    assert (got.keys.diff() > 0).all(), "in order of places"


def test_more_neighbours_than_cells_are_all_cells(features: tuple[Tensor, Tensor]) -> None:
    of_a, of_b = nearest_cells(features[0].flatten(1).T, features[1].flatten(1).T, 1000)
    assert of_a.shape == (30, 28)
    assert of_b.shape == (28, 30)
    assert len(sparse_correlation(*features, 1000).keys) == 30 * 28


@pytest.mark.parametrize("swapped", [False, True])
@pytest.mark.parametrize(("inputs", "outputs"), [(1, 3), (3, 1)])
def test_a_convolution_equals_the_dense_one_at_the_entries(
    correlation: SparseCorrelation, inputs: int, outputs: int, swapped: bool
) -> None:
    torch.manual_seed(3)
    layer = SparseConv4d(inputs, outputs)
    torch.nn.init.normal_(layer.bias)
    values = torch.randn(len(correlation.keys), inputs)
    got = layer(values, Neighbourhoods(correlation.keys, correlation.sides), swapped=swapped)
    # the published layout: the first axis of the filter varies fastest
    weight = layer.kernel.view(3, 3, 3, 3, inputs, outputs).permute(3, 5, 4, 2, 1, 0)
    full = dense(correlation, values)
    if swapped:
        want = conv4d(full.permute(0, 1, 4, 5, 2, 3), weight, layer.bias[0]).permute(0, 1, 4, 5, 2, 3)
    else:
        want = conv4d(full, weight, layer.bias[0])
    torch.testing.assert_close(got, want[0][(slice(None), *correlation.places().T)].T)
    with torch.inference_mode():
        torch.testing.assert_close(
            layer(values, Neighbourhoods(correlation.keys, correlation.sides), swapped=swapped), got
        )


def test_consensus_is_differentiable_down_to_the_features(features: tuple[Tensor, Tensor]) -> None:
    torch.manual_seed(4)
    a = features[0].double().requires_grad_()
    network = SparseNeighConsensus((2, 1)).double()
    total = network(sparse_correlation(a, features[1].double(), 5)).values.square().sum()
    total.backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in network.parameters())
    assert a.grad is not None
    step, direction = 1e-6, torch.randn_like(a)
    with torch.no_grad():
        ends = [
            network(sparse_correlation(a + sign * step * direction, features[1].double(), 5)).values.square().sum()
            for sign in (1, -1)
        ]
    torch.testing.assert_close((ends[0] - ends[1]) / (2 * step), (a.grad * direction).sum(), rtol=1e-4, atol=1e-6)
