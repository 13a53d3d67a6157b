"""The working image: what a matcher computes on, and how its pixels belong to those of the original image."""

from __future__ import annotations

from typing import Any, NamedTuple

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ros2_densematch.arrays import Float64, Image, Mask


class WorkingImage(NamedTuple):
    """An image in RGB, perhaps made smaller.

    Attributes:
        rgb: uint8 (H, W, 3), memory of its own.
        allowed: bool (H, W), True where pixels may be matched, or None for everywhere.
        scale: (2,) working pixels per original pixel, x and y.
    """

    rgb: Image
    allowed: Mask | None
    scale: Float64


def working_image(image: Image, mask: Mask | None, max_pixels: int) -> WorkingImage:
    """The image in RGB and at most `max_pixels` large, and its mask."""
    height, width = image.shape[:2]
    return rescaled(image, mask, min(1.0, (max_pixels / (height * width)) ** 0.5))


def rescaled(image: Image, mask: Mask | None, factor: float) -> WorkingImage:
    """The image in RGB, averaged over areas where it is made smaller, and its mask.

    Args:
        image: uint8, RGB (H, W, 3) or grey (H, W).
        mask: bool (H, W), or None.
        factor: of both sides, in (0, 1]; neither side becomes smaller than 16 pixels.
    """
    rgb = to_rgb(image)
    height, width = rgb.shape[:2]
    if factor == 1.0:
        # a copy: it is read later, when the caller may have reused the memory
        return WorkingImage(np.array(rgb, order="C") if rgb is image else rgb, mask, np.ones(2))
    size = max(16, round(width * factor)), max(16, round(height * factor))
    smaller = np.asarray(cv2.resize(rgb, size, interpolation=cv2.INTER_AREA), np.uint8)
    if mask is not None:
        mask = np.asarray(cv2.resize(mask.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST)) > 0
    return WorkingImage(smaller, mask, np.array([size[0] / width, size[1] / height], np.float64))


def to_original(xy: NDArray[np.floating[Any]], scale: Float64) -> Float64:
    """Working pixels (N, 2) to pixels of the original image: pixel centres stay centres.

    Args:
        xy: (N, 2) working pixels.
        scale: (2,) working pixels per original pixel.
    """
    return np.asarray((xy + 0.5) / scale - 0.5, np.float64)


def to_rgb(image: Image) -> Image:
    """uint8 (H, W, 3) of RGB, which is given back as it is, or of grey."""
    return image if image.ndim == 3 else np.asarray(cv2.cvtColor(image, cv2.COLOR_GRAY2RGB), np.uint8)


def to_tensor(image: Image, device: torch.device) -> Tensor:
    """float (1, 3, H, W) in [0, 1] from RGB or grey."""
    # a copy: the caller may reuse the memory, and read-only arrays make PyTorch warn
    tensor = torch.from_numpy(np.array(to_rgb(image), order="C")).to(device).permute(2, 0, 1)[None]
    return tensor.to(memory_format=torch.contiguous_format).float() / 255


def is_blank(image: Image, mask: Mask | None) -> bool:
    """Whether all pixels that may be matched have one colour: then nothing in the image can be told apart."""
    pixels = image.reshape(image.shape[0] * image.shape[1], -1)
    if mask is not None:
        pixels = pixels[mask.ravel()]
    return len(pixels) == 0 or bool((pixels == pixels[0]).all())


def allowed_cells(mask: Mask | None, rows: int, columns: int, device: torch.device) -> Tensor | None:
    """Whether the pixel at the centre of every cell may be matched, bool (rows, columns), or None for everywhere."""
    if mask is None or mask.all():
        return None
    height, width = mask.shape
    y = np.floor((np.arange(rows) + 0.5) * height / rows).astype(np.intp)
    x = np.floor((np.arange(columns) + 0.5) * width / columns).astype(np.intp)
    return torch.from_numpy(mask[y[:, None], x[None]]).to(device)
