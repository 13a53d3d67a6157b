"""Distances of matches from true epipolar lines: purity and its pixels."""

from __future__ import annotations

import numpy as np

from ros2_densematch.arrays import Float64
from ros2_densematch.geometry import poses


def epipolar_errors(rays0: Float64, rays1: Float64, T_query_from_reference: Float64, focal: float) -> Float64:
    """Mean of the distances of both points from their epipolar lines under the true pose, in pixels, (N,).

    Args:
        rays0, rays1: (N, 2) points on the plane z = 1.
        T_query_from_reference: (4, 4), with a translation.
        focal: pixels per unit of that plane.
    """
    T = T_query_from_reference
    E = poses.skew(T[:3, 3] / np.linalg.norm(T[:3, 3])) @ T[:3, :3]
    return np.asarray(focal * symmetric_distance(E, rays0, rays1), np.float64)


def symmetric_distance(F: Float64, xy0: Float64, xy1: Float64) -> Float64:
    """Mean of the distances (N,) of both points from their epipolar lines under x1^T F x0 = 0.

    Hartley and Zisserman, "Multiple view geometry", 2004, section 11.4.3.
    """
    a, b = np.c_[xy0, np.ones(len(xy0))], np.c_[xy1, np.ones(len(xy1))]
    line1, line0 = a @ F.T, b @ F
    residual = np.abs((b * line1).sum(1))
    length1, length0 = (np.maximum(np.hypot(line[:, 0], line[:, 1]), 1e-12) for line in (line1, line0))
    return np.asarray(residual * (1 / length1 + 1 / length0) / 2, np.float64)
