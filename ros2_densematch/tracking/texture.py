"""Whether an image shows anything that could be matched."""

from __future__ import annotations

import math

import cv2
import numpy as np
from numpy.typing import NDArray

_CELL = 32  # px
_FINE, _COARSE = 2.0, 6.0  # px: structure between these two scales counts, so that shading does not
_ABOVE_NOISE = 3.0  # times what noise alone leaves between the scales
# grey levels: rounding makes steps of smooth shading, and stronger "noise" may be texture of single pixels (asphalt)
_LEAST_NOISE, _MOST_NOISE = 0.7, 3.0
_LEAST_SHARE = 0.02  # of the cells: matches in fewer fix no pose
_NOISE_KERNEL = np.array([[1, -2, 1], [-2, 4, -2], [1, -2, 1]], dtype=np.float32)
_NOISE_GAIN = 6.0  # root of the sum of the squares of the kernel
_MEDIAN_OF_NORMAL = 0.6745  # median absolute value of a standard normal variable


def is_textureless(image: NDArray[np.uint8], mask: NDArray[np.bool_] | None = None) -> bool:
    """Whether no part of an image stands out from its noise: a blank wall, darkness, a covered lens.

    The noise is estimated from second differences in both directions, which a linear or quadratic brightness does not
    touch (Immerkaer, Fast noise variance estimation, CVIU 1996). Doubtful images count as textured.

    Args:
        image: RGB (H, W, 3) or grey (H, W).
        mask: (H, W), False where nothing counts.
    """
    grey = (cv2.cvtColor(image, cv2.COLOR_RGB2GRAY) if image.ndim == 3 else image).astype(np.float32)
    second = np.abs(cv2.filter2D(grey, -1, _NOISE_KERNEL))
    noise = float(np.median(second)) / _MEDIAN_OF_NORMAL / _NOISE_GAIN
    bound = _ABOVE_NOISE * _gain() * min(max(noise, _LEAST_NOISE), _MOST_NOISE)
    seen = np.ones_like(grey) if mask is None else mask.astype(np.float32)
    band = seen * (_blurred(grey, seen, _FINE) - _blurred(grey, seen, _COARSE))
    height, width = grey.shape
    cells = (max(width // _CELL, 1), max(height // _CELL, 1))
    power = cv2.resize(band * band, cells, interpolation=cv2.INTER_AREA)
    return bool(np.mean(power > bound**2) < _LEAST_SHARE)


def _blurred(grey: NDArray[np.float32], seen: NDArray[np.float32], sigma: float) -> NDArray[np.float32]:
    """Means (H, W) weighted by a Gaussian, over what is seen."""
    weight = cv2.GaussianBlur(seen, (0, 0), sigma)
    return np.asarray(cv2.GaussianBlur(grey * seen, (0, 0), sigma) / np.maximum(weight, 1e-6))


def _gain() -> float:
    """Standard deviation of white noise of standard deviation 1 between the two scales."""
    a, b = _FINE**2, _COARSE**2
    return math.sqrt((1.0 / (4.0 * a) + 1.0 / (4.0 * b) - 1.0 / (a + b)) / math.pi)
