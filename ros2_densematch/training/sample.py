"""The common training sample, and what every source of pairs has to offer.

A sample is a dictionary of tensors; S is the crop size, N the recipe's `max_points`:

- `image0`, `image1`  float32 (3, S, S) RGB in [0, 1], photometrically changed; `clean0`, `clean1` before the change.
- `points0`, `points1`  float32 (N, 2) true correspondences, x y in pixels, padded with zeros; `valid` bool (N,).
- `group`  int64: what the pair shows. Pairs of different groups are taken to show different things (photos, photo
  sets, scenes, classes), so the second image of another group is a negative; within a group images may match.

With `dense: true` in the recipe's data also the dense truth, from image 0 to image 1:

- `warp`  float32 (S, S, 2): for each pixel [y, x] of image 0 the x y of the same place in image 1, in pixels; NaN where
  it is not known, and possibly outside image 1. `normalised_warp` turns it into the [-1, 1] of grid_sample.
- `warp_valid`  bool (S, S): known, inside image 1, and visible there (not occluded).
- `warp_known`  bool (S, S): whether the above could be decided at all: False where depth is missing. A certainty is
  trained on `warp_valid` where `warp_known`; DKM and RoMa as published take unknown for not visible.

Pixels: (0, 0) is the centre of the top-left pixel.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from ros2_densematch.training.photometric import Image, PhotometricConfig, augment

Points = NDArray[np.float32]
Sample = dict[str, torch.Tensor]


class TrainingDataError(ValueError):
    """A file of the training data cannot be used; the message names the file and the remedy."""


@dataclass(frozen=True)
class DenseTruth:
    """Where each pixel of image 0 lies in image 1.

    Attributes:
        warp: float32 (S, S, 2), x y in pixels of image 1; NaN where not known, may lie outside.
        valid: bool (S, S), known, inside image 1 and visible there.
        known: bool (S, S), whether visibility could be decided.
    """

    warp: NDArray[np.float32]
    valid: NDArray[np.bool_]
    known: NDArray[np.bool_]


@dataclass(frozen=True)
class Pair:
    """Two crops of equal size and true correspondences between them.

    Attributes:
        image0, image1: uint8 RGB (S, S, 3), before any photometric change.
        points0, points1: float32 (N, 2), x y in pixels, (0, 0) = centre of the top-left pixel; visible in both. None
            of them where only the pair as a whole is known to match.
        dense: makes the dense truth, or None where the source has none (point tracks, image pairs alone).
        group: what the pair shows, see the module; -1 is replaced by a number of its own.
    """

    image0: Image
    image1: Image
    points0: Points
    points1: Points
    dense: Callable[[], DenseTruth] | None = None
    group: int = -1


@dataclass(frozen=True)
class Part:
    """Which part of a source is drawn from.

    Attributes:
        share: of the material that is held out for validation, in [0, 0.5]; 0 holds nothing out.
        held_out: draw from what is held out, otherwise from the rest.
    """

    share: float = 0.0
    held_out: bool = False


_Item = TypeVar("_Item")


def part_of(items: Sequence[_Item], part: Part) -> list[_Item]:
    """The items of a part: of every round(1 / share) items the middle one is held out."""
    if part.share <= 0:
        return [] if part.held_out else list(items)
    step = max(2, round(1 / part.share))
    return [item for k, item in enumerate(items) if (k % step == step // 2) == part.held_out]


class PairSource(Protocol):
    """Draws pairs. What it draws depends on `rng` alone, so that training can be resumed to the bit."""

    name: str

    @property
    def has_dense(self) -> bool:
        """Whether its pairs have dense truth."""
        ...

    def __len__(self) -> int:
        """How much there is to draw from; 0 = nothing."""
        ...

    def draw(self, rng: np.random.Generator, size: int) -> Pair:
        """One pair of size x size crops. Raises TrainingDataError for a damaged file."""
        ...

    def files(self) -> list[Path]:
        """Every file that the source may read."""
        ...


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


def read_image(path: Path) -> Image:
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
            image = self._images[path] = read_image(path)
        return image


def make_sample(
    pair: Pair,
    rng: np.random.Generator,
    max_points: int,
    photometric: PhotometricConfig,
    *,
    dense: bool = False,
    group: int = 0,
) -> Sample:
    """The common sample of a pair, with the keys that the module's head lists.

    Args:
        pair: crops and points.
        rng: for the choice of points and the photometric change.
        max_points: length of the padded lists of points.
        photometric: how the images are changed.
        dense: add the dense truth.
        group: for a pair that names no group; the negative of it, less one, is used, so that it is nobody else's.

    Raises:
        ValueError: dense truth is wanted of a pair that has none.
    """
    count = len(pair.points0)
    if count > max_points:
        chosen = rng.permutation(count)[:max_points]
    else:
        chosen = np.arange(count)
    sample: Sample = {}
    for key, points in (("points0", pair.points0), ("points1", pair.points1)):
        padded = torch.zeros(max_points, 2)
        padded[: len(chosen)] = torch.from_numpy(points[chosen].astype(np.float32, copy=False))
        sample[key] = padded
    valid = torch.zeros(max_points, dtype=torch.bool)
    valid[: len(chosen)] = True
    sample["valid"] = valid
    sample["group"] = torch.tensor(pair.group if pair.group >= 0 else -group - 1)
    for side, image in (("0", pair.image0), ("1", pair.image1)):
        sample["clean" + side] = _to_tensor(image)
        sample["image" + side] = _to_tensor(augment(image, rng, photometric))
    if dense:
        if pair.dense is None:
            raise ValueError("dense truth is wanted of a pair that has none: take another source of pairs")
        truth = pair.dense()
        sample["warp"] = torch.from_numpy(truth.warp)
        sample["warp_valid"] = torch.from_numpy(truth.valid)
        sample["warp_known"] = torch.from_numpy(truth.known)
    return sample


def normalised_warp(warp: torch.Tensor, width: int, height: int) -> torch.Tensor:
    """Pixels (..., 2) of a width x height image as coordinates in [-1, 1] between its outer edges.

    That is grid_sample's convention with align_corners=False: -1 is the left edge of the first pixel, half a pixel
    left of its centre.
    """
    scale = warp.new_tensor([2 / width, 2 / height])
    return (warp + 0.5) * scale - 1


def _to_tensor(image: Image) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1))).float().mul_(1 / 255)


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
