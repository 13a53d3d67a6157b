"""The Gaussian process against the textbook formula in float64."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from ros2_densematch.nn.gaussian_process import GaussianProcess
from ros2_densematch.nn.grid import cell_centres


@pytest.fixture
def process() -> GaussianProcess:
    torch.manual_seed(0)
    return GaussianProcess(16).requires_grad_(False)


def textbook(process: GaussianProcess, query: Tensor, support: Tensor) -> Tensor:
    q, s = (f[0].flatten(1).T.double() for f in (query, support))

    def kernel(x: Tensor, y: Tensor) -> Tensor:
        cosine = (x @ y.T) / (x.norm(dim=1)[:, None] * y.norm(dim=1)[None] + 1e-6)
        return torch.exp((cosine - 1) / 0.2)

    centres = cell_centres(*support.shape[-2:]).double()
    weight, bias = process.pos_conv.weight.double()[:, :, 0, 0], process.pos_conv.bias.double()
    embedding = torch.cos(8 * math.pi * (weight @ centres.flatten(1) + bias[:, None])).T
    noisy = kernel(s, s) + 0.1 * torch.eye(len(s), dtype=torch.float64)
    mean = kernel(q, s) @ torch.linalg.inv(noisy) @ embedding
    return mean.T.reshape(1, -1, *query.shape[-2:])


def test_posterior_mean(process: GaussianProcess):
    query, support = torch.randn(1, 8, 6, 5), torch.randn(1, 8, 7, 4)
    got = process(query, process.condition(support))
    assert torch.allclose(got.double(), textbook(process, query, support), atol=1e-4)


def test_a_batch_is_its_members_and_one_condition_serves_many_queries(process: GaussianProcess):
    query, support = torch.randn(3, 8, 6, 5), torch.randn(3, 8, 6, 5)
    together = process(query, process.condition(support))
    first = process.condition(support[:1])
    assert torch.allclose(together[:1], process(query[:1], first), atol=1e-5)
    assert torch.allclose(process(query[1:2], first).double(), textbook(process, query[1:2], support[:1]), atol=1e-4)


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_a_support_without_texture_is_finite(process: GaussianProcess, value: float):
    flat = torch.full((1, 8, 20, 20), value)
    assert torch.isfinite(process(flat, process.condition(flat))).all()


def test_half_precision_features_are_computed_in_float32(process: GaussianProcess):
    support = torch.randn(1, 8, 6, 5, dtype=torch.bfloat16)
    got = process(support, process.condition(support))
    assert got.dtype == torch.float32
    assert torch.equal(got, process(support.float(), process.condition(support.float())))


def test_gradients_reach_features_and_embedding():
    process = GaussianProcess(4)
    query, support = torch.randn(1, 8, 3, 3, requires_grad=True), torch.randn(1, 8, 3, 3, requires_grad=True)
    process(query, process.condition(support)).square().sum().backward()
    assert all(t.grad is not None and t.grad.abs().sum() > 0 for t in (query, support, process.pos_conv.weight))
