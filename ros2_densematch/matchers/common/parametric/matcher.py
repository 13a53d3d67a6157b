"""What the matchers with a parametric transformation share: encoding, estimate, dense warp and correspondences.

The reference is the papers' target and the query their source: a transformation maps target points to source points,
and a warp says where every reference pixel lies in the query image.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from ros2_densematch.arrays import Float64, Image, Mask
from ros2_densematch.geometry.correspondences import DenseWarp
from ros2_densematch.matchers.base import Encoding, RawMatches
from ros2_densematch.matchers.common.parametric.config import ParametricConfig
from ros2_densematch.matchers.common.parametric.network import INPUT_SIZE, Alignment, AlignmentNetwork
from ros2_densematch.matchers.common.working_image import allowed_cells, is_blank, to_tensor
from ros2_densematch.matchers.network import NetworkMatcher
from ros2_densematch.nn.geometric_regression import CELLS
from ros2_densematch.nn.resnet import imagenet_normalise
from ros2_densematch.nn.soft_inliers import OFFSET_FACTOR, inlier_mask
from ros2_densematch.nn.transformations import chain_points, kind_of, regular_grid, resize

WARP_STEP = 4  # pixels between the entries of the dense warp
MATCH_STEP = 8  # pixels between matches
# far outside, where a homography's denominator vanishes
_FAR = 1e4


@dataclass(frozen=True)
class ParametricEncoding:
    """What is kept of one image.

    Attributes:
        image: (1, 3, 240, 240), ImageNet-normalised; masked pixels are zero, the mean colour.
        features: (1, C, 15, 15), unit length.
        blank: the image is of one colour: nothing in it can be told apart.
    """

    image: Tensor
    features: Tensor
    blank: bool


@dataclass(frozen=True)
class Estimate:
    """The transformation between two images.

    Attributes:
        kinds: "affine", "homography" or "tps" of each pass, in the order in which they ran.
        thetas: float32 (P,) parameters of each pass (see `nn/transformations.py`); a reference point goes through the
            last one first.
        soft_inliers: the soft inlier count of the whole chain, not normalised: 0 to 225, about 15 by chance.
    """

    kinds: tuple[str, ...]
    thetas: tuple[NDArray[np.float32], ...]
    soft_inliers: float


class ParametricMatcher(NetworkMatcher):
    """A network that regresses a transformation, behind the matcher's contract."""

    config: ParametricConfig
    network: AlignmentNetwork

    @torch.inference_mode()
    def _encode(self, image: Image, *, reference: bool, mask: Mask | None) -> ParametricEncoding:
        picture = imagenet_normalise(resize(to_tensor(image, self.device), INPUT_SIZE, INPUT_SIZE))
        allowed = allowed_cells(mask, INPUT_SIZE, INPUT_SIZE, self.device)
        if allowed is not None:
            picture = picture * allowed
        picture = picture.contiguous(memory_format=torch.channels_last)
        return ParametricEncoding(picture, self.network.features(picture), is_blank(image, mask))

    @torch.inference_mode()
    def estimate(self, reference: Encoding, query: Encoding) -> Estimate:
        """The transformation from the reference to the query image and its soft inlier count."""
        alignment = self._align(reference.data, query.data)
        return Estimate(
            tuple(kind_of(theta.shape[1]) for theta in alignment.thetas),
            tuple(theta[0].cpu().numpy().astype(np.float32) for theta in alignment.thetas),
            float(local_inliers(alignment).sum()),
        )

    def _align(self, reference: ParametricEncoding, query: ParametricEncoding) -> Alignment:
        return self.network.align(query.image, query.features, reference.features, iterations=self.config.iterations)

    @torch.inference_mode()
    def _match(self, reference: Encoding, query: Encoding, *, max_matches: int | None, seed: int) -> RawMatches:
        if reference.data.blank or query.data.blank:
            return RawMatches.none()
        alignment = self._align(reference.data, query.data)
        certainty = above_chance(local_inliers(alignment))
        # at the places of a coarser grid the transformation is as exact as anywhere
        at = self._warp(alignment, certainty, reference, query, MATCH_STEP)
        score = at.certainty.ravel()
        believed = score > 0
        return RawMatches(
            at.positions().reshape(-1, 2)[believed],
            at.xy.reshape(-1, 2)[believed],
            score[believed],
            make_warp=lambda _: self._warp(alignment, certainty, reference, query, WARP_STEP),
        )

    def _warp(
        self, alignment: Alignment, certainty: Tensor, reference: Encoding, query: Encoding, step: int
    ) -> DenseWarp:
        """Query positions of a regular grid of reference pixels, with their certainty."""
        pixels = grid_pixels(reference.size, step)
        points = torch.from_numpy(normalise(pixels, reference.size).astype(np.float32)).to(self.device)[None]
        moved = torch.nan_to_num(chain_points(alignment.thetas, points), _FAR, _FAR, -_FAR).clamp(-_FAR, _FAR)
        xy = pixels_of(moved[0].double().cpu().numpy(), query.size).astype(np.float32)
        sure = functional.grid_sample(
            certainty[:, None], points * OFFSET_FACTOR, padding_mode="border", align_corners=True
        )[0, 0].clamp(0, 1)
        return DenseWarp(xy, sure.cpu().numpy().astype(np.float32), reference.size, query.size)


def grid_pixels(size: tuple[int, int], step: int) -> Float64:
    """(rows, columns, 2) pixels of a regular subsampling of an image, laid out as `DenseWarp` says."""
    columns, rows = (math.ceil(side / step) for side in size)
    x = (np.arange(columns) + 0.5) * size[0] / columns - 0.5
    y = (np.arange(rows) + 0.5) * size[1] / rows - 0.5
    return np.stack(np.meshgrid(x, y), -1)


def normalise(pixels: Float64, size: tuple[int, int]) -> Float64:
    """Pixels to coordinates in which the centres of the outer pixels lie at -1 and +1."""
    return np.asarray(pixels * 2.0 / (np.array(size) - 1.0) - 1.0, np.float64)


def pixels_of(points: Float64, size: tuple[int, int]) -> Float64:
    """The inverse of `normalise`."""
    return np.asarray((points + 1.0) * (np.array(size) - 1.0) / 2.0, np.float64)


def local_inliers(alignment: Alignment) -> Tensor:
    """The terms of the soft inlier count, cell by cell of the reference: (B, 15, 15) in [0, 1].

    How similar a cell is to the place of the query to which the chain of transformations leads, among all places of the
    query. Equal similarity to all 225 cells gives 1/15.
    """
    like = alignment.correlation
    cells = regular_grid(CELLS, CELLS, like=like) / OFFSET_FACTOR
    grid = chain_points(alignment.thetas, cells) * OFFSET_FACTOR
    grid = torch.nan_to_num(grid, _FAR, _FAR, -_FAR).clamp(-_FAR, _FAR)
    return (inlier_mask(grid) * alignment.correlation).sum(1)


def above_chance(inliers: Tensor) -> Tensor:
    """Local inliers rescaled so that a cell that is alike to everything gets 0 and one that is alike to one place 1."""
    return ((CELLS * inliers - 1.0) / (CELLS - 1.0)).clamp(0.0, 1.0)
