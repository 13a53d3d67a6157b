"""The precision of a match whose patches were aligned: the inverse covariance of its place in the query image.

Gauss-Newton's normal matrix over the variance of what it leaves. Two patches of unit variance and correlation r differ
by a variance of 2 (1 - r), and about twenty samples of their weighted window are independent.
"""

from __future__ import annotations

import numpy as np
from torch import Tensor

from ros2_densematch.arrays import Float64

# pixels that interpolation and the model leave even where the patches agree perfectly
FLOOR_PX = 0.05
_INDEPENDENT = 20.0
_LEAST_DISSIMILARITY = 0.005


def patch_information(normal: Tensor, correlation: Tensor) -> Tensor:
    """Inverse covariance (N, 3) = xx, xy, yy of aligned places, per working pixel^2, without the floor.

    Args:
        normal: (N, 3) upper triangle of the normalised Gauss-Newton matrix, as `patch_alignment.refine` gives it.
        correlation: (N,) of the aligned patches.
    """
    residual = 2.0 * (1.0 - correlation).clamp(_LEAST_DISSIMILARITY, 1.0)
    return normal * (_INDEPENDENT / residual)[:, None]


def original_precision(information: Float64, scale: Float64) -> Float64:
    """Precision (N, 3) = xx, xy, yy in px^-2 of the original query image, no better than `FLOOR_PX` working pixels.

    Args:
        information: (N, 3) inverse covariance in working pixels^-2.
        scale: (2,) working pixels of the query per original pixel.
    """
    a, b, c = information.T
    # covariance + floor^2, then its inverse, in closed form
    determinant = np.maximum(a * c - b * b, 1e-9)
    xx, xy, yy = c / determinant + FLOOR_PX**2, -b / determinant, a / determinant + FLOOR_PX**2
    inverse = 1.0 / np.maximum(xx * yy - xy * xy, 1e-12)
    sx, sy = scale
    return np.stack([yy * inverse * sx * sx, -xy * inverse * sx * sy, xx * inverse * sy * sy], axis=1)
