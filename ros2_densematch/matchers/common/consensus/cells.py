"""Cells of feature maps: their images, where they lie in pixels, and matches between them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from ros2_densematch.arrays import Float64, Image
from ros2_densematch.matchers.common.working_image import to_tensor
from ros2_densematch.nn.resnet import imagenet_normalise


@dataclass(frozen=True)
class CellEncoding:
    """Features of one image.

    Attributes:
        features: (1, C, h, w), unit length, zero where masked.
        finer: (1, C, 2 h, 2 w) of twice the resolution, or None.
        allowed: bool (h, w) of `features`, False where masked; None for everywhere.
        blank: the image is of one colour: nothing in it can be told apart.
    """

    features: Tensor
    finer: Tensor | None
    allowed: Tensor | None
    blank: bool


class ConsensusMatches(NamedTuple):
    """N pairs of cells.

    Attributes:
        a: int64 (N, 2), row and column in A.
        b: int64 (N, 2), row and column in B.
        score: (N,).
    """

    a: Tensor
    b: Tensor
    score: Tensor


def rounded_size(size: tuple[int, int], longer_side: int, multiple: int) -> tuple[int, int]:
    """(height, width) of the working image: aspect kept, the longer side scaled up or down, sides rounded down.

    Args:
        size: (width, height) of the image.
        longer_side: pixels.
        multiple: of which both sides are multiples; each is at least that.
    """
    scale = longer_side / max(size)
    width, height = (max(1, int(side * scale / multiple)) * multiple for side in size)
    return height, width


def network_input(image: Image, size: tuple[int, int], device: torch.device) -> Tensor:
    """(1, 3, height, width), ImageNet-normalised; bilinear without antialiasing, edges of the image kept in place."""
    return imagenet_normalise(functional.interpolate(to_tensor(image, device), size, mode="bilinear"))


def both_directions(first: ConsensusMatches, second: ConsensusMatches) -> ConsensusMatches:
    """The union of two lists; of equal pairs the better-scored stays.

    Sorted by (A column, A row, B column, B row), as published.
    """
    a, b = torch.cat([first.a, second.a]), torch.cat([first.b, second.b])
    score = torch.cat([first.score, second.score])
    order = torch.argsort(score, descending=True, stable=True)
    columns = torch.stack([a[:, 1], a[:, 0], b[:, 1], b[:, 0]], 1)[order]
    unique, inverse = torch.unique(columns, dim=0, return_inverse=True)
    # the first occurrence in order of score: written last to first, so that it is what remains
    position = torch.arange(len(order), device=order.device)
    kept = position.new_full((len(unique),), len(order)).scatter_reduce(0, inverse, position, "amin")
    return ConsensusMatches(unique[:, [1, 0]], unique[:, [3, 2]], score[order][kept])


def edge_based(cells: Tensor, counts: tuple[int, int] | list[int]) -> Tensor:
    """Cells (N, 2) of (row, column) to (x, y) in [0, 1], float64: the image's EDGES are 0 and 1."""
    rows, columns = counts
    return torch.stack([(cells[:, 1].double() + 0.5) / columns, (cells[:, 0].double() + 0.5) / rows], 1)


def edge_to_pixels(position: Tensor, size: tuple[int, int]) -> Float64:
    """(x, y) in [0, 1] to pixels of an image of (width, height)."""
    # a cell's centre may lie half a pixel beyond the rim where the image was enlarged
    pixels: Float64 = position.cpu().numpy() * np.array(size) - 0.5
    return np.clip(pixels, -0.5, np.array(size) - 0.5)


def corner_pixels(cells: Tensor, counts: tuple[int, int] | list[int], size: tuple[int, int]) -> Float64:
    """Cells (N, 2) to pixels, the outer cells' centres on the centres of the image's outer pixels."""
    rows, columns = counts
    scale = np.array([(size[0] - 1) / max(1, columns - 1), (size[1] - 1) / max(1, rows - 1)])
    return np.asarray(cells.flip(1).cpu().numpy() * scale, np.float64)
