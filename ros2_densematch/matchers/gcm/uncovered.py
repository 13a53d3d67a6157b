"""Two pictures without what is printed over both of them: a HUD, a watermark, dirt on the lens, a robot body.

Where an overlay takes most matches, the scene between its strokes is there all the same, but descriptors and patches
see the strokes. Detail that is the same at the same place of both pictures is painted over with what surrounds it.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from ros2_densematch.arrays import Float32, Mask

_DETAIL = 4.0  # pixels: what varies more slowly is light
_WINDOW = 5
_ALIKE = 0.75  # 2 ab / (aa + bb) of two windows of detail
_CONTRAST = 6.0  # grey values, root mean square of a window
_RINGS = (2.0, 6.0, 20.0, 80.0)  # pixels: how far the surroundings are looked for


def covered(first: NDArray[np.uint8], second: NDArray[np.uint8]) -> Mask:
    """Where two grey pictures (H, W) hold the same detail at the same place, with a margin of a pixel, bool (H, W)."""
    a, b = (_detail(picture) for picture in (first, second))
    aa, bb = _mean(a * a), _mean(b * b)
    alike = (2.0 * _mean(a * b) > _ALIKE * (aa + bb)) & (np.minimum(aa, bb) > _CONTRAST**2)
    grown = cv2.dilate(alike.astype(np.uint8), np.ones((3, 3), np.uint8))
    return np.asarray(grown > 0, np.bool_)


def painted_over(picture: NDArray[np.uint8], hidden: Mask) -> NDArray[np.uint8]:
    """A picture (H, W, 3) whose hidden pixels have the mean colour of the nearest others."""
    values, weight = picture.astype(np.float32), (~hidden).astype(np.float32)
    out, missing = values.copy(), hidden.copy()
    for sigma in _RINGS:
        share = cv2.GaussianBlur(weight, (0, 0), sigma)
        near = cv2.GaussianBlur(values * weight[..., None], (0, 0), sigma)
        found = missing & (share > 0.05)
        out[found] = near[found] / share[found][:, None]
        missing &= ~found
    return np.asarray(np.clip(np.rint(out), 0, 255), np.uint8)


def _detail(picture: NDArray[np.uint8]) -> Float32:
    values = picture.astype(np.float32)
    return np.asarray(values - cv2.GaussianBlur(values, (0, 0), _DETAIL), np.float32)


def _mean(values: NDArray[Any]) -> Float32:
    return np.asarray(cv2.boxFilter(values, -1, (_WINDOW, _WINDOW)), np.float32)
