"""Images as the matcher sees them, and the maps between their pixels and those of the stored file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from ros2_densematch.arrays import Float64
from ros2_densematch.evaluation.protocols import ImageRule


class MissingImageError(ValueError):
    """An image file is not there or cannot be decoded: its pairs count as missing."""


@dataclass(frozen=True, eq=False)
class Seeing:
    """How an image was changed before it was matched.

    Attributes:
        size: (width, height) of what the matcher saw.
        scale: seen pixels per original pixel along x and y, before the turn.
        turns: quarter turns counter-clockwise after the resize.
        half_pixel: rule by which pixel coordinates follow the resize, see `ImageRule`.
    """

    size: tuple[int, int]
    scale: tuple[float, float]
    turns: int
    half_pixel: bool

    def pixels(self, *, half_pixel: bool | None = None) -> Float64:
        """A (3, 3): seen pixel = A original pixel, homogeneous."""
        sx, sy = self.scale
        offset = 0.5 if (self.half_pixel if half_pixel is None else half_pixel) else 0.0
        A = np.array([[sx, 0, (sx - 1) * offset], [0, sy, (sy - 1) * offset], [0, 0, 1.0]])
        return np.asarray(self._turn() @ A, np.float64)

    def rotation(self) -> Float64:
        """R (3, 3): point in the seen camera's frame = R point in the original camera's frame."""
        quarter = np.array([[0.0, 1, 0], [-1, 0, 0], [0, 0, 1]])
        return np.asarray(np.linalg.matrix_power(quarter, self.turns), np.float64)

    def intrinsics(self, K: Float64) -> Float64:
        """K (3, 3) of the seen image."""
        return np.asarray(self.pixels() @ K @ self.rotation().T, np.float64)

    def _turn(self) -> Float64:
        width, height = self.size
        last = {0: (0, 0), 1: (0, height - 1), 2: (width - 1, height - 1), 3: (width - 1, 0)}[self.turns]
        turn = np.array(self.rotation(), np.float64)
        turn[:2, 2] = last
        return np.asarray(turn, np.float64)


def read_seen(path: Path, rule: ImageRule, turns: int = 0) -> tuple[NDArray[np.uint8], Seeing]:
    """An image as uint8 RGB under a rule, and how it was changed.

    One scale serves both axes unless the rule names an exact size, as in the published evaluations.

    Raises:
        MissingImageError: the file is missing or no image.
    """
    if not path.is_file():
        raise MissingImageError(f"there is no image {path}")
    try:
        image = cv2.imread(str(path), cv2.IMREAD_COLOR)
    except cv2.error as error:
        raise MissingImageError(f"{path} cannot be decoded ({error.err})") from error
    if image is None:
        raise MissingImageError(f"{path} cannot be decoded: it is damaged or no image")
    height, width = image.shape[:2]
    size, scale = (width, height), (1.0, 1.0)
    if rule.exact_size is not None:
        size = rule.exact_size
        scale = size[0] / width, size[1] / height
    elif rule.longer_side is not None:
        s = rule.longer_side / max(width, height)
        if s < 1 or rule.enlarge:
            size, scale = (round(width * s), round(height * s)), (s, s)
    if size != (width, height):
        image = cv2.resize(image, size, interpolation=cv2.INTER_AREA if rule.area else cv2.INTER_LINEAR)
    rgb = np.ascontiguousarray(np.rot90(image[..., ::-1], turns), np.uint8)
    return rgb, Seeing((rgb.shape[1], rgb.shape[0]), scale, turns % 4, rule.half_pixel)
