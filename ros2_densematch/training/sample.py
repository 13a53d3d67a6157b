"""The common training sample: two crops and exact correspondences, and what every source of pairs has to offer."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

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
class Pair:
    """Two crops of equal size and true correspondences between them.

    Attributes:
        image0, image1: uint8 RGB (S, S, 3), before any photometric change.
        points0, points1: float32 (N, 2), x y in pixels, (0, 0) = centre of the top-left pixel; visible in both.
    """

    image0: Image
    image1: Image
    points0: Points
    points1: Points


class PairSource(Protocol):
    """Draws pairs. What it draws depends on `rng` alone, so that training can be resumed to the bit."""

    name: str

    def draw(self, rng: np.random.Generator, size: int) -> Pair:
        """One pair of size x size crops. Raises TrainingDataError for a damaged file."""
        ...

    def files(self) -> list[Path]:
        """Every file that the source may read."""
        ...


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


def make_sample(pair: Pair, rng: np.random.Generator, max_points: int, photometric: PhotometricConfig) -> Sample:
    """The common sample of a pair.

    Returns:
        image0, image1 float32 (3, S, S) in [0, 1], photometrically changed; clean0, clean1 the same before the
        change; points0, points1 float32 (max_points, 2) pixels, padded with zeros; valid bool (max_points,).
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
    for side, image in (("0", pair.image0), ("1", pair.image1)):
        sample["clean" + side] = _to_tensor(image)
        sample["image" + side] = _to_tensor(augment(image, rng, photometric))
    return sample


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
