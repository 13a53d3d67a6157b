"""Images under a linear map, without aliasing, and where their pixels come from."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]
_AVERAGED = 0.4  # standard deviation of the averaging, over sqrt(squeeze^2 - 1)
_LEAST_SQUEEZE = 1.2  # less than that aliases hardly
_LARGEST_SQUEEZE = 16.0


def warped(
    image: NDArray[np.uint8], allowed: NDArray[np.bool_] | None, linear: FloatArray, multiple: int = 1
) -> tuple[NDArray[np.uint8], NDArray[np.bool_], FloatArray]:
    """The image under a linear map, on a canvas that holds all of it.

    Args:
        image: uint8 (H, W, 3).
        allowed: bool (H, W), or None for everywhere.
        linear: (2, 2), old to new pixel offsets. Shrinking is done first, over areas, so that nothing aliases.
        multiple: of what a turned or sheared image's sides are made multiples; what is added is masked.

    Returns:
        The image, the mask of its valid pixels, and the (2, 3) affine map from new to old pixels.
    """
    height, width = image.shape[:2]
    mask = np.ones((height, width), np.uint8) if allowed is None else allowed.astype(np.uint8)
    shrink = np.eye(3)
    scale = float(np.linalg.norm(linear, 2))
    if scale < 0.95:
        size = max(16, round(width * scale)), max(16, round(height * scale))
        image = np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)
        mask = np.asarray(cv2.resize(mask, size, interpolation=cv2.INTER_NEAREST), np.uint8)
        sx, sy = size[0] / width, size[1] / height
        shrink = np.array([[sx, 0, 0.5 * sx - 0.5], [0, sy, 0.5 * sy - 0.5], [0, 0, 1]])
        linear = linear / scale
        height, width = image.shape[:2]
    image = _averaged_along(image, linear)
    rest = np.eye(3)
    if not np.allclose(linear, np.eye(2)):
        corners = np.array([[0, 0], [width - 1, 0], [width - 1, height - 1], [0, height - 1]]) @ linear.T
        low, high = corners.min(0), corners.max(0)
        new = [-(-(int(v) + 1) // multiple) * multiple for v in np.ceil(high - low)]
        rest[:2, :2], rest[:2, 2] = linear, -low
        image = np.asarray(
            cv2.warpAffine(image, rest[:2], new, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE), np.uint8
        )
        mask = np.asarray(cv2.warpAffine(mask, rest[:2], new, flags=cv2.INTER_NEAREST), np.uint8)
        mask = np.asarray(cv2.erode(mask, np.ones((9, 9), np.uint8)), np.uint8)
    return image, mask > 0, np.asarray(np.linalg.inv(rest @ shrink)[:2], np.float64)


def _averaged_along(image: NDArray[np.uint8], linear: FloatArray) -> NDArray[np.uint8]:
    """The image averaged in the direction in which a map squeezes it, so that nothing aliases when it is resampled.

    A Gaussian; of t pixels that fall into one, a box would have a standard deviation of 0.29 sqrt(t^2 - 1).
    """
    _, (larger, smaller), directions = np.linalg.svd(linear)
    squeeze = min(larger / max(smaller, 1e-6), _LARGEST_SQUEEZE)
    if squeeze < _LEAST_SQUEEZE:
        return image
    sigma = _AVERAGED * np.sqrt(squeeze**2 - 1)
    reach = int(np.ceil(2.5 * sigma))
    offset = np.mgrid[-reach : reach + 1, -reach : reach + 1][::-1]
    along = directions[1, 0] * offset[0] + directions[1, 1] * offset[1]
    across = directions[0, 0] * offset[0] + directions[0, 1] * offset[1]
    kernel = np.exp(-0.5 * (along / sigma) ** 2 - 0.5 * (across / 0.3) ** 2)
    return np.asarray(cv2.filter2D(image, -1, kernel / kernel.sum(), borderType=cv2.BORDER_REPLICATE), np.uint8)
