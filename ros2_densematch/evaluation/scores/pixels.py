"""Affine maps between the pixels of stored and seen images."""

from __future__ import annotations

import numpy as np

from ros2_densematch.arrays import Float64


def map_affine(A: Float64, xy: Float64) -> Float64:
    """Points (N, 2) under A (3, 3) with last row 0 0 1."""
    return np.asarray(xy @ A[:2, :2].T + A[:2, 2], np.float64)


def inverse(A: Float64) -> Float64:
    """Inverse of a map between pixels (3, 3)."""
    return np.asarray(np.linalg.inv(A), np.float64)
