"""Image files of the training material, and the error for a file that cannot be used."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from ros2_densematch.arrays import Image


class TrainingDataError(ValueError):
    """A file of the training data cannot be used; the message names the file and the remedy."""


def read_training_image(path: Path) -> Image:
    """An image file as uint8 RGB (H, W, 3). Raises TrainingDataError when it cannot be read or decoded."""
    try:
        data = np.frombuffer(path.read_bytes(), np.uint8)
    except OSError as error:
        raise TrainingDataError(f"cannot read training image {path}: {error.strerror}: restore the file") from error
    image = cv2.imdecode(data, cv2.IMREAD_COLOR) if data.size else None
    if image is None:
        raise TrainingDataError(f"training image {path} is damaged or not an image: restore or delete it")
    return np.ascontiguousarray(image[..., ::-1], dtype=np.uint8)


class ImageStore:
    """Decoded images, kept in memory after the first reading (the open training photos need about 700 MB)."""

    def __init__(self) -> None:
        self._images: dict[Path, Image] = {}

    def get(self, path: Path) -> Image:
        image = self._images.get(path)
        if image is None:
            image = self._images[path] = read_training_image(path)
        return image


read_image = read_training_image  # earlier name, kept for one version
