"""The k best neighbours of every cell in both directions, without the full correlation.

Thesis of Rocco, section 6.3.1.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ros2_densematch.nn.sparse_conv4d import Sides, SparseCorrelation, key_of

# of the block of rows whose products exist at one time
_BLOCK_BYTES = 64 << 20


def nearest_cells(a: Tensor, b: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k largest dot products of every row of `a` with rows of `b`, and of every row of `b` with rows of `a`.

    The products are made once, in blocks of rows of `a`; for unit rows these are the nearest neighbours.

    Args:
        a: (N, C).
        b: (M, C).
        k: neighbours; at most all there are.

    Returns:
        int64 indices (N, min(k, M)) into `b`, and (M, min(k, N)) into `a`, best first.
    """
    k_a, k_b = min(k, len(b)), min(k, len(a))
    rows = max(k_b, _BLOCK_BYTES // (len(b) * a.element_size()))
    of_a = []
    best, of_b = b.new_empty(len(b), 0), torch.empty(len(b), 0, dtype=torch.int64, device=b.device)
    for start in range(0, len(a), rows):
        products = a[start : start + rows] @ b.T
        of_a.append(products.topk(k_a, 1).indices)
        found = products.T.topk(min(k_b, len(products)), 1)
        best = torch.cat([best, found.values], 1)
        of_b = torch.cat([of_b, found.indices + start], 1)
        kept = best.topk(min(k_b, best.shape[1]), 1)
        best, of_b = kept.values, of_b.gather(1, kept.indices)
    return torch.cat(of_a), of_b


def sparse_correlation(a: Tensor, b: Tensor, k: int = 10) -> SparseCorrelation:
    """Dot products of every cell with its k best of the other image, both directions added on the union of places.

    A pair found in both directions carries twice its product, as published. Differentiable in the products; for unit
    features the product equals 1 - d^2 / 2 of the published search.

    Args:
        a: (C, hA, wA), unit features of the source.
        b: (C, hB, wB), unit features of the target.
        k: neighbours of each cell.
    """
    sides: Sides = (a.shape[1], a.shape[2], b.shape[1], b.shape[2])
    cells_a, cells_b = a.flatten(1).T.contiguous(), b.flatten(1).T.contiguous()
    with torch.no_grad():
        of_a, of_b = nearest_cells(cells_a, cells_b, k)
        own_a = torch.arange(len(cells_a), device=a.device)[:, None].expand_as(of_a)
        own_b = torch.arange(len(cells_b), device=a.device)[:, None].expand_as(of_b)
        keys = torch.cat([key_of(own_a, of_a, sides).flatten(), key_of(of_b, own_b, sides).flatten()])
        keys, times = torch.unique(keys, return_counts=True)
    correlation = SparseCorrelation(keys, torch.zeros(0), sides)
    places = correlation.places()
    index_a = places[:, 0] * sides[1] + places[:, 1]
    index_b = places[:, 2] * sides[3] + places[:, 3]
    values = _products(cells_a, cells_b, index_a, index_b) * times
    return SparseCorrelation(keys, values[:, None], sides)


def _products(a: Tensor, b: Tensor, index_a: Tensor, index_b: Tensor) -> Tensor:
    """Dot products of chosen pairs of rows, in blocks: the gathered rows of all pairs would not fit."""
    rows = max(1, _BLOCK_BYTES // (a.shape[1] * a.element_size()))
    parts = [
        (a.index_select(0, i) * b.index_select(0, j)).sum(1)
        for i, j in zip(torch.split(index_a, rows), torch.split(index_b, rows), strict=True)
    ]
    return torch.cat(parts)
