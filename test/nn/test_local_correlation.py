"""The tiled local correlation against its definition."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode

from ros2_densematch.nn import local_correlation as module
from ros2_densematch.nn.grid import cell_centres
from ros2_densematch.nn.local_correlation import local_correlation


def by_definition(query: Tensor, support: Tensor, flow: Tensor, radius: int) -> Tensor:
    """Samples the support at every offset; offsets are whole cells, vertical slow."""
    channels, height, width = query.shape[1:]
    rows = []
    for dy in range(-radius, radius + 1):
        for dx in range(-radius, radius + 1):
            offset = torch.tensor([2 * dx / width, 2 * dy / height], dtype=flow.dtype).reshape(1, 2, 1, 1)
            at = (flow + offset).permute(0, 2, 3, 1)
            sampled = functional.grid_sample(support, at, align_corners=False)
            rows.append((query * sampled).sum(1) / channels**0.5)
    return torch.stack(rows, 1)


def maps(seed: int, batch: int, channels: int, height: int, width: int, spread: float) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    query, support = (torch.randn(batch, channels, height, width, generator=generator).double() for _ in range(2))
    flow = cell_centres(height, width)[None].double() + spread * torch.randn(
        batch, 2, height, width, generator=generator
    )
    return query, support, flow.float().double()


@pytest.mark.parametrize("way", ["all pairs", "blocks", "some blocks", "windows"])
@pytest.mark.parametrize("radius", [2, 3, 7])
@pytest.mark.parametrize("spread", [0.0, 0.3, 3.0], ids=["identity", "noisy", "mostly outside"])
def test_equals_the_definition(monkeypatch, way: str, radius: int, spread: float):
    monkeypatch.setattr(module, "_ALL_PAIRS_CELLS", 10**9 if way == "all pairs" else 0)
    side = 2 * radius + 2
    most = {"blocks": 10**9, "some blocks": (9 + side) * (8 + side), "windows": 0}
    monkeypatch.setattr(module, "_BLOCK_CELLS", most.get(way))
    monkeypatch.setattr(module, "_TILE_ELEMENTS", {"cpu": 5000})
    query, support, flow = maps(radius, 2, 6, 9, 13, spread)
    got = local_correlation(query, support, flow, radius)
    assert torch.allclose(got, by_definition(query, support, flow, radius), atol=1e-4)


def test_far_outside_and_infinite_positions_give_zeros():
    query, support, flow = maps(0, 1, 4, 8, 8, 0.0)
    flow[:] = 1e9
    assert torch.equal(local_correlation(query, support, flow, 2), torch.zeros(1, 25, 8, 8, dtype=torch.float64))


@pytest.mark.parametrize("all_pairs", [True, False])
def test_gradients_reach_the_query_only_and_equal_those_of_the_definition(monkeypatch, all_pairs: bool):
    monkeypatch.setattr(module, "_ALL_PAIRS_CELLS", 10**9 if all_pairs else 0)
    query, support, flow = maps(1, 1, 5, 7, 6, 0.2)
    gradients = []
    for function in (local_correlation, by_definition):
        q = query.clone().requires_grad_()
        s, f = support.clone().requires_grad_(), flow.clone().requires_grad_()
        function(q, s, f, 2).square().sum().backward()
        gradients.append(q.grad)
        if function is local_correlation:
            assert s.grad is None
            assert f.grad is None
    assert torch.allclose(*gradients, atol=1e-3)


class LargestTensor(TorchDispatchMode):
    """Remembers the most elements that any operation gave back with memory of its own."""

    elements = 0

    def __torch_dispatch__(self, function, types, arguments=(), keywords=None):
        out = function(*arguments, **(keywords or {}))
        if isinstance(out, Tensor):
            self.elements = max(self.elements, out.untyped_storage().nbytes() // out.element_size())
        return out


@pytest.mark.parametrize(("radius", "side"), [(7, 40), (3, 70), (2, 100)])
def test_no_tensor_of_channels_times_offsets_times_cells_exists(radius: int, side: int):
    channels = 256
    query, support, flow = (m.float() for m in maps(0, 1, channels, side, side, 0.1))
    with LargestTensor() as largest:
        out = local_correlation(query, support, flow, radius)
    assert largest.elements <= 2 * max(out.numel(), query.numel(), module._TILE_ELEMENTS["cpu"])
    assert largest.elements < channels * out.numel() / 15


def test_maps_of_two_sizes_are_refused():
    with pytest.raises(ValueError, match=r"\(1, 4, 8, 8\) and support \(1, 4, 8, 9\)"):
        local_correlation(torch.zeros(1, 4, 8, 8), torch.zeros(1, 4, 8, 9), torch.zeros(1, 2, 8, 8), 2)
