"""Matches of pyramid cells: mutual nearest neighbours on the coarsest map, then from every cell to its four children.

DFM (Efe, Ince, Alatan, "DFM: a performance baseline for deep feature matching", CVPR workshops 2021, section 3) and GCM
(arXiv 2403.05388, sections III-B and III-D), as released. Distances are 2 - 2 cos of unit descriptors.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from ros2_densematch.matchers.common.nearest_neighbours import mutual_of, nearest_neighbours

# x, y of the children of a cell, in the order of the released code
_CHILDREN = ((0, 0), (0, 1), (1, 0), (1, 1))
# distance given to a child that has no acceptable partner: beyond the largest possible, 4
_REJECTED = 5.0
_EPSILON = 1e-8
_KEPT = 2
_LEAST = 4
# a ratio threshold that accepts every child
ACCEPT_ALL = -1.0


class PyramidMatches(NamedTuple):
    """Matched cells of two maps of one stride.

    Attributes:
        reference: int64 (N, 2), x and y.
        query: int64 (N, 2).
        ratio: float (N,), distance to the best over distance to the second best, the larger of both directions.
    """

    reference: Tensor
    query: Tensor
    ratio: Tensor


def match_cells(reference: Tensor, query: Tensor, ratio: float) -> PyramidMatches:
    """Mutual nearest neighbours that pass the ratio test in both directions, without the maps' border cells.

    Args:
        reference: (C, H0, W0) features of any length.
        query: (C, H1, W1).
        ratio: the largest acceptable ratio; 1 accepts all.
    """
    a, b = (functional.normalize(x.flatten(1), dim=0).T.contiguous() for x in (reference, query))
    nearest = nearest_neighbours(a, b)
    mutual = mutual_of(nearest)

    def ratio_of(best: Tensor, second: Tensor) -> Tensor:
        return (2 - 2 * best) / (2 - 2 * second + _EPSILON)

    ratios = torch.maximum(
        ratio_of(nearest.row_best, nearest.row_second)[mutual.first],
        ratio_of(nearest.column_best, nearest.column_second)[mutual.second],
    )
    xy0, xy1 = (
        torch.stack([index % x.shape[2], index // x.shape[2]], 1)
        for index, x in ((mutual.first, reference), (mutual.second, query))
    )
    keep = (ratios <= ratio) & _off_border(xy0, reference) & _off_border(xy1, query)
    return PyramidMatches(xy0[keep], xy1[keep], ratios[keep])


def refine_cells(matches: PyramidMatches, reference: Tensor, query: Tensor, ratio: float) -> PyramidMatches:
    """One step down: of the four children of every matched cell at most two, matched among the partner's four.

    Args:
        matches: cells of the maps of twice the stride.
        reference: (C, H0, W0) features of any length.
        query: (C, H1, W1).
        ratio: children whose ratio is not below this are dropped; `ACCEPT_ALL` keeps the two nearest of every cell.

    Returns:
        Cells of these maps; the children at (0, 0) where fewer than four pass.
    """
    if len(matches.ratio) == 0:
        return matches
    offsets = torch.tensor(_CHILDREN, device=matches.reference.device)
    a_xy = 2 * matches.reference[:, None] + offsets  # (N, 4, 2)
    b_xy = 2 * matches.query[:, None] + offsets
    a, b = _descriptors(reference, a_xy), _descriptors(query, b_xy)
    distance = 2 - 2 * (a @ b.transpose(1, 2))  # (N, 4 of the reference, 4 of the query)
    forward, backward = _two_smallest(distance, 2), _two_smallest(distance, 1)
    partner = forward.where
    # the released code takes the larger of the i-th child's ratio and the ratio of the i-th child on the other side,
    # not of the one that it was matched to; the golden arrays hold this
    ratios = torch.maximum(forward.ratio, backward.ratio)
    children = torch.arange(4, device=a.device)
    mutual = backward.where.gather(1, partner) == children
    passes = mutual & (ratios < ratio)
    nearest = forward.smallest
    if ratio != ACCEPT_ALL:
        nearest = torch.where(passes, nearest, torch.full_like(nearest, _REJECTED))
    # the two children that are farthest from their partners go
    dropped = nearest.topk(4 - _KEPT, dim=1).indices
    kept = nearest != _REJECTED
    kept.scatter_(1, dropped, False)
    if int(kept.sum()) < _LEAST:
        return PyramidMatches(2 * matches.reference, 2 * matches.query, matches.ratio)
    row = kept.nonzero()[:, 0]
    return PyramidMatches(a_xy[kept], b_xy[row, partner[kept]], ratios[kept])


class _Smallest(NamedTuple):
    smallest: Tensor
    where: Tensor
    ratio: Tensor


def _two_smallest(distance: Tensor, dim: int) -> _Smallest:
    values, index = distance.topk(2, dim=dim, largest=False)
    smallest, second = values.unbind(dim)
    return _Smallest(smallest, index.select(dim, 0), smallest / (second + _EPSILON))


def _descriptors(features: Tensor, xy: Tensor) -> Tensor:
    """(N, 4, C) unit descriptors of cells (N, 4, 2)."""
    height, width = features.shape[1:]
    x, y = xy[..., 0].clamp(0, width - 1), xy[..., 1].clamp(0, height - 1)
    unit: Tensor = functional.normalize(features[:, y, x], dim=0)
    return torch.permute(unit, (1, 2, 0))


def _off_border(xy: Tensor, features: Tensor) -> Tensor:
    height, width = features.shape[1:]
    largest = xy.new_tensor([width - 1, height - 1])
    return ((xy > 0) & (xy < largest)).all(1)
