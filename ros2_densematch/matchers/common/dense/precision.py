"""The inverse covariance of each match, from the dense warp around it.

A warp is locally affine. What the cells around a match say beyond an affine map is taken as the noise of the
prediction; a low certainty makes it larger. This is an estimate that ranks matches, not a calibrated model.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ros2_densematch.arrays import Float64
from ros2_densematch.nn.grid import sample_features

# the window: 5 x 5 cells, two cells apart
_REACH, _STEP = 2, 2
# cells of the warp: what the regression leaves even where the warp is perfectly smooth
_FLOOR = 0.5
_LEAST_CERTAINTY = 0.05
# of carried precisions: share of the other axis, and px^-2
_LEAST_ROUNDNESS, _LEAST_PRECISION = 1e-4, 1e-8


@cache
def _design() -> tuple[Float64, Float64, NDArray[np.intp]]:
    """Design matrix (25, 3) of an affine map, its pseudo-inverse (3, 25), and the offsets (25, 2) in cells (x, y)."""
    steps = np.arange(-_REACH, _REACH + 1) * _STEP
    offsets = np.stack(np.meshgrid(steps, steps), -1).reshape(-1, 2)
    design = np.column_stack([np.ones(len(offsets)), offsets]).astype(np.float64)
    return design, np.linalg.pinv(design).astype(np.float64), offsets.astype(np.intp)


def warp_precision(
    warp_xy: NDArray[np.float32], certainty: NDArray[np.float32], index: NDArray[np.intp], other_size: tuple[int, int]
) -> tuple[Float64, Float64]:
    """Precision of the predicted positions, and the local affine map.

    Args:
        warp_xy: (H, W, 2), pixels of the other image.
        certainty: (H, W) in [0, 1].
        index: (N,) flat indices of the matches in the H x W grid.
        other_size: (width, height) of the other image.

    Returns:
        (N, 2, 2) inverse covariance in px^-2 of the other image, and (N, 2, 2) its pixels per cell of the warp.
    """
    height, width = certainty.shape
    design, inverse, offsets = _design()
    reach = _REACH * _STEP
    row, column = np.divmod(index, width)
    # at the border the window moves inside; grids smaller than a window repeat their border
    row, column = row.clip(reach, max(reach, height - 1 - reach)), column.clip(reach, max(reach, width - 1 - reach))
    rows = (row[:, None] + offsets[:, 1]).clip(0, height - 1)
    columns = (column[:, None] + offsets[:, 0]).clip(0, width - 1)
    window = warp_xy[rows, columns].astype(np.float64)
    affine = np.einsum("kw,nwc->nck", inverse, window)
    residual = window - np.einsum("wk,nck->nwc", design, affine)
    covariance = np.einsum("nwc,nwd->ncd", residual, residual) / (len(offsets) - design.shape[1])
    floor = _FLOOR * np.array([other_size[0] / width, other_size[1] / height])
    covariance += np.diag(floor**2)
    sure = np.maximum(certainty.reshape(-1)[index].astype(np.float64), _LEAST_CERTAINTY)
    return np.linalg.inv(covariance) * sure[:, None, None], affine[:, :, 1:]


def predicted_precision(precision: Tensor, index: Tensor, other_size: tuple[int, int]) -> Float64:
    """The precision that a network predicts, in pixels of the original image.

    Args:
        precision: float32 (H, W, 3) = xx, xy, yy of the flow's target, where a cell of the map is 1 long along
            each axis.
        index: int64 (N,), flat indices of cells.
        other_size: (width, height) of the original image that the flow leads into.

    Returns:
        (N, 2, 2) inverse covariance in px^-2.
    """
    height, width = precision.shape[:2]
    return _in_pixels(precision.reshape(-1, 3)[index], (width, height), other_size)


def precision_at(precision: Tensor, position: Tensor, other_size: tuple[int, int]) -> Float64:
    """Likewise between the cells, bilinear: at normalised positions (N, 2) of the map; beyond its rim, the rim's."""
    height, width = precision.shape[:2]
    rim = 1 - 1 / torch.tensor([width, height])
    at = torch.minimum(torch.maximum(position, -rim), rim)
    values = sample_features(precision.permute(2, 0, 1)[None], at.T[None, :, None])[0, :, 0].T
    return _in_pixels(values, (width, height), other_size)


def _in_pixels(values: Tensor, map_size: tuple[int, int], size: tuple[int, int]) -> Float64:
    """(N, 3) per cell -> (N, 2, 2) per pixel: P r r^T with r = cells per pixel along each axis."""
    xx, xy, yy = values.double().numpy().T
    matrix = np.stack([np.stack([xx, xy], 1), np.stack([xy, yy], 1)], 1)
    ratio = np.array(map_size) / np.array(size)
    return np.asarray(_positive_definite(matrix * np.outer(ratio, ratio)), np.float64)


def carried_precision(precision: Float64, linear: Float64) -> Float64:
    """The precision of a position p when that of q = q0 + L p is known: L^T P L, (N, 2, 2)."""
    carried = np.einsum("nki,nkl,nlj->nij", linear, precision, linear)
    return _positive_definite(carried, _LEAST_ROUNDNESS)


def _positive_definite(precision: Float64, roundness: float = 1e-6) -> Float64:
    """With a little along every axis: a collapsed warp, or a network, may say nothing along some axis."""
    least = roundness * np.trace(precision, axis1=1, axis2=2) + _LEAST_PRECISION
    return np.asarray(precision + least[:, None, None] * np.eye(2), np.float64)


def upper_triangle(precision: Float64) -> NDArray[np.float32]:
    """(N, 2, 2) -> float32 (N, 3): xx, xy, yy."""
    return np.stack([precision[:, 0, 0], precision[:, 0, 1], precision[:, 1, 1]], 1).astype(np.float32)
