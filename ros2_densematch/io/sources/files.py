"""Files beside the frames: images, masks and calibrations that the user names."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ros2_densematch.geometry.camera import Camera
from ros2_densematch.io.sources.options import SourceOptions
from ros2_densematch.messages.image import ImageDecodeError, decode_image_bytes


def load_mask(path: Path) -> NDArray[np.bool_]:
    """Bool (H, W), True where the image file is brighter than 127 of 255.

    Raises:
        ValueError: the file is no image.
    """
    image = read_image(path)
    return np.asarray(image.max(axis=2) > 127 if image.ndim == 3 else image > 127)


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
