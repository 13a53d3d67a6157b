"""RTAB-Map's Python matcher hook: pairs of key points from their descriptors and positions.

RTAB-Map hands over key points and float descriptors of two images, not the images (rtabmap, PyMatcher): so this is the
descriptor stage alone, mutual nearest neighbours with a ratio test, and what a match's neighbours say about it. The
dense matchers reach RTAB-Map as odometry instead (docs/ros.md).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ros2_densematch.arrays import Float32
from ros2_densematch.matchers.common.local_affine import VOTERS, estimate_local_affine

Int64 = NDArray[np.int64]

# A match that most of its neighbours support, and that lies where they expect it, needs no distinctive descriptor.
_SUPPORT = 0.5
# Distance to where the neighbours expect the match, as a share of the image's longer side.
_EXPECTED = 0.01


def match_descriptors(
    from_xy: ArrayLike,
    to_xy: ArrayLike,
    from_descriptors: ArrayLike,
    to_descriptors: ArrayLike,
    size: tuple[int, int],
    *,
    threshold: float = 0.2,
) -> Int64:
    """Pairs of indices (from, to).

    A pair is kept where both descriptors are each other's nearest, and either the match is distinctive, 1 - d1 / d2 >=
    threshold with the distances to the nearest and the second nearest (Lowe, IJCV 2004, section 7.1: 0.2 is his ratio
    of 0.8), or its neighbours in the image agree with it.

    Args:
        from_xy, to_xy: (N, 2) and (M, 2) pixels.
        from_descriptors, to_descriptors: (N, C) and (M, C) float descriptors; their lengths do not matter.
        size: (width, height) of the images in pixels.
        threshold: in [0, 1).

    Returns:
        int64 (K, 2). RTAB-Map takes int32, uint32, int64 and uint64, but reads uint64 a second time as int32.

    Raises:
        ValueError: the lengths do not fit together, or the threshold is out of range.
    """
    a_xy, b_xy = np.asarray(from_xy, np.float64).reshape(-1, 2), np.asarray(to_xy, np.float64).reshape(-1, 2)
    a, b = _unit(from_descriptors), _unit(to_descriptors)
    if not 0.0 <= threshold < 1.0:
        raise ValueError(f"the threshold must lie in [0, 1), got {threshold}: set PyMatcher/Threshold")
    if len(a) != len(a_xy) or len(b) != len(b_xy) or (len(a) and len(b) and a.shape[1] != b.shape[1]):
        raise ValueError(
            f"key points {a_xy.shape} and {b_xy.shape} do not fit descriptors {a.shape} and {b.shape}: check the caller"
        )
    if len(a) < 2 or len(b) < 2:
        return np.zeros((0, 2), np.int64)
    similarity = a @ b.T
    to = similarity.argmax(axis=1)
    mutual = np.flatnonzero(similarity.argmax(axis=0)[to] == np.arange(len(a)))
    to = to[mutual]
    distinct = np.minimum(_distinctness(similarity[mutual], to), _distinctness(similarity[:, to].T, mutual))
    keep = distinct >= threshold
    if len(mutual) > VOTERS:
        local = estimate_local_affine(a_xy[mutual], b_xy[to])
        keep |= local.confirmed(residual=_EXPECTED * max(size), support=_SUPPORT)
    return np.column_stack([mutual[keep], to[keep]]).astype(np.int64)


def _unit(descriptors: ArrayLike) -> Float32:
    array = np.asarray(descriptors, np.float32)
    array = array.reshape(len(array), -1 if array.size else 0)
    lengths = np.linalg.norm(array, axis=1, keepdims=True)
    return np.asarray(array / np.maximum(lengths, 1e-12), np.float32)


def _distinctness(similarity: Float32, best: NDArray[np.intp]) -> Float32:
    """1 - d1 / d2 of each row, whose largest entry is at `best`."""
    rows = np.arange(len(similarity))
    first = similarity[rows, best]
    others = similarity.copy()
    others[rows, best] = -np.inf
    d1, d2 = (np.sqrt(np.maximum(2.0 - 2.0 * s, 0.0)) for s in (first, others.max(axis=1)))
    return np.asarray(1.0 - d1 / np.maximum(d2, 1e-6), np.float32)
