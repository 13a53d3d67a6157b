"""Coarse matches: mutual nearest neighbours of deep descriptors, in blocks so that memory stays bounded."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

# rows of the similarity matrix held at once: 1024 x 4096 floats are 16 MiB
_BLOCK = 1024


class MutualMatches(NamedTuple):
    """Mutual nearest neighbours.

    Attributes:
        first: (N,) index into the first set.
        second: (N,) index into the second set.
        similarity: (N,) cosine.
        margin: (N,) how much better the match is than the next best in its row and its column, the smaller of the two.
    """

    first: Tensor
    second: Tensor
    similarity: Tensor
    margin: Tensor


def mutual_nearest_neighbours(a: Tensor, b: Tensor) -> MutualMatches:
    """Pairs that are each other's nearest neighbour.

    Args:
        a: (N0, C) unit descriptors.
        b: (N1, C) unit descriptors.
    """
    if len(a) < 2 or len(b) < 2:
        none = torch.zeros(0, dtype=torch.long, device=a.device)
        return MutualMatches(none, none, a.new_zeros(0), a.new_zeros(0))
    row_best, row_second, row_index = [], [], []
    column = a.new_full((3, len(b)), -2.0)  # best, second best, index of the best
    for start in range(0, len(a), _BLOCK):
        similarity = a[start : start + _BLOCK] @ b.T
        best, index = similarity.max(1)
        second = _without(similarity, 1, index, best)
        row_best.append(best)
        row_second.append(second)
        row_index.append(index)
        block_best, block_index = similarity.max(0)
        block_second = _without(similarity, 0, block_index, block_best)
        better = block_best > column[0]
        column[1] = torch.where(better, torch.maximum(column[0], block_second), torch.maximum(column[1], block_best))
        column[2] = torch.where(better, (block_index + start).to(column.dtype), column[2])
        column[0] = torch.where(better, block_best, column[0])
    best, second, index = torch.cat(row_best), torch.cat(row_second), torch.cat(row_index)
    first = torch.arange(len(a), device=a.device)
    mutual = column[2][index].long() == first
    first, index = first[mutual], index[mutual]
    margin = torch.minimum(best[mutual] - second[mutual], column[0][index] - column[1][index])
    return MutualMatches(first, index, best[mutual], margin)


def _without(similarity: Tensor, dim: int, index: Tensor, best: Tensor) -> Tensor:
    """The largest entry along a dimension when the best is left out; the matrix is restored."""
    index = index.unsqueeze(dim)
    similarity.scatter_(dim, index, -2.0)
    second = similarity.amax(dim)
    similarity.scatter_(dim, index, best.unsqueeze(dim))
    return second
