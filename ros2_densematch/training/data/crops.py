"""The geometry of crops: maps from image to crop pixels, crops without aliasing, where points fall."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from ros2_densematch.arrays import Image
from ros2_densematch.training.data.sample import DenseTruth


def pixel_grid(size: int) -> NDArray[np.float64]:
    """The x y of every pixel of a size x size crop, row by row: (size * size, 2)."""
    y, x = np.mgrid[:size, :size]
    return np.stack([x.ravel(), y.ravel()], 1).astype(np.float64)


def dense_from_homography(
    crop0: NDArray[np.float64], crop1: NDArray[np.float64], size: int, width: int, height: int
) -> DenseTruth:
    """The dense truth between two crops of one width x height image, given the maps from image to crop pixels.

    What lies beyond the image's border in crop 0 is fill: it is not visible in crop 1.
    """
    grid = pixel_grid(size)
    image = apply_homography(np.asarray(np.linalg.inv(crop0), np.float64), grid)
    warp = apply_homography(crop1, image)
    real = inside(image, width, height)
    valid = real & inside(warp, size, size)
    shown = np.where(np.isfinite(warp).all(1, keepdims=True), warp, np.nan).astype(np.float32)
    return DenseTruth(shown.reshape(size, size, 2), valid.reshape(size, size), np.ones((size, size), np.bool_))


def apply_homography(h: NDArray[np.float64], points: NDArray[np.floating]) -> NDArray[np.float64]:
    """Points (N, 2) under a 3x3 homography; infinite where the third coordinate is not positive."""
    mapped = np.asarray(points, np.float64) @ h[:, :2].T + h[:, 2]
    w = mapped[:, 2:]
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(w > 1e-9, mapped[:, :2] / w, np.inf)


def inside(points: NDArray[np.floating], width: float, height: float, margin: float = 0.0) -> NDArray[np.bool_]:
    """Which points (N, 2) lie on the pixel grid, at least `margin` pixels from its outermost pixel centres."""
    x, y = points[:, 0], points[:, 1]
    result: NDArray[np.bool_] = (x >= margin) & (y >= margin) & (x <= width - 1 - margin) & (y <= height - 1 - margin)
    return result


def warp_crop(
    image: Image, crop_from_image: NDArray[np.float64], size: int, border: int = cv2.BORDER_REFLECT_101
) -> Image:
    """A size x size crop under a 3x3 map from image to crop pixels, without aliasing where the map makes it smaller.

    The local scale at the crop's centre decides how much the image is smoothed first.
    """
    centre = (size - 1) / 2
    inverse: NDArray[np.float64] = np.asarray(np.linalg.inv(crop_from_image), np.float64)
    step = apply_homography(inverse, np.array([[centre, centre], [centre + 1, centre], [centre, centre + 1]]))
    jacobian: NDArray[np.float64] = np.stack([step[1] - step[0], step[2] - step[0]], 1)
    shrink = float(np.sqrt(abs(np.linalg.det(jacobian))))
    if shrink > 1.15:
        # A Gaussian of half the (squared) excess of the sampling step keeps the crop as sharp as a camera's.
        image = cv2.GaussianBlur(image, (0, 0), 0.5 * float(np.sqrt(shrink**2 - 1))).astype(np.uint8, copy=False)
    return cv2.warpPerspective(image, crop_from_image, (size, size), flags=cv2.INTER_LINEAR, borderMode=border).astype(
        np.uint8, copy=False
    )


def similarity(scale: float, angle: float, source: NDArray[np.floating], target: float) -> NDArray[np.float64]:
    """The 3x3 map that scales and turns (radians) and sends `source` (x, y) to (target, target)."""
    c, s = scale * np.cos(angle), scale * np.sin(angle)
    x, y = float(source[0]), float(source[1])
    return np.array([[c, -s, target - c * x + s * y], [s, c, target - s * x - c * y], [0, 0, 1]], np.float64)


def kept_inside(
    centre: NDArray[np.floating], size: int, scale: float, angle: float, width: int, height: int
) -> NDArray[np.float64]:
    """The place nearest to `centre` about which a turned, scaled crop stays inside an image, as far as it fits.

    Args:
        centre: wanted image pixel (x, y) of the crop's centre.
        size: of the crop, pixels.
        scale: crop pixels per image pixel.
        angle: of the crop, radians.
        width, height: of the image.
    """
    half = (abs(np.cos(angle)) + abs(np.sin(angle))) * size / scale / 2
    limit = np.array([width - 1, height - 1], np.float64)
    return np.clip(centre, np.minimum(half, limit / 2), np.maximum(limit - half, limit / 2))
