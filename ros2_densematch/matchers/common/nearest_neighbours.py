"""Exact mutual nearest neighbours of any number of descriptors, in blocks: memory stays bounded at any number."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

# Rows and columns of the similarity matrix that are held at once: 16 MiB of float32.
BLOCK_ROWS = 1024
BLOCK_COLUMNS = 4096
# What one call allocates at most beside its arguments and its result: the block, with a second one while it is searched
# (2 x 16 MiB), and for every descriptor of either set a best value, a second best value and an index.
BLOCK_BYTES = 2 * BLOCK_ROWS * BLOCK_COLUMNS * 4
BYTES_PER_DESCRIPTOR = 64


class MutualMatches(NamedTuple):
    """Pairs that are each other's nearest neighbour, in the order of the first set.

    Attributes:
        first: (N,) index into the first set.
        second: (N,) index into the second set.
        similarity: (N,) dot product.
    """

    first: Tensor
    second: Tensor
    similarity: Tensor


class DistinctMatches(NamedTuple):
    """Mutual matches with their lead over the next best.

    Attributes:
        first: (N,) index into the first set.
        second: (N,) index into the second set.
        similarity: (N,) dot product.
        margin: (N,) how much better the match is than the next best in its row and its column, the smaller of the two.
    """

    first: Tensor
    second: Tensor
    similarity: Tensor
    margin: Tensor


class Nearest(NamedTuple):
    """Nearest neighbours of both sets by dot product; equal ones are decided by the lower index.

    Attributes:
        row_best: (N0,) largest dot product of each descriptor of the first set.
        row_second: (N0,) the next largest; -inf where the second set has one member.
        row_index: (N0,) where the largest is.
        column_best: (N1,) likewise for the second set.
        column_second: (N1,)
        column_index: (N1,)
    """

    row_best: Tensor
    row_second: Tensor
    row_index: Tensor
    column_best: Tensor
    column_second: Tensor
    column_index: Tensor


def mutual_nearest_neighbours(a: Tensor, b: Tensor) -> MutualMatches:
    """Pairs (i, j) where b[j] is the nearest of a[i] and a[i] the nearest of b[j], by dot product.

    Args:
        a: (N0, C) float descriptors.
        b: (N1, C).
    """
    if len(a) == 0 or len(b) == 0:
        none = torch.zeros(0, dtype=torch.long, device=a.device)
        return MutualMatches(none, none, a.new_zeros(0))
    return mutual_of(nearest_neighbours(a, b, second_best=False))


def mutual_with_margin(a: Tensor, b: Tensor) -> DistinctMatches:
    """As `mutual_nearest_neighbours`, with the lead over the next best; nothing where a set has fewer than two members.

    Args:
        a: (N0, C) float descriptors.
        b: (N1, C).
    """
    if len(a) < 2 or len(b) < 2:
        none = torch.zeros(0, dtype=torch.long, device=a.device)
        return DistinctMatches(none, none, a.new_zeros(0), a.new_zeros(0))
    nearest = nearest_neighbours(a, b)
    first, second, similarity = mutual_of(nearest)
    margin = torch.minimum(
        similarity - nearest.row_second[first], nearest.column_best[second] - nearest.column_second[second]
    )
    return DistinctMatches(first, second, similarity, margin)


def mutual_of(nearest: Nearest) -> MutualMatches:
    """The pairs that agree in both directions."""
    first = torch.arange(len(nearest.row_index), device=nearest.row_index.device)
    mutual = nearest.column_index[nearest.row_index] == first
    return MutualMatches(first[mutual], nearest.row_index[mutual], nearest.row_best[mutual])


def nearest_neighbours(a: Tensor, b: Tensor, *, second_best: bool = True) -> Nearest:
    """Best and second best neighbour in both directions.

    Args:
        a: (N0, C) float descriptors, N0 at least 1.
        b: (N1, C), N1 at least 1.
        second_best: whether the second best are wanted; without, they are -inf and a third of the time is saved.
    """
    rows = _Best.nothing(len(a), a)
    columns = _Best.nothing(len(b), b)
    # one piece of memory for all blocks: a new block would be allocated while the last one is still held
    memory = a.new_empty(min(BLOCK_ROWS, len(a)) * min(BLOCK_COLUMNS, len(b)))
    for top in range(0, len(a), BLOCK_ROWS):
        part = a[top : top + BLOCK_ROWS]
        for left in range(0, len(b), BLOCK_COLUMNS):
            other = b[left : left + BLOCK_COLUMNS]
            block = memory[: len(part) * len(other)].view(len(part), len(other))
            torch.mm(part, other.T, out=block)
            rows.update(block, 1, slice(top, top + block.shape[0]), left, second_best)
            columns.update(block, 0, slice(left, left + block.shape[1]), top, second_best)
    return Nearest(rows.best, rows.second, rows.index, columns.best, columns.second, columns.index)


class _Best:
    """Running best and second best along one direction."""

    def __init__(self, best: Tensor, second: Tensor, index: Tensor) -> None:
        self.best, self.second, self.index = best, second, index

    @staticmethod
    def nothing(count: int, like: Tensor) -> _Best:
        none = like.new_full((count,), -torch.inf)
        return _Best(none, none.clone(), torch.zeros(count, dtype=torch.long, device=like.device))

    def update(self, block: Tensor, dim: int, part: slice, offset: int, second_best: bool) -> None:
        """Takes a block in; `part` are its members of this direction, `offset` where the other direction begins."""
        best, index = block.max(dim)
        old = self.best[part]
        better = best > old  # strictly: among equals the earlier block stays
        if second_best:
            where = index.unsqueeze(dim)
            block.scatter_(dim, where, -torch.inf)
            second = block.amax(dim)
            block.scatter_(dim, where, best.unsqueeze(dim))
            # the loser of the two best is the runner-up, unless the winner's own runner-up is better
            self.second[part] = torch.where(better, torch.maximum(old, second), torch.maximum(self.second[part], best))
        self.best[part] = torch.where(better, best, old)
        self.index[part] = torch.where(better, index + offset, self.index[part])
