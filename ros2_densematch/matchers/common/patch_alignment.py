"""Sub-pixel refinement of matches on grey values: inverse-compositional Gauss-Newton with a local affine patch.

Baker and Matthews, "Lucas-Kanade 20 years on", IJCV 2004, section 3.2, for the translation alone: the patch of the
reference, carried by the local affine map, is aligned with the query. Both patches have zero mean and unit variance, so
that exposure does not matter; their final correlation is a good sign of a right match.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional


class Refined(NamedTuple):
    """Refined matches.

    Attributes:
        query_xy: (N, 2) pixels.
        correlation: (N,) zero-mean normalised cross-correlation of the two patches at `query_xy`, in [-1, 1].
        information: (N, 3) upper triangle of the normalised Gauss-Newton matrix at the solution (structure tensor of
            the unit-variance patch per pixel^2, weights summing to 1).
    """

    query_xy: Tensor
    correlation: Tensor
    information: Tensor


def sample(image: Tensor, xy: Tensor) -> Tensor:
    """Bilinear values of (H, W) or (C, H, W) at (..., 2) pixels; outside the border value holds.

    Returns:
        (...) for a single channel, (C, ...) otherwise.
    """
    single = image.ndim == 2
    stack = image[None] if single else image
    height, width = stack.shape[-2:]
    scale = xy.new_tensor([2.0 / width, 2.0 / height])
    grid = (xy + 0.5) * scale - 1
    flat = grid.reshape(1, -1, 1, 2) if grid.ndim == 2 else grid.reshape(1, grid.shape[0], -1, 2)
    values = functional.grid_sample(stack[None], flat, mode="bilinear", padding_mode="border", align_corners=False)[0]
    values = values.reshape(stack.shape[0], *xy.shape[:-1])
    return values[0] if single else values


def _on_grid(image: Tensor, grid: Tensor) -> Tensor:
    """Like `sample`, (N, K) values of (H, W) at (N, K, 2) positions of a grid that runs from -1 to 1."""
    return functional.grid_sample(
        image[None, None], grid[None], mode="bilinear", padding_mode="border", align_corners=False
    )[0, 0]


def refine(
    reference: Tensor,
    query: Tensor,
    reference_xy: Tensor,
    query_xy: Tensor,
    linear: Tensor,
    *,
    radius: int = 7,
    iterations: int = 6,
    limit: float = 2.5,
    spacing: float = 1.0,
) -> Refined:
    """Aligns every match below the pixel.

    Args:
        reference: float (H0, W0) grey image.
        query: float (H1, W1).
        reference_xy: (N, 2) pixels, held fixed.
        query_xy: (N, 2) pixels, the start.
        linear: (N, 2, 2) local affine map from reference to query offsets.
        radius: the patch has (2 radius + 1)^2 samples.
        iterations: Gauss-Newton steps.
        limit: a match that moves further than this many pixels keeps its start.
        spacing: distance between the samples in reference pixels.
    """
    if len(reference_xy) == 0:
        return Refined(query_xy, query_xy.new_zeros(0), query_xy.new_zeros(0, 3))
    axis = torch.arange(-radius, radius + 1, device=reference.device, dtype=reference.dtype)
    offsets = torch.stack(torch.meshgrid(axis, axis, indexing="xy"), -1).reshape(-1, 2) * spacing
    weight = torch.exp(-(offsets**2).sum(-1) / (2 * (0.5 * radius * spacing) ** 2))
    weight = weight / weight.sum()

    template, deviation = _normalised(sample(reference, reference_xy[:, None] + offsets), weight)
    # gradients of the template by central differences of the sampled patch
    side = 2 * radius + 1
    patch = template.reshape(-1, side, side)
    padded = functional.pad(patch[:, None], (1, 1, 1, 1), mode="replicate")[:, 0]
    gx = (padded[:, 1:-1, 2:] - padded[:, 1:-1, :-2]) / (2 * spacing)
    gy = (padded[:, 2:, 1:-1] - padded[:, :-2, 1:-1]) / (2 * spacing)
    gradient = torch.stack([gx, gy], 1).flatten(2)  # (N, 2, K)
    # d/dp of the query patch = linear^-T gradient of the template
    gradient = inverse_2x2(linear).transpose(1, 2) @ gradient
    weighted = gradient * weight
    h = weighted @ gradient.transpose(1, 2)
    inverse_h = inverse_2x2(h + 1e-4 * torch.eye(2, device=h.device, dtype=h.dtype))
    # What a step needs of the query patch q are four sums over its samples; its normalisation is applied to the sums.
    basis = torch.cat([(template * weight)[:, None], weighted], 1)  # (N, 3, K)
    of_one = weighted.sum(2)
    of_template = weighted @ template[..., None]

    height, width = query.shape
    grid_scale = query_xy.new_tensor([2.0 / width, 2.0 / height])
    carried = offsets @ linear.transpose(1, 2)  # (N, K, 2)
    # the mean of the first patch is taken off the others, so that the variance does not drown in rounding
    level = (_on_grid(query, (query_xy[:, None] + carried + 0.5) * grid_scale - 1) @ weight)[:, None]
    carried *= grid_scale
    start = query_xy
    position = query_xy
    best_position, best_correlation = query_xy, query_xy.new_full((len(query_xy),), -1.0)
    for step in range(iterations + 1):
        values = _on_grid(query, carried + ((position + 0.5) * grid_scale - 1)[:, None]).sub_(level)
        sums = (basis @ values[..., None])[..., 0]  # (N, 3): with the template, and with the two gradients
        mean = values @ weight
        spread = (values.square_() @ weight - mean.square()).clamp_min(0).sqrt()
        scale = 1 / (spread + 1e-6)
        # the weighted template sums to nothing, so that the mean of the patch drops out
        correlation = torch.where((spread < 1e-3) | (deviation < 1e-3), 0.0, sums[:, 0] * scale)
        better = correlation > best_correlation
        best_correlation = torch.where(better, correlation, best_correlation)
        best_position = torch.where(better[:, None], position, best_position)
        if step == iterations:
            break
        error = (sums[:, 1:] - of_one * mean[:, None]) * scale[:, None] - of_template[..., 0]
        delta = (inverse_h @ error[..., None])[..., 0].clamp(-1.0, 1.0)
        moved = position - delta
        away = (moved - start).norm(dim=1, keepdim=True) > limit
        position = torch.where(away, position, moved)
    information = torch.stack([h[:, 0, 0], h[:, 0, 1], h[:, 1, 1]], 1)
    return Refined(best_position, best_correlation, information)


def _normalised(values: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Zero mean and unit variance under the weights, and the standard deviation (N,) that was divided by."""
    values = values - (values * weight).sum(1, keepdim=True)
    deviation = (values.square() * weight).sum(1).sqrt()
    return values / (deviation[:, None] + 1e-6), deviation


def inverse_2x2(m: Tensor) -> Tensor:
    """Inverse of (N, 2, 2) by the adjugate; a singular matrix gives zeros."""
    a, b, c, d = m[:, 0, 0], m[:, 0, 1], m[:, 1, 0], m[:, 1, 1]
    determinant = a * d - b * c
    scale = torch.where(determinant.abs() > 1e-9, 1 / determinant, torch.zeros_like(determinant))
    return torch.stack([torch.stack([d, -b], -1), torch.stack([-c, a], -1)], -2) * scale[:, None, None]
