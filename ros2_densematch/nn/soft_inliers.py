"""The soft inlier count: how much of a correlation agrees with a transformation.

Rocco, "Neighbourhood consensus networks for visual correspondence" (thesis), section 4.3.2. Pure functions,
differentiable in the correlation and in the parameters. The channel of a cell of the source is row + 15 * column, as in
`correlation.correlation_3d`.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from ros2_densematch.nn.geometric_regression import CELLS
from ros2_densematch.nn.transformations import regular_grid, sample_image, transform_points

# feature cells do not reach the rim of the image: 227 pixels of receptive fields over 210 between the outer cells
OFFSET_FACTOR = 227 / 210
_NORM_EPS = 1e-5
_OUTSIDE = -1e10


def identity_mask(*, dilation: int = 0, like: Tensor) -> Tensor:
    """Which source cell agrees with the identity at every target cell, (1, 225, 15, 15) of zeros and ones.

    Args:
        dilation: 0 none (as trained), 1 the four neighbours too, 2 the eight neighbours too.
        like: gives type and device.

    Raises:
        ValueError: another dilation.
    """
    if dilation not in (0, 1, 2):
        raise ValueError(f"dilation must be 0, 1 (four neighbours) or 2 (eight neighbours), got {dilation}")
    places = torch.arange(CELLS * CELLS, device=like.device)
    mask = like.new_zeros(1, CELLS * CELLS, CELLS, CELLS)
    mask[0, places, places % CELLS, places // CELLS] = 1.0
    if dilation:
        footprint = like.new_ones(1, 1, 3, 3)
        if dilation == 1:
            footprint[..., ::2, ::2] = 0.0
        spread = functional.conv2d(mask.view(-1, 1, CELLS, CELLS), footprint, padding=1)
        mask = (spread > 0).to(like.dtype).view_as(mask)
    return mask


def feature_grid(theta: Tensor, *, regularisation: float = 0.0, offset: float = OFFSET_FACTOR) -> Tensor:
    """Source positions (B, 15, 15, 2) of the target's cells, in units in which the outer cells lie at -1 and +1."""
    grid = regular_grid(CELLS, CELLS, like=theta) / offset
    return transform_points(theta, grid, regularisation=regularisation, guarded=False) * offset


def composed_feature_grid(first: Tensor, second: Tensor, *, regularisation: float = 0.0) -> Tensor:
    """`feature_grid` of a cascade: the grid of the second stage looks up the grid of the first.

    Positions that leave the grid in either stage lie far outside.
    """
    outer = _banished(feature_grid(first))
    inner = feature_grid(second, regularisation=regularisation)
    return _banished(sample_image(outer.permute(0, 3, 1, 2), inner).permute(0, 2, 3, 1), by=inner)


def _banished(grid: Tensor, by: Tensor | None = None) -> Tensor:
    criterion = grid if by is None else by
    inside = ((criterion > -1) & (criterion < 1)).all(-1, keepdim=True)
    return torch.where(inside, grid, grid.new_tensor(_OUTSIDE))


def inlier_mask(grid: Tensor, *, mask: Tensor | None = None) -> Tensor:
    """The identity mask carried by a transformation's `feature_grid` (B, 15, 15, 2): (B, 225, 15, 15)."""
    mask = identity_mask(like=grid) if mask is None else mask
    return sample_image(mask.expand(len(grid), -1, -1, -1), grid)


def soft_inlier_count(
    correlation: Tensor, grid: Tensor, *, mask: Tensor | None = None, normalised: bool = True
) -> Tensor:
    """The correlation summed over the inlier region, (B,).

    Args:
        correlation: (B, 225, 15, 15).
        grid: of `feature_grid` or `composed_feature_grid`.
        mask: another identity mask than the plain one.
        normalised: divide the mask by its sum (with 1e-5 for every entry), as in training.
    """
    inliers = inlier_mask(grid, mask=mask)
    if normalised:
        inliers = inliers / (inliers + _NORM_EPS).sum((1, 2, 3), keepdim=True)
    return (inliers * correlation).sum((1, 2, 3))


def weak_alignment_loss(
    correlation: Tensor, affine: Tensor, tps: Tensor, *, regularisation: float = 0.2, normalised: bool = True
) -> Tensor:
    """-mean(count of the affine stage + count of the cascade), both on the first stage's correlation (thesis, 4.3)."""
    first = soft_inlier_count(correlation, feature_grid(affine), normalised=normalised)
    grid = composed_feature_grid(affine, tps, regularisation=regularisation)
    return -(first + soft_inlier_count(correlation, grid, normalised=normalised)).mean()
