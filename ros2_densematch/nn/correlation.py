"""Correlation of dense features: all pairs of cells of two images.

Index order of the four-dimensional correlation everywhere: (A rows, A columns, B rows, B columns); A is the papers'
source image, B the target. Rocco, "Neighbourhood consensus networks for visual correspondence" (thesis), sections
3.4.2 and 5.3.1 to 5.3.3.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

_NORM_EPS = 1e-6
_MUTUAL_EPS = 1e-5
# of the rows of A whose full-resolution correlation exists at one time
_BLOCK_BYTES = 64 << 20


def l2_normalise(x: Tensor, dim: int = 1) -> Tensor:
    """x / sqrt(sum x^2 + 1e-6) along `dim`; zeros stay zeros."""
    return x / (x.square().sum(dim, keepdim=True) + _NORM_EPS).sqrt()


def correlation_4d(a: Tensor, b: Tensor) -> Tensor:
    """Dot products of all pairs of cells.

    Args:
        a: (N, C, hA, wA), unit features.
        b: (N, C, hB, wB), unit features.

    Returns:
        (N, 1, hA, wA, hB, wB).
    """
    products = torch.bmm(a.flatten(2).transpose(1, 2), b.flatten(2))
    return products.view(len(a), 1, *a.shape[2:], *b.shape[2:])


def correlation_3d(a: Tensor, b: Tensor) -> Tensor:
    """Similarity of every cell of B with all cells of A: ReLU, then L2-normalised over A (thesis, eq. 3.2 and 3.3).

    Args:
        a: (N, C, hA, wA), unit features of the source.
        b: (N, C, hB, wB), unit features of the target.

    Returns:
        (N, hA wA, hB, wB); the channel of a cell of A is row + hA * column (columns of A follow one another).
    """
    by_column = a.transpose(2, 3).flatten(2)
    products = torch.bmm(by_column.transpose(1, 2), b.flatten(2)).view(len(a), -1, *b.shape[2:])
    return l2_normalise(functional.relu(products))


def mutual_matching(correlation: Tensor) -> Tensor:
    """Soft mutual nearest neighbours: c times its ratio to the best over A and to the best over B (thesis, eq. 5.4).

    Args:
        correlation: (N, 1, hA, wA, hB, wB), not negative.

    Returns:
        The same shape.
    """
    best_over_a = correlation.amax((2, 3), keepdim=True) + _MUTUAL_EPS
    best_over_b = correlation.amax((4, 5), keepdim=True) + _MUTUAL_EPS
    return correlation * ((correlation / best_over_a) * (correlation / best_over_b))


def pooled_correlation(a: Tensor, b: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """`correlation_4d` max-pooled over boxes of k x k x k x k cells, and where in its box each maximum lies.

    The full correlation, k^4 times as large, never exists: blocks of rows of A are pooled as they are made. Thesis,
    section 5.3.7.

    Args:
        a: (N, C, hA, wA), unit features; the sides are multiples of k.
        b: (N, C, hB, wB), likewise.
        k: side of a box, 2 to 11.

    Returns:
        (N, 1, hA / k, wA / k, hB / k, wB / k), and int16 of the same shape: ((dA_row k + dA_column) k + dB_row) k +
        dB_column. Ties go to the first.

    Raises:
        ValueError: a side that k does not divide.
    """
    sides = (*a.shape[2:], *b.shape[2:])
    if any(side % k for side in sides):
        raise ValueError(f"feature sides {sides} must be multiples of k = {k}: choose the image size accordingly")
    n, h, w, p, q = len(a), *(side // k for side in sides)
    rows = max(1, _BLOCK_BYTES // (n * k * sides[1] * sides[2] * sides[3] * a.element_size()))
    values, places = [], []
    for start in range(0, h, rows):
        block = correlation_4d(a[:, :, start * k : (start + rows) * k], b)
        boxes = block.view(n, -1, k, w, k, p, k, q, k).permute(0, 1, 3, 5, 7, 2, 4, 6, 8)
        value, place = boxes.reshape(*boxes.shape[:5], k**4).max(-1)
        values.append(value)
        places.append(place.to(torch.int16))
    return torch.cat(values, 1).unsqueeze(1), torch.cat(places, 1).unsqueeze(1)
