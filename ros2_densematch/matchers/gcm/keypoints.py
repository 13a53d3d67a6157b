"""Key points of the saliency map, and one anchor in every cell of the image."""

from __future__ import annotations

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

CELL = 8
_BORDER = 4


def detect(saliency: Tensor, allowed: Tensor | None, *, count: int, threshold: float, radius: int = 2) -> Tensor:
    """Local maxima of a saliency map.

    Args:
        saliency: (H, W) logits.
        allowed: bool (H, W), or None for everywhere.
        count: at most this many, the most salient ones.
        threshold: least logit.
        radius: a maximum must be the largest in a (2 radius + 1)^2 window.

    Returns:
        (N, 2) float pixels, most salient first.
    """
    chosen = (saliency == _largest_around(saliency, radius)) & (saliency > threshold)
    if allowed is not None:
        chosen &= allowed
    chosen[:_BORDER] = False
    chosen[-_BORDER:] = False
    chosen[:, :_BORDER] = False
    chosen[:, -_BORDER:] = False
    y, x = torch.nonzero(chosen, as_tuple=True)
    order = saliency[y, x].argsort(descending=True, stable=True)[:count]
    return torch.stack([x[order], y[order]], 1).to(saliency.dtype)


def _largest_around(saliency: Tensor, radius: int) -> Tensor:
    """(H, W): the largest value of the (2 radius + 1)^2 window around every pixel."""
    if saliency.device.type == "cpu":
        # the same maximum as the pooling below, at a hundredth of its time
        window = np.ones((2 * radius + 1, 2 * radius + 1), np.uint8)
        return torch.from_numpy(np.asarray(cv2.dilate(saliency.contiguous().numpy(), window), np.float32))
    return functional.max_pool2d(saliency[None, None], 2 * radius + 1, 1, radius)[0, 0]


def cell_anchors(grey: NDArray[np.float32], allowed: NDArray[np.bool_] | None) -> NDArray[np.float32]:
    """The pixel of every 8 x 8 cell that can be aligned best: the largest least eigenvalue of the structure tensor.

    Args:
        grey: float32 (H, W).
        allowed: bool (H, W), or None for everywhere.

    Returns:
        (rows, columns, 2) pixels; NaN where the mask leaves no pixel of the cell. Cells at the right and lower rim that
        the image fills in part are among them.
    """
    height, width = grey.shape
    rows, columns = -(-height // CELL), -(-width // CELL)
    strength = np.full((rows * CELL, columns * CELL), -1.0, np.float32)
    strength[:height, :width] = cv2.cornerMinEigenVal(grey, 5)
    if allowed is not None:
        strength[:height, :width][~allowed] = -1.0
    cells = strength.reshape(rows, CELL, columns, CELL).swapaxes(1, 2).reshape(rows, columns, CELL * CELL)
    best = cells.argmax(2)
    y, x = np.divmod(best, CELL)
    anchors = np.stack([x + CELL * np.arange(columns), y + CELL * np.arange(rows)[:, None]], 2).astype(np.float32)
    anchors[np.take_along_axis(cells, best[..., None], 2)[..., 0] < 0] = np.nan
    return anchors
