"""What guidance needs of an image: grey levels of a small pyramid, and where a patch may lie."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from functools import cached_property

import cv2
import numpy as np
from numpy.typing import NDArray

from ros2_densematch.arrays import Float64

LEVELS = 3


@dataclass
class GuideImage:
    """Grey levels of one working image, halved `LEVELS` - 1 times; further levels and masks are made when first used.

    Attributes:
        grey: uint8 (H, W).
        allowed: bool (H, W), or None for everywhere.
    """

    grey: NDArray[np.uint8]
    allowed: NDArray[np.bool_] | None
    _pyramid: list[NDArray[np.float32]] = field(default_factory=list)
    _free: dict[int, NDArray[np.bool_]] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @cached_property
    def half(self) -> NDArray[np.uint8]:
        """uint8 (H >> 1, W >> 1), level 1 for optical flow."""
        height, width = self.grey.shape[0] // 2 * 2, self.grey.shape[1] // 2 * 2
        size = width // 2, height // 2
        return np.asarray(cv2.resize(self.grey[:height, :width], size, interpolation=cv2.INTER_AREA), np.uint8)

    @cached_property
    def brightness(self) -> tuple[float, float]:
        """Mean and standard deviation of the grey levels."""
        mean, deviation = cv2.meanStdDev(self.half)
        return float(mean[0, 0]), float(deviation[0, 0])

    @property
    def size(self) -> tuple[int, int]:
        """(width, height)."""
        return self.grey.shape[1], self.grey.shape[0]

    def level(self, index: int) -> NDArray[np.float32]:
        """float32 (H >> index, W >> index) in 0..255; pixel x of level n covers 2^n pixels, from 2^n x on."""
        with self._lock:
            while len(self._pyramid) <= index:
                if self._pyramid:
                    finer = self._pyramid[-1]
                    height, width = finer.shape[0] // 2 * 2, finer.shape[1] // 2 * 2
                    halved = cv2.resize(finer[:height, :width], (width // 2, height // 2), interpolation=cv2.INTER_AREA)
                    self._pyramid.append(np.asarray(halved, np.float32))
                else:
                    self._pyramid.append(self.grey.astype(np.float32))
            return self._pyramid[index]

    def admits(self, xy: Float64, radius: int) -> NDArray[np.bool_]:
        """Whether a window of (2 radius + 1)^2 pixels about each position (N, 2) lies in the image and touches no
        masked pixel, bool (N,)."""
        width, height = self.size
        x, y = np.rint(xy).astype(np.intp).T
        inside = (x >= radius) & (y >= radius) & (x < width - radius) & (y < height - radius)
        if self.allowed is None:
            return np.asarray(inside)
        with self._lock:
            if radius not in self._free:
                window = np.ones((2 * radius + 1, 2 * radius + 1), np.uint8)
                self._free[radius] = np.asarray(cv2.erode(self.allowed.astype(np.uint8), window)) > 0
            free = self._free[radius]
        return np.asarray(inside & free[y.clip(0, height - 1), x.clip(0, width - 1)], np.bool_)
