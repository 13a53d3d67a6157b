"""Two-stage relocalisation: the best cell of twice the resolution, then a place between cells.

Thesis of Rocco, section 6.3.3. Positions are (row, column).
"""

from __future__ import annotations

import torch
from torch import Tensor

SHARPNESS = 10.0  # of the softmax of the soft stage
_BLOCK_BYTES = 64 << 20


def relocalise_hard(a: Tensor, b: Tensor, cells_a: Tensor, cells_b: Tensor) -> tuple[Tensor, Tensor]:
    """The best of the 2 x 2 finer cells on either side, thesis eq. 6.8 and 6.9.

    Either side takes the cell whose best product with the other side's four is largest, independently.

    Args:
        a: (C, 2 hA, 2 wA), unit features of the source at twice the resolution.
        b: (C, 2 hB, 2 wB), of the target.
        cells_a: int64 (N, 2), in the coarse grid.
        cells_b: int64 (N, 2).

    Returns:
        int64 (N, 2) twice, in the finer grids.
    """
    offsets = _square(0, 2, a)
    found_a, found_b = [], []
    for first, second in _blocks(a, 2 * 4, cells_a * 2, cells_b * 2):
        products = _crops(a, first, offsets) @ _crops(b, second, offsets).transpose(1, 2)
        found_a.append(first + offsets[products.amax(2).argmax(1)])
        found_b.append(second + offsets[products.amax(1).argmax(1)])
    return torch.cat(found_a), torch.cat(found_b)


def relocalise_soft(a: Tensor, b: Tensor, cells_a: Tensor, cells_b: Tensor) -> tuple[Tensor, Tensor]:
    """Expected place among the 3 x 3 cells around a match, given the other side's centre; thesis eq. 6.10.

    Arguments as of `relocalise_hard`, cells in the finer grids.

    Returns:
        Positions (N, 2) twice, in the features' type, in cells of the finer grids.
    """
    offsets = _square(-1, 2, a)
    found_a, found_b = [], []
    for first, second in _blocks(a, 2 * 9, cells_a, cells_b):
        crop_a, crop_b = _crops(a, first, offsets), _crops(b, second, offsets)
        centre_a, centre_b = crop_a[:, 4:5], crop_b[:, 4:5]
        weight_a = (SHARPNESS * (crop_a * centre_b).sum(2)).softmax(1)
        weight_b = (SHARPNESS * (crop_b * centre_a).sum(2)).softmax(1)
        found_a.append(first + weight_a @ offsets.to(a.dtype))
        found_b.append(second + weight_b @ offsets.to(b.dtype))
    return torch.cat(found_a), torch.cat(found_b)


def _square(start: int, stop: int, like: Tensor) -> Tensor:
    """int64 (M, 2): all (row, column) offsets of a square."""
    axis = torch.arange(start, stop, device=like.device)
    return torch.cartesian_prod(axis, axis)


def _crops(features: Tensor, cells: Tensor, offsets: Tensor) -> Tensor:
    """Features (N, M, C) at cells (N, 2) plus offsets (M, 2); zero outside."""
    height, width = features.shape[1:]
    row, column = (cells[:, None] + offsets).unbind(2)
    inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
    # features with channels last, as the encoder leaves them, are read row by row
    values = features.permute(1, 2, 0)[row.clamp(0, height - 1), column.clamp(0, width - 1)]
    return values * inside[..., None]


def _blocks(features: Tensor, crops: int, first: Tensor, second: Tensor) -> list[tuple[Tensor, Tensor]]:
    """Lists of cells cut so that the crops of one block stay small; one block at least."""
    size = max(1, _BLOCK_BYTES // (crops * features.shape[0] * features.element_size()))
    return list(zip(torch.split(first, size), torch.split(second, size), strict=True))
