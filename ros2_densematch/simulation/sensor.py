"""What a real camera adds to a rendered image: vignetting, exposure drift and noise."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from ros2_densematch.arrays import Image


@dataclass(frozen=True)
class Sensor:
    """An imaging sensor, deterministic in `seed` and frame index.

    Attributes:
        noise: standard deviation of the noise of each pixel and channel, in grey values.
        vignetting: share of the light that is lost in the corners, in [0, 1).
        exposure_drift: largest relative change of the exposure over a sequence, in [0, 1).
        exposure_period: frames after which the exposure has drifted once up and down.
        seed: source of the noise.
    """

    noise: float = 2.0
    vignetting: float = 0.15
    exposure_drift: float = 0.06
    exposure_period: float = 170.0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.noise < 0:
            raise ValueError(f"noise must be at least 0 grey values, got {self.noise}")
        for name in ("vignetting", "exposure_drift"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} must lie in [0, 1), got {getattr(self, name)}")

    def expose(self, image: Image, index: int) -> Image:
        """The rendered image as frame `index` of this sensor.

        Args:
            image: uint8 (H, W, 3).
            index: position in the sequence, from 0.
        """
        height, width = image.shape[:2]
        gain = 1.0 + self.exposure_drift * float(np.sin(2 * np.pi * index / self.exposure_period))
        lens = np.repeat(_lens(height, width, self.vignetting)[..., None], 3, axis=2)
        exposed = cv2.multiply(image, lens, scale=gain / 255.0)
        if self.noise > 0:
            bank = _noise_bank(height, width, self.noise, self.seed)
            # The noise of a frame is a window of one large field: as good as new, without drawing a million numbers.
            top, left = np.random.default_rng([self.seed, index]).integers(0, _BANK_MARGIN, 2)
            window = np.ascontiguousarray(bank[top : top + height, left : left + width])
            exposed = cv2.add(exposed, window, dtype=cv2.CV_8U)
        return np.asarray(exposed, np.uint8)


_BANK_MARGIN = 160
_cache: dict[tuple[object, ...], NDArray[np.generic]] = {}


def _noise_bank(height: int, width: int, noise: float, seed: int) -> NDArray[np.generic]:
    key = ("noise", height, width, noise, seed)
    if key not in _cache:
        shape = (height + _BANK_MARGIN, width + _BANK_MARGIN, 3)
        field = np.random.default_rng(seed).standard_normal(shape, np.float32) * np.float32(noise)
        _cache[key] = np.clip(np.rint(field), -127, 127).astype(np.int16)
    return _cache[key]


def _lens(height: int, width: int, vignetting: float) -> NDArray[np.generic]:
    key = ("lens", height, width, vignetting)
    if key not in _cache:
        y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
        _cache[key] = np.rint(255 * (1 - vignetting * (x**2 + y**2) / 2)).astype(np.uint8)
    return _cache[key]
