"""One list of key points for each image, from matches that were made pair by pair.

Structure from motion needs points that recur: the same place of an image must have one number in all its pairs. Matches
of one image that lie in one cell of a grid become one key point, at the place of the one with the best score.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ros2_densematch.io.exports.matched_pairs import MatchedPair


@dataclass(frozen=True, eq=False)
class Keypoints:
    """Key points of one image.

    Attributes:
        xy: float32 (K, 2), pixels, (0, 0) = centre of the top-left pixel.
        score: float32 (K,), best score of the matches that were merged into each.
        size: (width, height) of the image.
    """

    xy: NDArray[np.float32]
    score: NDArray[np.float32]
    size: tuple[int, int]


@dataclass(frozen=True, eq=False)
class IndexedPair:
    """A pair as numbers of key points.

    Attributes:
        pair: the pair.
        index: intp (M, 2), key point of the reference and of the query image; each occurs once at most.
        score: float32 (M,).
        inlier: bool (M,).
    """

    pair: MatchedPair
    index: NDArray[np.intp]
    score: NDArray[np.float32]
    inlier: NDArray[np.bool_]


def merge_keypoints(
    pairs: Sequence[MatchedPair], *, cell_px: float = 0.5
) -> tuple[dict[str, Keypoints], list[IndexedPair]]:
    """Key points by image, and the pairs in their numbers.

    Args:
        pairs: matches, pair by pair.
        cell_px: side of the grid's cells in pixels; 0 < cell_px. Larger cells give longer tracks and less exact ones;
            on a rendered room 0.5 gives the best camera positions (of 1, 0.5 and 0.25).

    Raises:
        ValueError: an image has two sizes.
    """
    gathered: dict[str, list[tuple[NDArray[np.float32], NDArray[np.float32]]]] = {}
    sizes: dict[str, tuple[int, int]] = {}
    for pair in pairs:
        sides = (
            (pair.reference, pair.reference_xy, pair.reference_size),
            (pair.query, pair.query_xy, pair.query_size),
        )
        for name, xy, size in sides:
            if sizes.setdefault(name, size) != size:
                raise ValueError(f"{name} has the sizes {sizes[name]} and {size}: match its pairs again")
            gathered.setdefault(name, []).append((xy, pair.score))
    keypoints: dict[str, Keypoints] = {}
    numbers: dict[str, list[NDArray[np.intp]]] = {}
    for name, parts in gathered.items():
        xy, score = np.concatenate([p for p, _ in parts]), np.concatenate([s for _, s in parts])
        kept, number = _merge(xy, score, cell_px)
        keypoints[name] = Keypoints(xy[kept], score[kept], sizes[name])
        ends = np.cumsum([len(p) for p, _ in parts])
        numbers[name] = np.split(number, ends[:-1])
    indexed = []
    for pair in pairs:
        index = np.stack([numbers[pair.reference].pop(0), numbers[pair.query].pop(0)], 1)
        chosen = _one_to_one(index, pair.score)
        indexed.append(IndexedPair(pair, index[chosen], pair.score[chosen], pair.inliers[chosen]))
    return keypoints, indexed


def _merge(
    xy: NDArray[np.float32], score: NDArray[np.float32], cell_px: float
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Which points (K,) represent their cells, and the representative's number (N,) of every point."""
    order = np.lexsort((xy[:, 1], xy[:, 0], -score))  # the best of a cell first, and no matter in which order they came
    cells = np.floor(xy[order] / np.float32(cell_px) + np.float32(0.5)).astype(np.int64)
    _, first, inverse = np.unique(cells, axis=0, return_index=True, return_inverse=True)
    number = np.empty(len(xy), np.intp)
    number[order] = inverse.ravel()
    return order[first], number


def _one_to_one(index: NDArray[np.intp], score: NDArray[np.float32]) -> NDArray[np.intp]:
    """Rows, best score first, in which no key point of either image occurs a second time."""
    order = np.argsort(-score, kind="stable")
    for side in (0, 1):
        _, first = np.unique(index[order, side], return_index=True)
        order = order[np.sort(first)]
    return order
