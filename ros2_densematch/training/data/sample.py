"""The common training sample, and the pair that it is made of.

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
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from ros2_densematch.arrays import Image
from ros2_densematch.training.data.photometric import PhotometricConfig, augment

Points = NDArray[np.float32]
Sample = dict[str, torch.Tensor]


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
