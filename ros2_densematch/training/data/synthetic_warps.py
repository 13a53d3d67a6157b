"""Photos with a random affine, homography or thin-plate spline warp, as CNNGeometric was trained on.

Rocco, "Neighbourhood consensus networks for visual correspondence" (thesis), section 3.5.1; ranges and the padding of
the released code: the photo is resized to 480 x 640 and mirrored at its rim to twice the size; the source is the part
of 9/16 of the photo's size in the middle, the target the same part seen through the warp.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from ros2_densematch.arrays import Image
from ros2_densematch.matchers.common.parametric.network import INPUT_SIZE
from ros2_densematch.nn.transformations import identity, regular_grid, sample_image, transform_points
from ros2_densematch.training.data.photometric import PhotometricConfig, augment
from ros2_densematch.training.images import ImageStore, TrainingDataError

Transformation = Literal["affine", "homography", "tps"]
PARAMETERS: dict[Transformation, int] = {"affine": 6, "homography": 8, "tps": 18}

_HEIGHT, _WIDTH = 480, 640
_PADDING = 0.5
_CROP = 9 / 16
_ROTATION = math.pi / 12
_SHEAR = math.pi / 6
_SCALE = 0.25
_SHIFT = 0.25
_CONTROL_POINTS = 0.4
_MAX_SKIPS = 20


class SyntheticWarps(torch.utils.data.Dataset[dict[str, Tensor]]):
    """Sample i depends on the photos and (seed, i) alone.

    A sample holds `source` float32 (3, 240, 240) in [0, 1] and, for each transformation k, `target{k}` of the same
    shape and `theta{k}`, which maps target to source coordinates.
    """

    def __init__(
        self,
        photos: Sequence[Path],
        transformations: Sequence[Transformation],
        *,
        seed: int = 0,
        photometric: PhotometricConfig | None = None,
        length: int = 1 << 31,
    ) -> None:
        """
        Raises:
            ValueError: no photo.
        """
        self._photos = [p for p in photos if p.suffix.lower() in (".jpg", ".jpeg", ".png")]
        if not self._photos:
            raise ValueError("synthetic warps need photos: give a source of kind photos in the recipe's data")
        self._transformations, self._seed, self._length = list(transformations), seed, length
        self._photometric = photometric or PhotometricConfig(strength=0)
        self._store = ImageStore()

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        rng = np.random.default_rng((self._seed, index))
        image = _padded(self._photo(rng))
        result: dict[str, Tensor] = {}
        looks = identity(6)[None]
        for name, theta in [("source", looks), *self._targets(rng, result)]:
            crop = _cropped(image, theta)
            result[name] = _changed(crop, rng, self._photometric)
        return result

    def _targets(self, rng: np.random.Generator, result: dict[str, Tensor]) -> list[tuple[str, Tensor]]:
        named = []
        for number, kind in enumerate(self._transformations):
            theta = random_theta(kind, rng)
            result[f"theta{number}"] = theta
            named.append((f"target{number}", theta[None]))
        return named

    def _photo(self, rng: np.random.Generator) -> Image:
        for _ in range(_MAX_SKIPS):
            path = self._photos[int(rng.integers(len(self._photos)))]
            try:
                return self._store.get(path)
            except TrainingDataError as error:
                latest = error
        raise TrainingDataError(f"{_MAX_SKIPS} photos in a row could not be used, the latest cause: {latest}")


def random_theta(kind: Transformation, rng: np.random.Generator) -> Tensor:
    """Parameters of a random transformation, float32 (6,), (8,) or (18,)."""
    if kind != "affine":
        moved = rng.uniform(-_CONTROL_POINTS, _CONTROL_POINTS, PARAMETERS[kind]).astype(np.float32)
        return identity(PARAMETERS[kind]) + torch.from_numpy(moved)
    turn, shear = rng.uniform(-_ROTATION, _ROTATION), rng.uniform(-_SHEAR, _SHEAR)
    scales = 1 + rng.uniform(-_SCALE, _SCALE, 2)
    linear = _rotation(turn) @ _rotation(shear).T @ np.diag(scales) @ _rotation(shear)
    shift = rng.uniform(-_SHIFT, _SHIFT, 2)
    return torch.from_numpy(np.concatenate([linear, shift[:, None]], 1).ravel().astype(np.float32))


def _rotation(angle: float) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    c, s = math.cos(angle), math.sin(angle)
    return np.array([[c, -s], [s, c]])


def _padded(image: Image) -> Tensor:
    """A photo at the working size, mirrored at its rim to twice its size: (1, 3, 960, 1280) in [0, 255]."""
    resized = cv2.resize(image, (_WIDTH, _HEIGHT), interpolation=cv2.INTER_LINEAR)
    tensor = torch.from_numpy(np.ascontiguousarray(resized.transpose(2, 0, 1))).float()[None]
    y, x = int(_HEIGHT * _PADDING), int(_WIDTH * _PADDING)
    return functional.pad(tensor, (x, x, y, y), mode="reflect")


def _cropped(image: Tensor, theta: Tensor) -> Image:
    """The middle of a padded photo as the target sees it, uint8 (240, 240, 3)."""
    grid = transform_points(theta, regular_grid(INPUT_SIZE, INPUT_SIZE, like=image), guarded=False)
    pixels = sample_image(image, grid * (_CROP / (1 + 2 * _PADDING)))[0].permute(1, 2, 0)
    return np.asarray(pixels.round().clamp(0, 255).numpy(), np.uint8)


def _changed(crop: Image, rng: np.random.Generator, photometric: PhotometricConfig) -> Tensor:
    changed = augment(crop, rng, photometric)
    return torch.from_numpy(np.ascontiguousarray(changed.transpose(2, 0, 1))).float() / 255
