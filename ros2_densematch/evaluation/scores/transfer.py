"""Carries points of the reference into the query: by the dense warp where there is one, else by the nearest matches."""

from __future__ import annotations

import cv2
import numpy as np
from scipy.spatial import cKDTree

from ros2_densematch.arrays import Float64
from ros2_densematch.evaluation.predictions.store import Prediction

NEAREST = 4
RULE = "points follow the dense warp, or the displacement of the four nearest matches weighted by inverse distance"


def transfer(prediction: Prediction, xy: Float64) -> Float64:
    """Where points (N, 2) of the seen reference lie in the seen query, (N, 2); NaN where nothing tells."""
    if prediction.warp_xy is not None:
        return warp_at(prediction, xy)
    n = len(prediction.score)
    if not n or not len(xy):
        return np.full(xy.shape, np.nan)
    from_xy = prediction.reference_xy.astype(np.float64)
    moved = prediction.query_xy.astype(np.float64) - from_xy
    found = cKDTree(from_xy).query(xy, k=min(NEAREST, n))
    distance, index = (np.asarray(value).reshape(len(xy), -1) for value in found)
    weight = 1.0 / np.maximum(distance, 1e-6)
    weight /= weight.sum(1, keepdims=True)
    return np.asarray(xy + (weight[..., None] * moved[index]).sum(1), np.float64)


def warp_at(prediction: Prediction, xy: Float64) -> Float64:
    """The dense warp, interpolated at points (N, 2) of the seen reference."""
    assert prediction.warp_xy is not None
    height, width = prediction.warp_xy.shape[:2]
    seen_width, seen_height = prediction.seeing[0].size
    grid = ((xy + 0.5) * (width / seen_width, height / seen_height) - 0.5).astype(np.float32)
    if not len(grid):
        return np.zeros((0, 2))
    # remap takes less than 32768 columns: points go into rows
    columns = 1024
    padded = np.concatenate([grid, np.zeros((-len(grid) % columns, 2), np.float32)]).reshape(-1, columns, 2)
    found = cv2.remap(prediction.warp_xy, padded, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)  # type: ignore[call-overload]
    return np.asarray(found.reshape(-1, 2)[: len(grid)], np.float64)
