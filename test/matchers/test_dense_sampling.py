"""Balanced sampling and the density estimate."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from ros2_densematch.matchers.common.dense.sampling import Sampling, draw, kernel_density, sample_matches


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("stride", [1, 8])
@pytest.mark.parametrize("count", [0, 1, 700, 3000])
def test_density_equals_the_sum_over_all_pairs(count: int, stride: int):
    points = torch.rand(count, 4, generator=generator()) * 2 - 1
    points[:, 2:] = points[:, :2] + 0.05 * torch.randn(count, 2, generator=generator(1))
    pairs = torch.cdist(points.double(), points[::stride].double())
    expected = torch.exp(-(pairs**2) / 0.02).sum(1)
    assert torch.allclose(kernel_density(points, stride=stride).double(), expected, rtol=1e-4, atol=1e-3)


def test_draw_follows_the_weights_and_never_takes_a_zero():
    weight = torch.tensor([0.0, 1.0, 3.0, 0.0, 6.0])
    first = torch.tensor([int(draw(weight, 1, generator(s))[0]) for s in range(2000)])
    shares = torch.bincount(first, minlength=5) / 2000
    assert torch.allclose(shares, weight / 10, atol=0.04)
    assert sorted(draw(weight, 10, generator()).tolist()) == [1, 2, 4]
    assert len(draw(torch.zeros(7), 3, generator())) == 0


def line(index: Tensor) -> Tensor:
    """Cells 0 to 899 crowd at one place, the last hundred are spread out."""
    position = torch.where(index < 900, index * 1e-5, (index - 900) * 0.008)
    return position[:, None].float().expand(-1, 4)


def test_balanced_sampling_thins_out_where_matches_crowd():
    certainty = torch.ones(1000)
    plain = sample_matches(certainty, line, 200, Sampling(balanced=False), generator())
    even = sample_matches(certainty, line, 200, Sampling(), generator())
    assert len(plain) == len(even) == 200
    assert (even >= 900).sum() > 1.3 * (plain >= 900).sum()


def test_the_threshold_makes_certain_cells_alike():
    certainty = torch.cat([torch.full((500,), 0.06), torch.full((500,), 1.0)])
    drawn = sample_matches(certainty, line, 100, Sampling(balanced=False), generator())
    assert 30 < (drawn < 500).sum() < 70
    drawn = sample_matches(certainty, line, 100, Sampling(threshold=0.1, balanced=False), generator())
    assert (drawn < 500).sum() < 20


@pytest.mark.parametrize("mode", ["threshold", "power", "naive"])
@pytest.mark.parametrize("balanced", [True, False])
def test_few_or_no_positive_certainties_are_no_error(mode: str, balanced: bool):
    sampling = Sampling(mode=mode, balanced=balanced)
    assert len(sample_matches(torch.zeros(1000), line, 50, sampling, generator())) == 0
    certainty = torch.zeros(1000)
    certainty[[3, 5, 8]] = torch.tensor([0.5, 1e-8, 1.0])
    assert sorted(sample_matches(certainty, line, 50, sampling, generator()).tolist()) == [3, 5, 8]


def test_the_same_seed_draws_the_same():
    certainty = torch.rand(1000, generator=generator(5))
    first, again, other = (sample_matches(certainty, line, 100, Sampling(), generator(s)) for s in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert len(first.unique()) == 100


def test_an_unknown_mode_is_refused():
    with pytest.raises(ValueError, match="should be 'threshold', 'power', 'certainty' or 'naive'"):
        Sampling(mode="best")
