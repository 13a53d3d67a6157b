"""4-D convolution and the consensus network, against a loop over all taps."""

from __future__ import annotations

from itertools import product

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from ros2_densematch.nn import conv4d as module
from ros2_densematch.nn.conv4d import NeighConsensus, conv4d


def by_taps(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    k = weight.shape[0]
    sides = x.shape[2:]
    padded = functional.pad(x, (k // 2, k // 2) * 4)
    out = bias.view(1, -1, 1, 1, 1, 1).expand(len(x), -1, *sides)
    for t in product(range(k), repeat=4):
        window = tuple(slice(start, start + side) for start, side in zip(t, sides, strict=True))
        out = out + torch.einsum("bcijkl,oc->boijkl", padded[(..., *window)], weight[t[0], :, :, t[1], t[2], t[3]])
    return out


@pytest.fixture
def drawn() -> torch.Generator:
    return torch.Generator().manual_seed(0)


@pytest.mark.parametrize(("k", "inputs", "outputs"), [(3, 1, 4), (3, 4, 1), (3, 2, 2), (5, 3, 2), (1, 1, 2)])
@pytest.mark.parametrize("sides", [(3, 2, 4, 3), (1, 2, 1, 3)])
def test_a_convolution_equals_the_sum_over_all_taps(
    drawn: torch.Generator, k: int, inputs: int, outputs: int, sides: tuple[int, ...]
) -> None:
    x = torch.randn(2, inputs, *sides, generator=drawn, requires_grad=True)
    weight = torch.randn(k, outputs, inputs, k, k, k, generator=drawn, requires_grad=True)
    bias = torch.randn(outputs, generator=drawn, requires_grad=True)
    got, want = conv4d(x, weight, bias), by_taps(x, weight, bias)
    torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-4)
    direction = torch.randn(want.shape, generator=drawn)
    for mine, theirs in zip(
        torch.autograd.grad(got, (x, weight, bias), direction),
        torch.autograd.grad(want, (x, weight, bias), direction),
        strict=True,
    ):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-3)


def test_filters_that_do_not_fit_are_refused() -> None:
    x = torch.zeros(1, 2, 3, 3, 3, 3)
    with pytest.raises(ValueError, match="sizes must be odd"):
        conv4d(x, torch.zeros(3, 1, 2, 3, 4, 3))
    with pytest.raises(ValueError, match="takes 1 channels, the tensor has 2"):
        conv4d(x, torch.zeros(3, 1, 1, 3, 3, 3))
    with pytest.raises(ValueError, match="last layer must have 1 channel"):
        NeighConsensus((3, 3), (16, 2))
    with pytest.raises(ValueError, match="one filter size per layer"):
        NeighConsensus((3,), (16, 1))


@pytest.mark.parametrize(("kernels", "channels"), [((3, 3), (16, 1)), ((5, 5, 5), (4, 4, 1))])
def test_consensus_does_not_tell_the_images_apart(
    drawn: torch.Generator, kernels: tuple[int, ...], channels: tuple[int, ...]
) -> None:
    network = NeighConsensus(kernels, channels)
    correlation = torch.rand(1, 1, 4, 5, 6, 3, generator=drawn)
    swapped = network(correlation.permute(0, 1, 4, 5, 2, 3)).permute(0, 1, 4, 5, 2, 3)
    torch.testing.assert_close(network(correlation), swapped)


@pytest.mark.parametrize(("kernels", "channels"), [((3, 3), (4, 1)), ((5, 3, 5), (2, 2, 1))])
def test_slabs_of_rows_give_the_result_of_the_whole(
    drawn: torch.Generator, monkeypatch: pytest.MonkeyPatch, kernels: tuple[int, ...], channels: tuple[int, ...]
) -> None:
    network = NeighConsensus(kernels, channels)
    correlation = torch.rand(1, 1, 8, 3, 7, 2, generator=drawn)
    whole = network(correlation)
    calls = []
    plain = network._without_gradient
    monkeypatch.setattr(network, "_without_gradient", lambda x: calls.append(x.shape[2]) or plain(x))
    monkeypatch.setattr(module, "_SLAB_BYTES", 1)
    monkeypatch.setattr(module, "_LEAST_HALOS", 0)
    with torch.no_grad():
        torch.testing.assert_close(network(correlation), whole)
    assert len(calls) == 8 + 7
    assert max(calls) <= 1 + 2 * sum(k // 2 for k in kernels)
