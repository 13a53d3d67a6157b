"""Colours of scores, the same in every viewer."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray


def score_colours(score: NDArray[np.float32]) -> NDArray[np.uint8]:
    """uint8 (N, 4) RGBA of scores (N,) in [0, 1]: viridis without its darkest quarter, as in our pictures."""
    level = np.clip(np.nan_to_num(64.0 + 191.0 * score), 0.0, 255.0).astype(np.uint8).reshape(-1, 1)
    if not len(level):
        return np.zeros((0, 4), np.uint8)
    rgb = np.asarray(cv2.applyColorMap(level, cv2.COLORMAP_VIRIDIS), np.uint8)[:, 0, ::-1]
    return np.concatenate([rgb, np.full((len(rgb), 1), 255, np.uint8)], 1)
