"""What a matcher keeps of one image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ros2_densematch.arrays import Image, Mask


@dataclass(frozen=True)
class Encoding:
    """What a matcher keeps of one image.

    Attributes:
        matcher: name of the matcher that made it; encodings of different matchers do not mix.
        size: (width, height) of the original image in pixels.
        data: the matcher's own content (features, key points, a conditioned Gaussian process, ...).
        mask: bool (H, W), True where pixels may be matched, or None for everywhere.
        thumbnail: uint8 (h, w), a small grey version of the image, or None.
    """

    matcher: str
    size: tuple[int, int]
    data: Any
    mask: Mask | None = None
    thumbnail: Image | None = None

    def allows(self, xy: NDArray[np.floating[Any]]) -> Mask:
        """Whether the pixel at each of (N, 2) positions of the original image may be matched, bool (N,)."""
        if self.mask is None:
            return np.ones(len(xy), np.bool_)
        width, height = self.size
        # in the type of the final coordinates, which may round to the next pixel
        x, y = np.floor(xy.astype(np.float32) + np.float32(0.5)).astype(np.intp).T
        return np.asarray(self.mask[y.clip(0, height - 1), x.clip(0, width - 1)], np.bool_)
