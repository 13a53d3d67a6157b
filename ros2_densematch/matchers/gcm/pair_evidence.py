"""What the rest of a pair says about a match: its group, the other groups, and the geometry that they share.

A wrong window looks right from near, and so do its neighbours. What tells it is that the group of matches it belongs to
is small, contradicts the groups around it, claims what others claim too, or leaves the common geometry. All of that is
evidence for `pair_filter.py`, never a gate: scenes may move, and a wide pair has small groups only.
"""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from ros2_densematch.arrays import Float32, Float64
from ros2_densematch.matchers.common.local_affine import estimate_local_affine, nearest_matches
from ros2_densematch.matchers.gcm.candidates import Candidates
from ros2_densematch.matchers.gcm.match_filter import NEIGHBOURS, NODE_FEATURES, Surroundings
from ros2_densematch.matchers.gcm.recurrence import Recurrence

Indices = NDArray[np.intp]

_TOGETHER_PX = 3.0  # neighbours that each other's map explains so well are of one group
_APART_PX = 10.0  # a match that far from where another expects it claims another place
_LIKE_IDENTITY = 0.05  # entries of a common map: so close to it, local maps are as they would be without the pull
_SAMPLE = 800  # matches that the common geometry is fitted to
_ITERATIONS = 200
_FIT_PX = 1.5
_LEAST_FIT = 16
_LARGE_GROUPS = 3  # so many of them are left out in turn
_AGREES_PX = 2.0


class PairEvidence(NamedTuple):
    """Input of the pair filter, for N matches of one pair.

    Attributes:
        nodes: float32 (N, F), see `FEATURES`.
        neighbours: (N, NEIGHBOURS) the nearest matches in the reference image.
        group: (N,) number of the group of each.
    """

    nodes: Float32
    neighbours: Indices
    group: Indices


FEATURES = 52 + NODE_FEATURES


def pair_evidence(
    candidates: Candidates, of_match: Float64, logit: Float64, twins: Recurrence, surroundings: Surroundings
) -> PairEvidence:
    """Evidence of at least `NEIGHBOURS` + 1 candidates.

    Args:
        candidates: N of them.
        of_match: (N, NODE_FEATURES) evidence of `match_filter.match_evidence`, which is part of the result.
        logit: (N,) what this evidence alone says.
        twins: how often the two ends recur.
        surroundings: the neighbours of each candidate.
    """
    common = _common_map(candidates.linear)
    x0, x1 = candidates.reference_xy @ common.T, candidates.query_xy
    count = len(x0)
    around, local = surroundings
    if np.abs(common - np.eye(2)).max() > _LIKE_IDENTITY:
        local = estimate_local_affine(x0, x1, neighbours=around)
    index = surroundings.nearest().index
    error = _edge_error(x0, x1, local.linear, index)
    group = _groups(index, error)
    size = np.bincount(group)
    same = group[index] == group[:, None]

    residual = _geometry(x0, x1, logit, group, size)
    share = size[group] / count
    claim = _claims(x0, x1, local.linear, logit)
    around_logit = logit[index]
    a, b, c = candidates.information.T
    half, root = (a + c) / 2, np.sqrt(np.maximum(((a - c) / 2) ** 2 + b**2, 0))
    determinant = np.abs(np.linalg.det(local.linear))
    frobenius = (local.linear**2).sum((1, 2))
    spread = _group_spread(x0, group, size)
    best_rival = np.maximum(np.maximum(twins.reference, twins.query), np.maximum(twins.forward, twins.backward))
    own = [
        logit.clip(-8, 8) / 3,
        -0.3 * np.log(1.001 - candidates.correlation.clip(-1, 1)),
        twins.own,
        10 * candidates.margin,
        candidates.grown.astype(np.float64),
        np.log1p(candidates.moved),
        np.log1p(local.residual),
        local.support,
        0.3 * np.log(np.maximum(half - root, 0) + 1e-4),
        0.3 * np.log(half + root + 1e-4),
        0.5 * np.log(determinant.clip(1e-3, 1e3)),
        np.log(frobenius / (2 * determinant + 1e-3)).clip(0, 4),
        0.3 * np.log1p(around.distance[:, :NEIGHBOURS].mean(1)),
        around_logit.mean(1) / 3,
        around_logit.min(1) / 3,
        around_logit.max(1) / 3,
        same.mean(1),
        np.log1p(error).mean(1),
        np.log1p(error).min(1),
    ]
    recurring = [
        twins.reference,
        twins.query,
        twins.forward,
        twins.backward,
        twins.own - best_rival,
        _group_mean(twins.own - best_rival, group, size),
    ]
    of_group = [
        0.3 * np.log(size[group]),
        0.3 * np.log(share),
        size[group] / size.max(),
        spread,
        _group_mean(logit, group, size) / 3,
        _group_mean(np.log1p(local.residual), group, size),
        _group_mean(local.support, group, size),
        _group_mean(claim[0], group, size),
        _group_mean(claim[1], group, size),
    ]
    everyone = np.ones(count)
    of_pair = [
        everyone * 0.3 * np.log(count),
        everyone * logit.mean() / 3,
        everyone * size.max() / count,
        everyone * (share < 0.05).mean(),
    ]
    of_all = np.stack([*own, *recurring, *of_group, *claim, *residual, *of_pair], 1)
    nodes = np.concatenate([of_all, of_match], 1)
    return PairEvidence(np.nan_to_num(nodes, posinf=9.0, neginf=-9.0).astype(np.float32), index, group)


def _common_map(linear: Float64) -> Float64:
    """(2, 2) the map that most candidates share roughly: local maps are estimated with a pull to the identity, which is
    wrong in front of a rolled camera."""
    common = np.asarray(np.median(linear, axis=0))
    turned = np.linalg.det(common) > 0.05
    return common if turned else np.eye(2)


def _edge_error(x0: Float64, x1: Float64, linear: Float64, index: Indices) -> Float64:
    """(N, k) pixels: the worse of how a match's map misses its neighbour and how the neighbour's misses the match."""
    offset0, offset1 = _offsets(x0, index), _offsets(x1, index)
    entries = linear.reshape(-1, 4).astype(np.float32)
    there = _missed(offset0, offset1, entries[:, None])
    back = _missed(offset0, offset1, entries[index])
    return np.sqrt(np.maximum(there, back)).astype(np.float64)


def _offsets(xy: Float64, index: Indices) -> tuple[Float32, Float32]:
    """x and y (N, k) of the indexed points relative to each point; of such short vectors single precision is ample."""
    x, y = (np.ascontiguousarray(column) for column in (xy - xy.mean(0)).astype(np.float32).T)
    return x[index] - x[:, None], y[index] - y[:, None]


def _missed(offset0: tuple[Float32, ...], offset1: tuple[Float32, ...], entries: Float32) -> Float32:
    """Squared pixels (N, k) between offsets and where maps, given by their four entries, carry them."""
    (x0, y0), (x1, y1) = offset0, offset1
    x = x1 - entries[..., 0] * x0 - entries[..., 1] * y0
    y = y1 - entries[..., 2] * x0 - entries[..., 3] * y0
    return np.asarray(x * x + y * y)


def _groups(index: Indices, error: Float64) -> Indices:
    """Number (N,) of the connected group of each match."""
    count, k = index.shape
    joined = error < _TOGETHER_PX
    row = np.repeat(np.arange(count), k)[joined.ravel()]
    graph = coo_array((np.ones(len(row), np.int8), (row, index.ravel()[joined.ravel()])), shape=(count, count))
    return np.asarray(connected_components(graph, directed=False)[1], np.intp)


def _group_mean(values: Float64, group: Indices, size: NDArray[np.intp]) -> Float64:
    return np.asarray((np.bincount(group, values, len(size)) / size)[group])


def _group_spread(x0: Float64, group: Indices, size: NDArray[np.intp]) -> Float64:
    """Log of how wide the group of each match is, relative to all matches."""
    variance = np.zeros(len(x0))
    for axis in x0.T:
        mean = np.bincount(group, axis, len(size)) / size
        variance += (np.bincount(group, axis**2, len(size)) / size - mean**2)[group]
    return np.asarray(0.3 * np.log((np.maximum(variance, 0) + 1) / (x0.var(0).sum() + 1)))


def _claims(x0: Float64, x1: Float64, linear: Float64, logit: Float64) -> list[Float64]:
    """Of the nearest matches in the query image: which share agrees where the reference lies, which share claims the
    same structure for another place with a better score."""
    index = nearest_matches(x1, NEIGHBOURS).index
    offset0, offset1 = _offsets(x0, index), _offsets(x1, index)
    away = _missed(offset0, offset1, linear.reshape(-1, 1, 4).astype(np.float32))
    rival = (away > _APART_PX**2) & (np.hypot(*offset0) > 2 * _APART_PX)
    return [
        (away < _TOGETHER_PX**2).mean(1),
        (rival & (logit[index] > logit[:, None])).mean(1),
        (rival & (logit[index] > 0)).mean(1),
    ]


def _geometry(x0: Float64, x1: Float64, logit: Float64, group: Indices, size: NDArray[np.intp]) -> list[Float64]:
    """Residuals, by match and by group, of an epipolar geometry and a homography fitted to all and to all but the own
    group, and how many agree with each."""
    x0, x1 = x0 - x0.mean(0), x1 - x1.mean(0)  # the fits do not depend on where the images begin
    sure = np.flatnonzero(logit > 0)
    chosen = sure if len(sure) >= 2 * _LEAST_FIT else np.argsort(-logit, kind="stable")[: 2 * _LEAST_FIT]
    all_lines, line_share = _fitted(x0, x1, chosen, _fundamental)
    all_plane, plane_share = _fitted(x0, x1, chosen, _homography)
    rest = all_lines.copy()
    for largest in np.argsort(-size, kind="stable")[:_LARGE_GROUPS]:
        mine = group == largest
        without = chosen[~mine[chosen]]
        if size[largest] > 0.05 * len(x0) and len(without) >= _LEAST_FIT:
            rest[mine] = _fitted(x0, x1, without, _fundamental)[0][mine]
    out = []
    for residual in (all_lines, rest, all_plane):
        out += [
            np.log1p(residual),
            _group_mean(np.log1p(residual), group, size),
            _group_mean((residual < _AGREES_PX).astype(np.float64), group, size),
        ]
    return [*out, np.full(len(x0), line_share), np.full(len(x0), plane_share)]


def _fitted(x0: Float64, x1: Float64, chosen: Indices, fit: object) -> tuple[Float64, float]:
    """Residual (N,) pixels, at most 100, of a model of the chosen matches, and the share of these that agrees."""
    if len(chosen) > _SAMPLE:
        chosen = chosen[np.linspace(0, len(chosen) - 1, _SAMPLE).astype(np.intp)]
    residual = fit(x0, x1, chosen) if len(chosen) >= _LEAST_FIT else None  # type: ignore[operator]
    if residual is None:
        return np.full(len(x0), 5.0), 0.0
    residual = np.nan_to_num(residual, nan=100.0).clip(0, 100)
    return residual, float((residual[chosen] < _AGREES_PX).mean())


def _fundamental(x0: Float64, x1: Float64, chosen: Indices) -> Float64 | None:
    try:
        found = cv2.findFundamentalMat(x0[chosen], x1[chosen], cv2.USAC_FAST, _FIT_PX, 0.999, _ITERATIONS)[0]
    except cv2.error:  # no sample gave a model
        return None
    if found is None or found.shape != (3, 3):
        return None
    h0, h1 = np.c_[x0, np.ones(len(x0))], np.c_[x1, np.ones(len(x1))]
    line1, line0 = h0 @ found.T, h1 @ found
    with np.errstate(divide="ignore", invalid="ignore"):
        scale = 1 / np.hypot(line1[:, 0], line1[:, 1]) + 1 / np.hypot(line0[:, 0], line0[:, 1])
        return np.asarray(np.abs((h1 * line1).sum(1)) * scale / 2)


def _homography(x0: Float64, x1: Float64, chosen: Indices) -> Float64 | None:
    try:
        found = cv2.findHomography(x0[chosen], x1[chosen], cv2.USAC_FAST, 2 * _FIT_PX, maxIters=_ITERATIONS)[0]
    except cv2.error:
        return None
    if found is None:
        return None
    h = np.c_[x0, np.ones(len(x0))] @ found.T
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(np.linalg.norm(h[:, :2] / h[:, 2:] - x1, axis=1))
