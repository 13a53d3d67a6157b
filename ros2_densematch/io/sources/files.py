"""Files beside the frames: images, masks and calibrations that the user names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from ros2_densematch.geometry.camera import Camera
from ros2_densematch.io.sources.options import SourceOptions
from ros2_densematch.messages.image import ImageDecodeError, decode_image_bytes

_AS_STORED = cv2.IMREAD_GRAYSCALE | cv2.IMREAD_ANYDEPTH | cv2.IMREAD_IGNORE_ORIENTATION


def load_mask(path: Path) -> NDArray[np.bool_]:
    """Bool (H, W), True where the image file is brighter than half of its range (127 of 255), in any channel; in a file
    without such a pixel, as one with the labels 0 and 1, where it is not 0.

    Raises:
        ValueError: the file is no image, or 0 everywhere.
    """
    image = read_image(path)
    if image.ndim == 2:  # of 16 bits, the values as they are stored: a picture's are normalised
        deep = cv2.imdecode(np.frombuffer(path.read_bytes(), np.uint8), _AS_STORED)
        if deep is not None and deep.dtype == np.uint16 and deep.shape == image.shape:
            return _allowed(np.asarray(deep), path)
    return _allowed(image.max(axis=2) if image.ndim == 3 else image, path)


def _allowed(values: NDArray[Any], path: Path) -> NDArray[np.bool_]:
    bright = values > np.iinfo(values.dtype).max // 2
    allowed = bright if bright.any() else values > 0
    if not allowed.any():
        raise ValueError(f"the mask {path} is entirely black: paint the usable area white")
    return np.asarray(allowed, np.bool_)


def read_image(path: Path) -> NDArray[np.uint8]:
    """An image file as uint8 RGB (H, W, 3) or grey (H, W), decoded as messages are.

    Raises:
        ImageDecodeError: the file cannot be read or is no image.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ImageDecodeError(
            str(path), f"it cannot be read ({error.strerror})", "check the path", file=True
        ) from None
    return decode_image_bytes(data, str(path))


def load_camera(path: Path | None, options: SourceOptions) -> Camera | None:
    """The camera of a YAML file that the user named, or None."""
    return None if path is None else Camera.from_yaml(path, rectified=options.rectified)
