"""Local affine maps around sparse matches: what the neighbours of a match say about it.

Each match gets the affine map that best carries its neighbours from the reference to the query image, robustly and
with a pull towards the identity where the neighbours do not fix it. The residual of the match under the map of its
neighbours (itself left out) tells wrong matches.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from ros2_densematch.arrays import Float64

# nearest matches that vote on a local map
VOTERS = 12
_WORTH_THREADS = 3000


class LocalAffine(NamedTuple):
    """One affine map per match.

    Attributes:
        linear: (N, 2, 2): a small reference offset d goes to the query offset linear @ d.
        predicted: (N, 2) query pixel at which the neighbours expect the match.
        residual: (N,) pixels between the match and that expectation.
        support: (N,) share of the neighbours that the map carries within the robust scale, in [0, 1].
    """

    linear: Float64
    predicted: Float64
    residual: Float64
    support: Float64

    def confirmed(self, *, residual: float, support: float) -> NDArray[np.bool_]:
        """Which matches their neighbours confirm, bool (N,): the one rule for all that ask.

        Args:
            residual: the match must lie nearer than so many pixels to where they expect it.
            support: more than this share of them must agree with the map.
        """
        return np.asarray((self.residual < residual) & (self.support > support), np.bool_)


@dataclass(frozen=True)
class Neighbours:
    """The nearest matches of each position.

    Attributes:
        index: (M, k) into the matches, nearest first.
        distance: (M, k) pixels in the reference image.
    """

    index: NDArray[np.intp]
    distance: Float64


def nearest_matches(reference_xy: Float64, count: int, at: Float64 | None = None) -> Neighbours:
    """The `count` nearest matches (fewer where there are not so many) of each position.

    Args:
        reference_xy: (N, 2) pixels.
        count: how many.
        at: (M, 2) pixels; None: the matches themselves, each left out of its own neighbours.
    """
    own = at is None
    available = len(reference_xy) - 1 if own else len(reference_xy)
    k = max(0, min(count, available))
    positions = reference_xy if at is None else at
    if k == 0:
        return Neighbours(np.zeros((len(positions), 0), np.intp), np.zeros((len(positions), 0)))
    wanted = range(2, k + 2) if own else range(1, k + 1)
    # threads are begun anew for every query: that pays for many positions only
    workers = torch.get_num_threads() if len(positions) >= _WORTH_THREADS else 1
    distance, index = cKDTree(reference_xy).query(positions, list(wanted), workers=workers)
    return Neighbours(np.asarray(index, np.intp), np.asarray(distance, np.float64))


def estimate_local_affine(
    reference_xy: Float64,
    query_xy: Float64,
    *,
    at: Float64 | None = None,
    neighbours: int | Neighbours = VOTERS,
    robust_scale: float = 4.0,
    pull: float = 20.0,
    iterations: int = 4,
) -> LocalAffine:
    """Robust least squares over the nearest matches of each position.

    Args:
        reference_xy: (N, 2) pixels.
        query_xy: (N, 2) pixels.
        at: (M, 2) reference pixels at which the maps are wanted; None: at the matches, each left out of its own map.
        neighbours: how many nearest matches (in the reference image) vote, or the voters of each position.
        robust_scale: residual in pixels at which a neighbour counts half (Cauchy weights).
        pull: strength of the prior "linear part = identity", in pixels of neighbour distance.
        iterations: re-weightings.

    Returns:
        Maps for the N matches, or for the M positions (whose residual is then 0).
    """
    own = at is None
    positions = reference_xy if at is None else at
    if isinstance(neighbours, int):
        neighbours = nearest_matches(reference_xy, neighbours, at)
    index = neighbours.index.T  # (k, M): every sum below runs over long contiguous rows
    if len(index) < 3:
        identity = np.broadcast_to(np.eye(2), (len(positions), 2, 2)).copy()
        shift = np.median(query_xy - reference_xy, axis=0) if len(reference_xy) else np.zeros(2)
        predicted = query_xy.copy() if own else positions + shift
        return LocalAffine(identity, predicted, np.zeros(len(positions)), np.zeros(len(positions)))
    # relative to the position, single precision is ample; the unit is `pull` pixels, so that the prior is 1
    x, y = _relative(reference_xy, positions, index, pull)
    u, v = _relative(query_xy, positions, index, pull)  # the identity gives (u, v) = (x, y)
    products = np.stack([x * x, x * y, x, y * y, y, np.ones_like(x), x * u, y * u, u, x * v, y * v, v])
    # neighbours far away say less about the map here
    distance = np.hypot(x, y)
    near = 1.0 / (1.0 + (distance / (np.median(distance, axis=0) + 1e-9)) ** 2)
    if own:
        # the match itself is the start: where most neighbours are wrong, so is their median, but not the few that agree
        start = ((query_xy - reference_xy) / pull).astype(np.float32).T
    else:
        start = np.stack([np.median(u - x, axis=0), np.median(v - y, axis=0)])
    square = (u - x - start[0]) ** 2 + (v - y - start[1]) ** 2
    a = np.zeros((3, 2, len(positions)))
    # the first scale is wide, because the start is a mere translation
    for scale in np.geomspace(robust_scale * 6, robust_scale, iterations) / pull:
        weight = near / (1.0 + square * np.float32(1.0 / scale**2))
        a = _solve((products * weight).sum(1).astype(np.float64), 1e-6 / pull**2)
        b = a.astype(np.float32)
        square = (b[0, 0] * x + b[1, 0] * y + b[2, 0] - u) ** 2 + (b[0, 1] * x + b[1, 1] * y + b[2, 1] - v) ** 2
    linear = np.ascontiguousarray(a[:2].transpose(2, 1, 0))
    predicted = positions + a[2].T * pull
    support = (square < (robust_scale / pull) ** 2).mean(axis=0)
    own_residual = np.linalg.norm(predicted - query_xy, axis=1) if own else np.zeros(len(positions))
    return LocalAffine(linear, predicted, own_residual, support)


def _relative(
    xy: Float64, positions: Float64, index: NDArray[np.intp], unit: float
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """x and y (k, M) of the indexed points relative to the positions."""
    relative = ((xy[index] - positions) / unit).astype(np.float32)
    return np.ascontiguousarray(relative[..., 0]), np.ascontiguousarray(relative[..., 1])


def _solve(sums: Float64, shift_prior: float) -> Float64:
    """Solutions (3, 2, M) of the M normal equations whose entries are given, with the prior, by the adjugate.

    A general solver spends most of its time on the call for each small matrix, and the prior keeps the matrices well
    away from singular.

    Args:
        sums: (12, M): the upper triangle of the symmetric 3 x 3 matrices by rows, then the two right sides.
        shift_prior: added to the last diagonal entry.
    """
    p, q, r, s, t, w = sums[:6]
    p, s, w = p + 1.0, s + 1.0, w + shift_prior
    right = sums[6:].reshape(2, 3, -1).copy()
    right[0, 0] += 1.0
    right[1, 1] += 1.0
    c00, c01, c02 = s * w - t * t, r * t - q * w, q * t - r * s
    c11, c12, c22 = p * w - r * r, q * r - p * t, p * s - q * q
    determinant = p * c00 + q * c01 + r * c02
    x, y, z = right.transpose(1, 0, 2) / determinant
    return np.stack([c00 * x + c01 * y + c02 * z, c01 * x + c11 * y + c12 * z, c02 * x + c12 * y + c22 * z])
