"""Guided matching: points of a keyframe are carried on from frame to frame, without any network.

From the frame before to this one, the optical flow of a few points says how all of them moved; then each point's patch
of the *keyframe*, carried by its local affine map, is aligned with the frame, so that nothing drifts. Points that were
lost, and places that have none, are tried again where their neighbours expect them, so that matches do not die out.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ros2_densematch.arrays import BoolArray, Float64
from ros2_densematch.matchers.common.local_affine import LocalAffine, estimate_local_affine
from ros2_densematch.matchers.common.template_alignment import Window, align, carried_hessian
from ros2_densematch.matchers.gcm.guided_image import GuideImage
from ros2_densematch.matchers.gcm.guided_motion import carry, spread, stands_still
from ros2_densematch.matchers.gcm.guided_reference import GuidedReference

FINE, _COARSE = Window.square(6), Window.square(4)
_ITERATIONS = 4
_LIMIT = 2.5  # pixels of the level by which an alignment may move a point
_CORRELATION, _GROWN_CORRELATION = 0.6, 0.7  # least correlation of a point that is carried on, or tried again
_LEAST = 8  # fewer matches say nothing about one another
_RESIDUAL, _SUPPORT = 5.0, 0.25  # beyond these the neighbours contradict a match
_LEAST_AREA = 0.05  # a common map that shrinks areas by more is none
_RETRIES = 120  # points tried again in a frame
_FAR_SIGMA = 40.0  # pixels: beyond it optical flow does not find the way by itself
_COARSE_SIGMA = 4.0  # pixels: from less certain places the search begins at half the size


@dataclass(frozen=True)
class Start:
    """What is believed of N points before they are aligned, in working pixels.

    Attributes:
        reference_xy: (N, 2).
        query_xy: (N, 2).
        linear: (N, 2, 2), reference to query.
        sigma: (N,) pixels of `query_xy`.
        before: (N,) score of the match before, NaN where there was none.
        previous: the frame before, or None.
        previous_xy: (N, 2) where the points are in it, NaN where they were not found.
        previous_linear: (N, 2, 2), reference to the frame before.
    """

    reference_xy: Float64
    query_xy: Float64
    linear: Float64
    sigma: Float64
    before: Float64
    previous: GuideImage | None
    previous_xy: Float64
    previous_linear: Float64

    def select(self, index: BoolArray | NDArray[np.intp]) -> Start:
        """The points that a mask or an index array picks."""
        arrays = {n: v[index] for n, v in vars(self).items() if n != "previous"}
        return Start(previous=self.previous, **arrays)


@dataclass(frozen=True)
class Guided:
    """N matches in working pixels, with the evidence for each.

    Attributes:
        reference_xy, query_xy: (N, 2).
        linear: (N, 2, 2) local affine maps, reference to query.
        correlation: (N,) of the aligned patches.
        information: (N, 3) normalised Gauss-Newton matrix of the alignment.
        moved: (N,) pixels between the place where a match was looked for and where it is.
        residual, support: (N,) what the neighbours say, as `LocalAffine`.
        grown: bool (N,), found by its neighbours' maps, not carried on.
        before: (N,) score of the match before, NaN where there was none.
        share: (N,) of the points that were carried on, the share that was found; the same for all matches.
    """

    reference_xy: Float64
    query_xy: Float64
    linear: Float64
    correlation: Float64
    information: Float64
    moved: Float64
    residual: Float64
    support: Float64
    grown: BoolArray
    before: Float64
    share: Float64

    def __len__(self) -> int:
        return len(self.reference_xy)

    def select(self, index: BoolArray | NDArray[np.intp]) -> Guided:
        """The matches that a mask or an index array picks."""
        return Guided(**{name: value[index] for name, value in vars(self).items()})

    def joined(self, other: Guided) -> Guided:
        """These matches followed by others."""
        return Guided(**{n: np.concatenate([v, getattr(other, n)]) for n, v in vars(self).items()})


def guide(reference: GuidedReference, query: GuideImage, start: Start) -> Guided:
    """Matches of a keyframe with a frame near where they are believed, at most about `guided_reference.POINTS`."""
    rank = np.nan_to_num(start.before, nan=0.5)
    usable = reference.image.admits(start.reference_xy, FINE.side // 2 + 1)
    start = start.select(spread(start.reference_xy, rank, usable, reference.cell))
    predicted, linear, sigma = _predicted(start, query)
    coarse = bool(len(sigma) and np.median(sigma) > _COARSE_SIGMA)
    found = _aligned(reference, query, start.reference_xy, predicted, linear, start.before, coarse=coarse)
    good = found.correlation > _CORRELATION
    lost = start.reference_xy[~good]
    found = found.select(good)
    if len(found) >= _LEAST:
        found = found.joined(_tried_again(reference, query, found, lost))
    return _confirmed(found, int(good.sum()) / max(len(good), 1))


def _predicted(start: Start, query: GuideImage) -> tuple[Float64, Float64, Float64]:
    """Places, local maps and deviations before the alignment: by optical flow, where there is a frame before."""
    xy, linear, sigma = start.query_xy.copy(), start.linear.copy(), start.sigma.copy()
    known = np.flatnonzero(np.isfinite(start.previous_xy).all(1))
    if start.previous is None or len(known) == 0:
        return xy, linear, sigma
    rank = np.nan_to_num(start.before[known], nan=0.5)
    far = bool(np.median(sigma[known]) > _FAR_SIGMA)
    carried = carry(start.previous, query, start.previous_xy[known], xy[known], rank, far=far)
    if carried is not None:
        xy[known], linear[known] = carried.xy, carried.linear @ start.previous_linear[known]
        sigma[known] = 1.0
    return xy, linear, sigma


def _aligned(
    reference: GuidedReference,
    query: GuideImage,
    reference_xy: Float64,
    predicted: Float64,
    linear: Float64,
    before: Float64,
    *,
    coarse: bool,
) -> Guided:
    """Points aligned from predicted places; correlation -1 where the patch leaves the query or touches its mask."""
    at = predicted
    if coarse:
        templates = reference.templates(reference_xy, 1, _COARSE)
        half = (at + 0.5) / 2 - 0.5
        rough = align(query.level(1), templates, _COARSE, half, linear, iterations=_ITERATIONS, limit=2 * _LIMIT)
        at = (rough.xy + 0.5) * 2 - 0.5
    templates = reference.templates(reference_xy, 0, FINE)
    fine = align(query.level(0), templates, FINE, at, linear, iterations=_ITERATIONS, limit=_LIMIT)
    nothing = np.zeros(len(at))
    return Guided(
        reference_xy=reference_xy,
        query_xy=fine.xy,
        linear=linear,
        correlation=np.where(query.admits(fine.xy, FINE.side // 2), fine.correlation, -1.0),
        information=carried_hessian(templates, linear),
        moved=np.linalg.norm(fine.xy - predicted, axis=1),
        residual=nothing,
        support=nothing,
        grown=np.zeros(len(at), np.bool_),
        before=before,
        share=nothing,
    )


def _tried_again(reference: GuidedReference, query: GuideImage, found: Guided, lost: Float64) -> Guided:
    """What is found of the lost points and in the cells of the reference that hold no match."""
    pool = np.concatenate([lost, reference.places])
    taken = np.unique(reference.cells(found.reference_xy))
    index = np.flatnonzero(~np.isin(reference.cells(pool), taken))
    _, first = np.unique(reference.cells(pool[index]), return_index=True)
    at = pool[index[np.sort(first)]]
    if len(at) > 2 * _RETRIES:
        # others in every frame, and the same ones for the same frame
        order = np.random.default_rng(int(query.grey[::8, ::8].sum())).permutation(len(at))
        at = at[np.sort(order[: 2 * _RETRIES])]
    if len(at) == 0:
        return found.select(np.zeros(0, np.intp))
    local = _local_maps(found, at=at, neighbours=_LEAST, iterations=3)
    likely = np.flatnonzero(query.admits(local.predicted, FINE.side // 2) & (local.support > _SUPPORT))[:_RETRIES]
    none = np.full(len(likely), np.nan)
    again = _aligned(reference, query, at[likely], local.predicted[likely], local.linear[likely], none, coarse=True)
    return replace(again, grown=np.ones(len(again), np.bool_)).select(again.correlation > _GROWN_CORRELATION)


def _confirmed(found: Guided, share: float) -> Guided:
    """The matches that their neighbours do not contradict and that move when the others do, with their local maps."""
    found = found.select(~stands_still(found.reference_xy, found.query_xy))
    local = _local_maps(found)
    good = (local.residual < _RESIDUAL) & (local.support > _SUPPORT)
    if len(found) < _LEAST:
        good[:] = False
    everyone = np.full(len(found), share)
    found = replace(found, linear=local.linear, residual=local.residual, support=local.support, share=everyone)
    return found.select(good)


def _local_maps(found: Guided, **options: Any) -> LocalAffine:
    """`estimate_local_affine` after the map that all matches have in common is undone: its prior is the identity."""
    common = found.linear.mean(0) if len(found) else np.eye(2)
    if np.linalg.det(common) < _LEAST_AREA:
        common = np.eye(2)
    undone = found.query_xy @ np.linalg.inv(common).T
    local = estimate_local_affine(found.reference_xy, undone, **options)
    predicted = local.predicted @ common.T
    residual = np.zeros(len(predicted)) if "at" in options else np.linalg.norm(predicted - found.query_xy, axis=1)
    return LocalAffine(common @ local.linear, predicted, residual, local.support)
