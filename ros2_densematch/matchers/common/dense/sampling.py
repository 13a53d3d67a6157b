"""Balanced sampling of matches from a dense warp.

Edstedt et al., "DKM", CVPR 2023, section 3.4 (balanced sampling): draw by certainty, estimate the density of the drawn
matches in the four-dimensional space of both positions, draw again with the reciprocal density.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

# rows and columns of the kernel matrix that exist at a time, for the cache of a CPU core
_ROWS, _COLUMNS = 256, 4096
# standard deviations beyond which the kernel counts as zero: it is below 2e-8 there
_REACH = 6.0
_LEAST_EXPONENT = 60.0
# groups wider than so many deviations do not show the kernel, and the share of points in such groups from which on
# groups are of no use
_WIDE, _MOST_SCATTERED = 2.0, 0.05


class Sampling(BaseModel):
    """How matches are drawn."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    mode: Literal["threshold", "power", "certainty", "naive"] = Field(
        "threshold",
        description="This rule sets the weight of a cell: threshold counts a certainty above the threshold as 1, "
        "power takes its cube root, certainty uses it unchanged, naive gives all cells the same weight.",
    )
    threshold: float = Field(
        0.05, ge=0.0, le=1.0, description="In the mode threshold, certainties above this count as 1."
    )
    balanced: bool = Field(
        True, description="If true, four times as many matches are drawn first and then thinned by their density."
    )
    density_stride: int = Field(
        1,
        ge=1,
        le=1_000_000,
        description="The density is estimated against every Nth point, which is faster; this is N.",
    )
    density_points: int = Field(
        0,
        ge=0,
        le=10_000_000,
        description="The density is estimated against at most this many representative points; 0 uses all points.",
    )


def kernel_density(points: Tensor, *, deviation: float = 0.1, stride: int = 1) -> Tensor:
    """Sum over the points of exp(-d^2 / (2 deviation^2)), each point itself included, in float32 and bounded memory.

    Args:
        points: (N, D).
        deviation: standard deviation of the Gaussian.
        stride: only every such point is summed over.

    Returns:
        (N,).
    """
    others = points[::stride]
    return _kernel_sums(points, others, torch.ones(len(others), 1), deviation)[:, 0]


def subsampled_density(points: Tensor, most: int, *, deviation: float = 0.1) -> Tensor:
    """As `kernel_density`, but against a few of the points, each weighted by the number of those that it stands for.

    The points are halved again and again, across their widest axis, into groups of nearly one size; of each group the
    point nearest to its mean stands for all, and how far it lies from the mean is made up for to first order. That
    follows the density far more closely than points drawn at random. A point's own share, 1, is exact. Where many
    points are scattered so widely that none can stand for others, the density is the exact one.

    Args:
        points: (N, D); at most `most` points give the exact density.
        most: at most this many points are summed over, at least 2.
        deviation: standard deviation of the Gaussian.

    Returns:
        (N,).
    """
    if len(points) <= most:
        return kernel_density(points, deviation=deviation)
    points = points.float()
    groups = _groups(points, most)
    real = groups >= 0
    members = points[groups]
    weight = real.sum(1, keepdim=True).float()
    width = _width(points, groups)
    if float(real[width > _WIDE * deviation].sum()) > _MOST_SCATTERED * len(points):
        return kernel_density(points, deviation=deviation)
    mean = (members * real[..., None]).sum(1) / weight
    distance = (members - mean[:, None]).square().sum(2).masked_fill(~real, torch.inf)
    chosen = groups.gather(1, distance.argmin(1)[:, None])[:, 0]
    # sum over a group of k(x - p) = n k(x - r) (1 + (x - r) . (mean - r) / deviation^2), r the one that stands for it
    slope = (mean - points[chosen]) / deviation**2
    offset = 1 - (points[chosen] * slope).sum(1, keepdim=True)
    sums = _kernel_sums(points, points[chosen], weight * torch.cat([offset, slope], 1), deviation)
    density = sums[:, 0] + (sums[:, 1:] * points).sum(1)
    # the group of a point counts it as if it lay where the one that stands for it lies
    group = torch.empty(len(points), dtype=torch.int64, device=points.device)
    group[groups[real]] = torch.arange(len(groups), device=points.device)[:, None].expand_as(groups)[real]
    away = points - points[chosen[group]]
    own = torch.exp(-away.square().sum(1) / (2 * deviation**2)) * (1 + (away * slope[group]).sum(1))
    return (density - own).clamp(min=0) + 1


def _groups(points: Tensor, most: int) -> Tensor:
    """At most so many groups of neighbours: indices (M, size), -1 beyond a group's end."""
    levels = most.bit_length() - 1
    size = -(-len(points) // (1 << levels))
    size += size % 2
    padding = (size << levels) - len(points)
    groups = torch.cat([torch.arange(len(points)), torch.full((padding,), -1)]).to(points.device)[None]
    for _ in range(levels):
        groups = _sorted_across(points, groups).reshape(2 * len(groups), -1)
    groups = groups[(groups >= 0).any(1)]
    # the widest are halved once more
    ordered, width = _sorted_across(points, groups), _width(points, groups)
    widest = torch.zeros(len(groups), dtype=torch.bool, device=points.device)
    widest[width.topk(min(most - len(groups), len(groups))).indices] = True
    half = size // 2
    rest = torch.full((int(widest.sum()), half), -1, device=points.device)
    parts = [torch.cat([ordered[widest][:, part], rest], 1) for part in (slice(0, half), slice(half, size))]
    groups = torch.cat([groups[~widest], *parts])
    return groups[(groups >= 0).any(1)]


def _spread(points: Tensor, groups: Tensor) -> Tensor:
    """Extent of every group along every axis, (M, D)."""
    empty = (groups < 0)[..., None]
    members = points[groups]
    return members.masked_fill(empty, -torch.inf).amax(1) - members.masked_fill(empty, torch.inf).amin(1)


def _width(points: Tensor, groups: Tensor) -> Tensor:
    """Largest extent of every group, (M,)."""
    return _spread(points, groups).amax(1)


def _sorted_across(points: Tensor, groups: Tensor) -> Tensor:
    """Every group sorted along its widest axis, nothing (-1) behind all else."""
    axis = _spread(points, groups).argmax(1)[:, None, None].expand(-1, groups.shape[1], 1)
    along = points[groups].gather(2, axis)[..., 0].masked_fill(groups < 0, torch.inf)
    return groups.gather(1, along.argsort(dim=1, stable=True))


def _kernel_sums(points: Tensor, others: Tensor, weight: Tensor, deviation: float) -> Tensor:
    """Sums over the others of their weights (M, K) times exp(-d^2 / (2 deviation^2)), (N, K), in bounded memory."""
    # sorted along one axis, the kernel matrix is a band
    order, others_order = points[:, 0].argsort(), others[:, 0].argsort()
    points = points.float()[order] / (deviation * 2**0.5)
    others = others.float()[others_order] / (deviation * 2**0.5)
    weight = weight.to(others)[others_order]
    squares, other_squares = (points**2).sum(1, keepdim=True), (others**2).sum(1, keepdim=True)
    # -d^2 as one matrix product: (2x, -1, -x^2) . (y, y^2, 1)
    left = torch.cat([2 * points, -torch.ones_like(squares), -squares], 1)
    right = torch.cat([others, other_squares, torch.ones_like(other_squares)], 1).T.contiguous()
    reach = _REACH / 2**0.5
    starts = torch.arange(0, len(points), _ROWS)
    ends = (starts + _ROWS).clamp(max=len(points))
    axis = others[:, 0].contiguous()
    first = torch.searchsorted(axis, (points[starts, 0] - reach).contiguous()).tolist()
    last = torch.searchsorted(axis, (points[ends - 1, 0] + reach).contiguous()).tolist()
    density = points.new_zeros((len(points), weight.shape[1]))
    for i, (start, end) in enumerate(zip(starts.tolist(), ends.tolist(), strict=True)):
        for column in range(first[i], last[i], _COLUMNS):
            stop = min(column + _COLUMNS, last[i])
            kernel = left[start:end] @ right[:, column:stop]
            # exp is thirty times slower on a CPU where its result underflows
            density[start:end] += kernel.clamp_(-_LEAST_EXPONENT, 0).exp_() @ weight[column:stop]
    unsorted = torch.empty_like(density)
    unsorted[order] = density
    return unsorted


def draw(weight: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Indices drawn without replacement, with chances proportional to the weight; zero weights are never drawn.

    Args:
        weight: (N,), not negative, on the CPU.
        count: at most this many; fewer where fewer weights are positive.

    Returns:
        int64 (M,).
    """
    count = min(count, int((weight > 0).sum()))
    if count == 0:
        return torch.zeros(0, dtype=torch.int64)
    # the first `count` arrivals of exponential clocks with these rates (Efraimidis and Spirakis 2006)
    arrival = torch.empty(weight.shape, dtype=torch.float64).exponential_(generator=generator) / weight.double()
    return torch.topk(arrival, count, largest=False, sorted=True).indices


def sample_matches(
    certainty: Tensor, positions: Callable[[Tensor], Tensor], count: int, sampling: Sampling, generator: torch.Generator
) -> Tensor:
    """Indices of the sampled matches.

    Args:
        certainty: (N,) in [0, 1], on the CPU.
        positions: indices (M,) -> both normalised positions (M, 4), for the density.
        count: at most this many.
        sampling: how.
        generator: on the CPU; the same state gives the same indices.

    Returns:
        int64 (M,); fewer than `count` where fewer entries have a positive certainty, none where all are zero.
    """
    weight = certainty
    if sampling.mode == "threshold":
        weight = torch.where(certainty > sampling.threshold, 1.0, certainty)
    elif sampling.mode == "power":
        weight = certainty ** (1 / 3)
    elif sampling.mode == "naive":
        # cells that a mask or the image's edge took out stay out
        weight = (certainty > 0).to(certainty.dtype)
    if not sampling.balanced:
        return draw(weight, count, generator)
    first = draw(weight, 4 * count, generator)
    if sampling.density_points == 0:
        density = kernel_density(positions(first), stride=sampling.density_stride)
    else:
        density = subsampled_density(positions(first), sampling.density_points)
    chance = 1 / (density + 1)
    # lonely points are taken for wrong ones: only where nothing else is left
    chance[density < 10] = 1e-7
    return first[draw(chance.cpu(), count, generator)]
