"""Balanced sampling of matches from a dense warp.

Edstedt et al., "DKM", CVPR 2023, section 3.4 (balanced sampling): draw by certainty, estimate the density of the drawn
matches in the four-dimensional space of both positions, draw again with the reciprocal density.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

# rows and columns of the kernel matrix that exist at a time, for the cache of a CPU core
_ROWS, _COLUMNS = 256, 4096
# standard deviations beyond which the kernel counts as zero: it is below 2e-8 there
_REACH = 6.0
_LEAST_EXPONENT = 60.0


@dataclass(frozen=True)
class Sampling:
    """How matches are drawn.

    Attributes:
        mode: "threshold" (certainty above the threshold counts as 1), "power" (its cube root) or "naive" (all cells
            alike).
        threshold: of the mode "threshold".
        balanced: draw four times as many first, then thin them out by their density.
        density_stride: the density is estimated against every such point (Tiny RoMa on a CPU: 8).
    """

    mode: str = "threshold"
    threshold: float = 0.05
    balanced: bool = True
    density_stride: int = 1

    def __post_init__(self) -> None:
        if self.mode not in ("threshold", "power", "naive"):
            raise ValueError(f"unknown sampling mode {self.mode!r}: choose threshold, power or naive")
        if self.density_stride < 1:
            raise ValueError(f"density_stride must be at least 1, got {self.density_stride}")


def kernel_density(points: Tensor, *, deviation: float = 0.1, stride: int = 1) -> Tensor:
    """Sum over the points of exp(-d^2 / (2 deviation^2)), each point itself included, in float32 and bounded memory.

    Args:
        points: (N, D).
        deviation: standard deviation of the Gaussian.
        stride: only every such point is summed over.

    Returns:
        (N,).
    """
    # sorted along one axis, the kernel matrix is a band
    order = points[:, 0].argsort()
    points = points.float()[order] / (deviation * 2**0.5)
    others = points[(order % stride == 0)]
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
    density = points.new_zeros(len(points))
    for i, (start, end) in enumerate(zip(starts.tolist(), ends.tolist(), strict=True)):
        for column in range(first[i], last[i], _COLUMNS):
            kernel = left[start:end] @ right[:, column : min(column + _COLUMNS, last[i])]
            # exp is thirty times slower on a CPU where its result underflows
            density[start:end] += kernel.clamp_(-_LEAST_EXPONENT, 0).exp_().sum(1)
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
    density = kernel_density(positions(first), stride=sampling.density_stride)
    chance = 1 / (density + 1)
    # lonely points are taken for wrong ones: only where nothing else is left
    chance[density < 10] = 1e-7
    return first[draw(chance.cpu(), count, generator)]
