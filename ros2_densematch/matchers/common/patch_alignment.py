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

from ros2_densematch.nn.side_by_side import side_by_side

_SAMPLES_IN_CACHE = 115_000


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
    count = len(reference_xy)
    if count == 0:
        return Refined(query_xy, query_xy.new_zeros(0), query_xy.new_zeros(0, 3))
    window = _window(reference, radius, spacing)

    def part(rows: slice) -> Refined:
        return _refine_block(
            reference,
            query,
            reference_xy[rows],
            query_xy[rows],
            linear[rows],
            window,
            iterations=iterations,
            limit=limit,
        )

    if query.device.type != "cpu":
        return part(slice(None))
    # as many matches at a time as the cache of a core holds, each by one thread: to share every small operator of a
    # step between threads costs more than it saves
    block = max(1, _SAMPLES_IN_CACHE // len(window.x))
    parts = side_by_side(part, [slice(start, start + block) for start in range(0, count, block)])
    return Refined(*(torch.cat(values) for values in zip(*parts, strict=True)))


class _Window(NamedTuple):
    """The samples of a patch: offsets (K,) in reference pixels, weights (K,) that sum to 1, and how many a side has."""

    x: Tensor
    y: Tensor
    weight: Tensor
    side: int
    spacing: float


def _window(like: Tensor, radius: int, spacing: float) -> _Window:
    axis = torch.arange(-radius, radius + 1, device=like.device, dtype=like.dtype) * spacing
    y, x = (grid.flatten() for grid in torch.meshgrid(axis, axis, indexing="ij"))
    weight = torch.exp(-(x * x + y * y) / (2 * (0.5 * radius * spacing) ** 2))
    return _Window(x, y, weight / weight.sum(), 2 * radius + 1, spacing)


def _refine_block(
    reference: Tensor,
    query: Tensor,
    reference_xy: Tensor,
    query_xy: Tensor,
    linear: Tensor,
    window: _Window,
    *,
    iterations: int,
    limit: float,
) -> Refined:
    count, samples = len(query_xy), len(window.x)
    # x and y of the samples lie in planes of their own, and every step writes to the same memory
    grid = query.new_empty(2, count, samples)
    template, deviation = _template(reference, reference_xy, window, grid)
    gradient_x, gradient_y = _gradients(template, linear, window)
    basis = torch.stack([template * window.weight, gradient_x * window.weight, gradient_y * window.weight], 1)
    xx, xy = (basis[:, 1] * gradient_x).sum(1), (basis[:, 1] * gradient_y).sum(1)
    yy = (basis[:, 2] * gradient_y).sum(1)
    inverse_h = inverse_2x2(torch.stack([xx + 1e-4, xy, xy, yy + 1e-4], 1).reshape(-1, 2, 2))
    # What a step needs of the query patch q are four sums over its samples; its normalisation is applied to the sums.
    products = torch.empty_like(basis)
    of_one = basis[:, 1:].sum(2)
    of_template = torch.mul(basis, template[:, None], out=products)[:, 1:].sum(2)

    pixel = query_xy.new_tensor([2.0 / query.shape[1], 2.0 / query.shape[0]])
    carried = torch.stack([_row(linear, 0, window) * pixel[0], _row(linear, 1, window) * pixel[1]])
    position, level = query_xy, None
    best_position, best_correlation = query_xy, query_xy.new_full((count,), -1.0)
    for step in range(iterations + 1):
        torch.add(carried, ((position + 0.5) * pixel - 1).T[:, :, None], out=grid)
        values = _on_grid(query, grid)
        if level is None:
            # the mean of the first patch is taken off all, so that the variance does not drown in rounding
            level = (values @ window.weight)[:, None]
        values.sub_(level)
        sums = torch.mul(basis, values[:, None], out=products).sum(2)  # (N, 3): with template, with the two gradients
        mean = values @ window.weight
        spread = (values.square_() @ window.weight - mean.square()).clamp_min(0).sqrt()
        scale = 1 / (spread + 1e-6)
        # the weighted template sums to nothing, so that the mean of the patch drops out
        correlation = torch.where((spread < 1e-3) | (deviation < 1e-3), 0.0, sums[:, 0] * scale)
        better = correlation > best_correlation
        best_correlation = torch.where(better, correlation, best_correlation)
        best_position = torch.where(better[:, None], position, best_position)
        if step == iterations:
            break
        error = (sums[:, 1:] - of_one * mean[:, None]) * scale[:, None] - of_template
        delta = (inverse_h @ error[..., None])[..., 0].clamp(-1.0, 1.0)
        moved = position - delta
        away = (moved - query_xy).norm(dim=1, keepdim=True) > limit
        position = torch.where(away, position, moved)
    return Refined(best_position, best_correlation, torch.stack([xx, xy, yy], 1))


def _template(image: Tensor, xy: Tensor, window: _Window, grid: Tensor) -> tuple[Tensor, Tensor]:
    """Patches (N, K) of zero mean and unit variance under the weights, and the deviations (N,) divided by."""
    for plane, at, offset, length in zip(grid, xy.T, (window.x, window.y), image.shape[::-1], strict=True):
        torch.add(((at + 0.5) * (2.0 / length) - 1)[:, None], offset * (2.0 / length), out=plane)
    values = _on_grid(image, grid)
    values.sub_((values @ window.weight)[:, None])
    deviation = (values.square() @ window.weight).sqrt()
    return values.div_(deviation[:, None] + 1e-6), deviation


def _gradients(template: Tensor, linear: Tensor, window: _Window) -> tuple[Tensor, Tensor]:
    """Gradients (N, K) in query pixels: central differences of the patch, carried by the inverse of the local map."""
    patch = template.reshape(-1, 1, window.side, window.side)
    padded = functional.pad(patch, (1, 1, 1, 1), mode="replicate")[:, 0]
    x = ((padded[:, 1:-1, 2:] - padded[:, 1:-1, :-2]) / (2 * window.spacing)).flatten(1)
    y = ((padded[:, 2:, 1:-1] - padded[:, :-2, 1:-1]) / (2 * window.spacing)).flatten(1)
    back = inverse_2x2(linear)[..., None]
    return back[:, 0, 0] * x + back[:, 1, 0] * y, back[:, 0, 1] * x + back[:, 1, 1] * y


def _row(linear: Tensor, row: int, window: _Window) -> Tensor:
    """One coordinate (N, K) of the samples' offsets in the query image."""
    return linear[:, row, 0, None] * window.x + linear[:, row, 1, None] * window.y


def _on_grid(image: Tensor, grid: Tensor) -> Tensor:
    """Like `sample`, (N, K) values of (H, W) at positions (2, N, K) of planes of x and y that run from -1 to 1."""
    return functional.grid_sample(
        image[None, None], grid.permute(1, 2, 0)[None], mode="bilinear", padding_mode="border", align_corners=False
    )[0, 0]


def inverse_2x2(m: Tensor) -> Tensor:
    """Inverse of (N, 2, 2) by the adjugate; a singular matrix gives zeros."""
    a, b, c, d = m[:, 0, 0], m[:, 0, 1], m[:, 1, 0], m[:, 1, 1]
    determinant = a * d - b * c
    scale = torch.where(determinant.abs() > 1e-9, 1 / determinant, torch.zeros_like(determinant))
    return torch.stack([torch.stack([d, -b], -1), torch.stack([-c, a], -1)], -2) * scale[:, None, None]
