"""The dense warp: what the matches say about every pixel of the reference image."""

from __future__ import annotations

import cv2
import numpy as np

from ros2_densematch.arrays import Float64
from ros2_densematch.geometry.correspondences import DenseWarp
from ros2_densematch.matchers.common.local_affine import estimate_local_affine, nearest_matches
from ros2_densematch.matchers.gcm.encoding import CELL

# pixels over which the certainty of a match reaches into its surroundings (a Gaussian's standard deviation)
_REACH = 14.0
_VOTERS = 8


def cell_warp(
    reference_xy: Float64, query_xy: Float64, score: Float64, size: tuple[int, int]
) -> tuple[Float64, Float64]:
    """Query position and certainty at the centre of every 8 x 8 cell.

    Args:
        reference_xy: (N, 2) pixels of the accepted matches.
        query_xy: (N, 2) pixels.
        score: (N,) chance that each is right.
        size: (width, height) of the reference image.

    Returns:
        (rows, columns, 2) pixels and (rows, columns) in [0, 1].
    """
    columns, rows = -(-size[0] // CELL), -(-size[1] // CELL)
    centre = np.stack(np.meshgrid(np.arange(columns), np.arange(rows)), -1) * CELL + (CELL - 1) / 2
    if len(reference_xy) < _VOTERS:
        return centre.astype(np.float64), np.zeros((rows, columns))
    flat = centre.reshape(-1, 2).astype(np.float64)
    nearest = nearest_matches(reference_xy, _VOTERS, flat)
    local = estimate_local_affine(reference_xy, query_xy, at=flat, neighbours=nearest)
    # the certainty of a cell: the scores of the matches in reach, those that agree with the local map
    offset = reference_xy[nearest.index] - flat[:, None]
    error = query_xy[nearest.index] - local.predicted[:, None] - offset @ local.linear.transpose(0, 2, 1)
    agreement = np.exp(-0.5 * (error**2).sum(2) / 2.0**2)
    weight = np.exp(-0.5 * (nearest.distance / _REACH) ** 2)
    reached = 1.0 - np.exp(-1.5 * weight.sum(1))
    certainty = reached * (weight * agreement * score[nearest.index]).sum(1) / (weight.sum(1) + 1e-6)
    return local.predicted.reshape(rows, columns, 2), certainty.reshape(rows, columns)


def dense_warp(
    cells: Float64,
    certainty: Float64,
    working_size: tuple[int, int],
    reference_size: tuple[int, int],
    query_size: tuple[int, int],
    query_scale: Float64,
) -> DenseWarp:
    """Bilinear interpolation of the cells at every pixel of the original reference image.

    Args:
        cells: (rows, columns, 2) working query pixels at the cell centres.
        certainty: (rows, columns).
        working_size: (width, height) of the reference's working image.
        reference_size: (width, height) of the original reference image.
        query_size: (width, height) of the original query image.
        query_scale: (2,) working pixels per original pixel of the query.
    """
    width, height = reference_size
    # original pixel -> working pixel -> cell index, along each axis
    x = ((np.arange(width) + 0.5) * working_size[0] / width - 0.5 - (CELL - 1) / 2) / CELL
    y = ((np.arange(height) + 0.5) * working_size[1] / height - 0.5 - (CELL - 1) / 2) / CELL
    map_x, map_y = np.meshgrid(x.astype(np.float32), y.astype(np.float32))
    original = ((cells + 0.5) / query_scale - 0.5).astype(np.float32)
    layers = np.dstack([original, certainty.astype(np.float32)])
    full = np.asarray(cv2.remap(layers, map_x, map_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE), np.float32)
    xy = np.ascontiguousarray(full[..., :2])
    sure = np.ascontiguousarray(full[..., 2])
    return DenseWarp(xy, sure, reference_size, query_size)
