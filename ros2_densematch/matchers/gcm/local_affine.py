"""Local affine maps around sparse matches: what the neighbours of a match say about it.

Each match gets the affine map that best carries its neighbours from the reference to the query image, robustly and
with a pull towards the identity where the neighbours do not fix it. The residual of the match under the map of its
neighbours (itself left out) tells wrong matches.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

FloatArray = NDArray[np.float64]


class LocalAffine(NamedTuple):
    """One affine map per match.

    Attributes:
        linear: (N, 2, 2): a small reference offset d goes to the query offset linear @ d.
        predicted: (N, 2) query pixel at which the neighbours expect the match.
        residual: (N,) pixels between the match and that expectation.
        support: (N,) share of the neighbours that the map carries within the robust scale, in [0, 1].
    """

    linear: FloatArray
    predicted: FloatArray
    residual: FloatArray
    support: FloatArray


def estimate_local_affine(
    reference_xy: FloatArray,
    query_xy: FloatArray,
    *,
    at: FloatArray | None = None,
    neighbours: int = 12,
    robust_scale: float = 4.0,
    pull: float = 20.0,
    iterations: int = 4,
) -> LocalAffine:
    """Robust least squares over the nearest matches of each position.

    Args:
        reference_xy: (N, 2) pixels.
        query_xy: (N, 2) pixels.
        at: (M, 2) reference pixels at which the maps are wanted; None: at the matches, each left out of its own map.
        neighbours: how many nearest matches (in the reference image) vote.
        robust_scale: residual in pixels at which a neighbour counts half (Cauchy weights).
        pull: strength of the prior "linear part = identity", in pixels of neighbour distance.
        iterations: re-weightings.

    Returns:
        Maps for the N matches, or for the M positions (whose residual is then 0).
    """
    own = at is None
    positions = reference_xy if at is None else at
    count = len(reference_xy)
    k = min(neighbours, count - 1 if own else count)
    if k < 3:
        identity = np.broadcast_to(np.eye(2), (len(positions), 2, 2)).copy()
        shift = np.median(query_xy - reference_xy, axis=0) if count else np.zeros(2)
        predicted = query_xy.copy() if own else positions + shift
        return LocalAffine(identity, predicted, np.zeros(len(positions)), np.zeros(len(positions)))
    index = np.asarray(cKDTree(reference_xy).query(positions, k + 1 if own else k)[1])
    if own:
        index = index[:, 1:]
    offset = reference_xy[index] - positions[:, None]  # (M, k, 2)
    target = query_xy[index] - positions[:, None]  # relative to the position: the identity gives target = offset
    design = np.concatenate([offset, np.ones((*offset.shape[:2], 1))], axis=2)  # (M, k, 3)
    # all products that the normal equations sum, so that a re-weighting is one matrix product
    products = np.concatenate(
        [
            (design[..., :, None] * design[..., None, :]).reshape(*offset.shape[:2], 9),
            (design[..., :, None] * target[..., None, :]).reshape(*offset.shape[:2], 6),
        ],
        axis=2,
    )
    prior = np.array([pull**2, pull**2, 1e-6])
    # neighbours far away say less about the map here
    distance = np.linalg.norm(offset, axis=2)
    near = 1.0 / (1.0 + (distance / (np.median(distance, axis=1, keepdims=True) + 1e-9)) ** 2)
    if own:
        # the match itself is the start: where most neighbours are wrong, so is their median, but not the few that agree
        start = (query_xy - reference_xy)[:, None]
    else:
        start = np.median(target - offset, axis=1, keepdims=True)
    residual = np.linalg.norm(target - offset - start, axis=2)
    solution = np.zeros((len(positions), 3, 2))
    # the first scale is wide, because the start is a mere translation
    scales = np.geomspace(robust_scale * 6, robust_scale, iterations)
    for scale in scales:
        weight = near / (1.0 + (residual / scale) ** 2)
        sums = (weight[:, None] @ products)[:, 0]
        normal = sums[:, :9].reshape(-1, 3, 3) + np.diag(prior)
        right = sums[:, 9:].reshape(-1, 3, 2)
        right[:, 0, 0] += prior[0]
        right[:, 1, 1] += prior[1]
        solution = _solve_symmetric(normal, right)
        residual = np.linalg.norm(target - design @ solution, axis=2)
    linear = np.swapaxes(solution[:, :2], 1, 2)
    predicted = positions + solution[:, 2]
    support = (residual < robust_scale).mean(axis=1)
    own_residual = np.linalg.norm(predicted - query_xy, axis=1) if own else np.zeros(len(positions))
    return LocalAffine(linear, predicted, own_residual, support)


def _solve_symmetric(matrix: FloatArray, right: FloatArray) -> FloatArray:
    """Solves (M, 3, 3) positive definite systems with right sides (M, 3, 2) by the adjugate.

    A general solver spends most of its time on the call for each small matrix; this is ten times as fast, and the prior
    keeps the matrices well away from singular.
    """
    a, b, c = matrix[:, 0, 0], matrix[:, 0, 1], matrix[:, 0, 2]
    d, e, f = matrix[:, 1, 1], matrix[:, 1, 2], matrix[:, 2, 2]
    adjugate = np.empty_like(matrix)
    adjugate[:, 0, 0] = d * f - e * e
    adjugate[:, 0, 1] = adjugate[:, 1, 0] = c * e - b * f
    adjugate[:, 0, 2] = adjugate[:, 2, 0] = b * e - c * d
    adjugate[:, 1, 1] = a * f - c * c
    adjugate[:, 1, 2] = adjugate[:, 2, 1] = b * c - a * e
    adjugate[:, 2, 2] = a * d - b * b
    determinant = a * adjugate[:, 0, 0] + b * adjugate[:, 0, 1] + c * adjugate[:, 0, 2]
    return np.asarray(adjugate @ right / determinant[:, None, None])
