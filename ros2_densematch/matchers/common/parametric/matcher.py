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

from ros2_densematch.geometry.correspondences import Correspondences, DenseWarp
from ros2_densematch.matchers.base import Encoding, Image, Mask, Matcher
from ros2_densematch.matchers.common.parametric.network import INPUT_SIZE, Alignment, AlignmentNetwork
from ros2_densematch.matchers.common.working_image import allowed_cells, is_blank, to_tensor
from ros2_densematch.nn.batch_norm import fold_batch_norms
from ros2_densematch.nn.device import choose_device, to_channels_last
from ros2_densematch.nn.geometric_regression import CELLS
from ros2_densematch.nn.resnet import imagenet_normalise
from ros2_densematch.nn.soft_inliers import OFFSET_FACTOR, inlier_mask
from ros2_densematch.nn.transformations import chain_points, kind_of, regular_grid, resize

FloatArray = NDArray[np.float64]

# preset -> passes of the first stage
PRESETS = {"base": 1, "refined": 5}
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


class ParametricMatcher(Matcher):
    """A network that regresses a transformation, behind the matcher's contract."""

    def __init__(self, network: AlignmentNetwork, *, device: str, iterations: int) -> None:
        """
        Args:
            network: with its weights.
            device: "auto", "cpu", "cuda" or "cuda:N".
            iterations: passes of the first stage.

        Raises:
            ValueError: unknown device.
        """
        self.device = choose_device(device)
        self._iterations = iterations
        self._network = network.eval().requires_grad_(False)
        fold_batch_norms(self._network)
        self._network.to(self.device)
        to_channels_last(self._network)

    @torch.inference_mode()
    def _encode(self, image: Image, *, reference: bool, mask: Mask | None) -> ParametricEncoding:
        picture = imagenet_normalise(resize(to_tensor(image, self.device), INPUT_SIZE, INPUT_SIZE))
        allowed = allowed_cells(mask, INPUT_SIZE, INPUT_SIZE, self.device)
        if allowed is not None:
            picture = picture * allowed
        picture = picture.contiguous(memory_format=torch.channels_last)
        return ParametricEncoding(picture, self._network.features(picture), is_blank(image, mask))

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
        return self._network.align(query.image, query.features, reference.features, iterations=self._iterations)

    @torch.inference_mode()
    def _match(self, reference: Encoding, query: Encoding, *, max_matches: int | None, seed: int) -> Correspondences:
        if reference.data.blank or query.data.blank:
            return Correspondences.empty(reference.size, query.size)
        alignment = self._align(reference.data, query.data)
        certainty = above_chance(local_inliers(alignment))
        warp = self._warp(alignment, certainty, reference, query, WARP_STEP)
        # at the places of a coarser grid the transformation is as exact as anywhere
        at = self._warp(alignment, certainty, reference, query, MATCH_STEP)
        positions = grid_pixels(reference.size, MATCH_STEP).reshape(-1, 2).astype(np.float32)
        score = at.certainty.ravel()
        order = np.argsort(-score, kind="stable")
        order = order[score[order] > 0]
        if max_matches is not None:
            order = order[:max_matches]
        return Correspondences(
            positions[order],
            at.xy.reshape(-1, 2)[order],
            score[order],
            self._overlap(warp, reference),
            reference.size,
            query.size,
            None,
            warp,
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
        values = sure.cpu().numpy().astype(np.float32)
        inside = (xy >= -0.5).all(2) & (xy <= np.array(query.size, np.float32) - np.float32(0.5)).all(2)
        seen = inside.ravel() & reference.allows(pixels.reshape(-1, 2))
        seen[seen] &= query.allows(xy.reshape(-1, 2)[seen])
        values[~seen.reshape(values.shape)] = 0.0
        return DenseWarp(xy, values, reference.size, query.size)

    def _overlap(self, warp: DenseWarp, reference: Encoding) -> float:
        """Mean certainty of the reference pixels that may be matched."""
        allowed = reference.allows(grid_pixels(reference.size, WARP_STEP).reshape(-1, 2))
        chosen = warp.certainty.ravel()[allowed]
        return float(chosen.mean(dtype=np.float64)) if len(chosen) else 0.0


def grid_pixels(size: tuple[int, int], step: int) -> FloatArray:
    """(rows, columns, 2) pixels of a regular subsampling of an image, laid out as `DenseWarp` says."""
    columns, rows = (math.ceil(side / step) for side in size)
    x = (np.arange(columns) + 0.5) * size[0] / columns - 0.5
    y = (np.arange(rows) + 0.5) * size[1] / rows - 0.5
    return np.stack(np.meshgrid(x, y), -1)


def normalise(pixels: FloatArray, size: tuple[int, int]) -> FloatArray:
    """Pixels to coordinates in which the centres of the outer pixels lie at -1 and +1."""
    return np.asarray(pixels * 2.0 / (np.array(size) - 1.0) - 1.0, np.float64)


def pixels_of(points: FloatArray, size: tuple[int, int]) -> FloatArray:
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
