"""Two crops of one image related by a random homography, with exact points and dense truth."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from ros2_densematch.arrays import Image
from ros2_densematch.training.data.crops import apply_homography, dense_from_homography, inside, similarity, warp_crop
from ros2_densematch.training.data.sample import Pair

MIN_POINTS = 150
CANDIDATES = 2400


class HomographyConfig(BaseModel):
    """The range of homographies between the two crops."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    rotation_deg: float = Field(
        40.0,
        ge=0,
        le=180,
        description="The crops are turned against each other by at most this many degrees in the usual case.",
    )
    any_rotation: float = Field(0.12, ge=0, le=1, description="This share of the pairs is turned by any angle.")
    scale: float = Field(
        2.0, ge=1, description="The scale of the crops differs by at most this factor, in both directions."
    )
    perspective: float = Field(
        0.22, ge=0, le=0.45, description="A corner is shifted by at most this share of the crop."
    )
    shift: float = Field(
        0.25, ge=0, le=0.6, description="The crops are shifted against each other by at most this share of the crop."
    )


def homography_pair(
    image: Image, rng: np.random.Generator, size: int, config: HomographyConfig, group: int = -1
) -> Pair:
    """Two size x size crops of an image related by a random homography, with exact points and dense truth."""
    height, width = image.shape[:2]
    strength = 1.0
    while True:
        crop0, crop1 = _maps(rng, size, width, height, strength, config)
        points0, points1 = _exact_points(rng, crop0, crop1, size, width, height)
        if len(points0) >= MIN_POINTS or strength < 0.05:
            break
        strength *= 0.7  # a narrow photo leaves little overlap for a wild warp
    border = cv2.BORDER_REFLECT_101 if rng.random() < 0.7 else cv2.BORDER_CONSTANT
    return Pair(
        warp_crop(image, crop0, size, border),
        warp_crop(image, crop1, size, border),
        points0,
        points1,
        lambda: dense_from_homography(crop0, crop1, size, width, height),
        group,
    )


def _maps(
    rng: np.random.Generator, size: int, width: int, height: int, strength: float, config: HomographyConfig
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The maps from photo to crop pixels, (3, 3) each."""
    centre = (size - 1) / 2
    fit = size / min(width, height)
    # Between the whole photo and a part of it; a small photo is enlarged at most as far as its shorter side fits.
    base = fit * float(np.exp(rng.uniform(np.log(0.9), np.log(max(1.0, 1.3 / fit)))))
    room = np.maximum(np.array([width, height]) - size / base, 0) / 2
    middle = np.array([width - 1, height - 1]) / 2
    anchor = middle + rng.uniform(-1, 1, 2) * room
    tilt = float(rng.normal(0, np.radians(5)))
    if rng.random() < config.any_rotation:
        turn = float(rng.uniform(-np.pi, np.pi))
    else:
        turn = np.radians(config.rotation_deg) * strength * float(rng.uniform(-1, 1))
    zoom = config.scale ** (strength * float(rng.uniform(-1, 1)))
    offset = rng.uniform(-1, 1, 2) * config.shift * strength * size / base
    # The change of scale is shared out, so that neither crop is always the blurred or always the sharp one.
    crop0 = similarity(base * zoom**-0.5, tilt, anchor - offset / 2, centre)
    crop1 = similarity(base * zoom**0.5, tilt + turn, anchor + offset / 2, centre)
    crop1 = _perspective(rng, size, config.perspective * strength) @ crop1
    if rng.random() < 0.25:
        crop0 = _perspective(rng, size, 0.5 * config.perspective * strength) @ crop0
    return (crop0, crop1) if rng.random() < 0.5 else (crop1, crop0)


def _perspective(rng: np.random.Generator, size: int, amount: float) -> NDArray[np.float64]:
    corners = np.array([[0, 0], [size - 1, 0], [size - 1, size - 1], [0, size - 1]], np.float32)
    moved = corners + rng.uniform(-amount, amount, (4, 2)).astype(np.float32) * size
    return np.asarray(cv2.getPerspectiveTransform(corners, moved.astype(np.float32)), np.float64)


def _exact_points(
    rng: np.random.Generator,
    crop0: NDArray[np.float64],
    crop1: NDArray[np.float64],
    size: int,
    width: int,
    height: int,
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    points0 = rng.uniform(0, size - 1, (CANDIDATES, 2))
    photo = apply_homography(np.asarray(np.linalg.inv(crop0), np.float64), points0)
    points1 = apply_homography(crop1, photo)
    keep = inside(photo, width, height) & inside(points1, size, size)
    return points0[keep].astype(np.float32), points1[keep].astype(np.float32)
