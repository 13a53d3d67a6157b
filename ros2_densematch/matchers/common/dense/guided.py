"""A prior for dense matchers: the refiners start from a warp that is laid through the believed places of points.

A departure from the published pipelines, taken only when a prior is given: the coarse match and the backbone that it
needs are left out. A refiner finds what its local correlation reaches; so a prior counts only where its uncertainty is
below that reach, and where too little of it is left the images are matched in full.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial import cKDTree
from torch import Tensor

from ros2_densematch.arrays import Float64
from ros2_densematch.geometry.correspondences import Correspondences, DenseWarp
from ros2_densematch.matchers.base import Matcher, RawMatches
from ros2_densematch.matchers.common.dense.precision import precision_at, upper_triangle, warp_precision
from ros2_densematch.matchers.common.dense.result import DenseResult, hide_masked, to_normalised, to_pixels
from ros2_densematch.matchers.encoding import Encoding
from ros2_densematch.matchers.prior import Prior
from ros2_densematch.nn.grid import cell_centres, sample_features

# points whose extrapolations are averaged, and the fewest that a warp is laid through
_NEIGHBOURS, _LEAST_POINTS = 4, 8
# a prior is of use where more than this share of its points is certain enough
_LEAST_SHARE = 0.5
# pixels of the query that an extrapolation misses per pixel from its point: with the point's own local map, and with
# one that was fitted to its neighbours
_EXTRAPOLATED, _FITTED = 0.1, 0.2
# what is believed of a point without a score, and of places that no point speaks for
_SCORE, _ABSENT_LOGIT = 0.9, -10.0
# matches below this certainty are none
_LEAST_CERTAINTY = 0.05
# along each side of the image, places that can be followed before there are matches
_GUIDE_SIDE = 32


@dataclass(frozen=True)
class PriorWarp:
    """Where a pass of the refiners starts.

    Attributes:
        flow: float32 (1, 2, h, w), normalised (x, y) in the query image.
        certainty: logits, float32 (1, 1, h, w).
        covered: bool (h, w), cells for which the prior speaks.
    """

    flow: Tensor
    certainty: Tensor
    covered: Tensor


def warp_from_prior(
    prior: Prior,
    reference_size: tuple[int, int],
    query_size: tuple[int, int],
    grid: tuple[int, int],
    working_size: tuple[int, int],
    reach: float,
) -> PriorWarp | None:
    """The believed warp on a grid of cells of the reference, or None where too little of the prior is certain enough.

    Args:
        prior: points of the original reference image.
        reference_size, query_size: (width, height) of the original images.
        grid: rows and columns.
        working_size: (height, width) of the images that the refiners see.
        reach: largest standard deviation, in pixels of that size.
    """
    shrink = max(working_size[1] / query_size[0], working_size[0] / query_size[1])
    near = prior.sigma * shrink <= reach
    if near.sum() < max(_LEAST_POINTS, _LEAST_SHARE * len(prior)):
        return None
    kept = prior.select(near)
    linear = kept.linear if kept.linear is not None else _fitted(kept.reference_xy, kept.query_xy)
    cells = to_pixels(cell_centres(*grid).flatten(1).T.numpy(), reference_size).astype(np.float64)
    found = cKDTree(kept.reference_xy).query(cells, k=min(_NEIGHBOURS, len(kept)))
    distance, index = np.asarray(found[0], np.float64), np.asarray(found[1], np.intp)
    offset = cells[:, None] - kept.reference_xy[index]
    believed = kept.query_xy[index] + np.einsum("nkij,nkj->nki", linear[index], offset)
    weight = 1 / (distance**2 + 1)
    weight /= weight.sum(1, keepdims=True)
    place = (believed * weight[..., None]).sum(1)
    miss = _EXTRAPOLATED if kept.linear is not None else _FITTED
    covered = (kept.sigma[index[:, 0]] + miss * distance[:, 0]) * shrink <= reach
    score = np.full(len(kept), _SCORE) if kept.score is None else kept.score.clip(0.05, 0.95)
    logit = (np.log(score / (1 - score))[index] * weight).sum(1)
    logit[~covered] = _ABSENT_LOGIT
    flow = torch.from_numpy(to_normalised(place, query_size)).T.reshape(1, 2, *grid)
    return PriorWarp(
        flow.contiguous(),
        torch.from_numpy(logit.astype(np.float32)).reshape(1, 1, *grid),
        torch.from_numpy(covered).reshape(grid),
    )


def _fitted(reference_xy: Float64, query_xy: Float64) -> Float64:
    """Local affine maps (N, 2, 2) of points that have none: least squares over the nearest eight of each."""
    index = cKDTree(reference_xy).query(reference_xy, k=min(8, len(reference_xy)))[1]
    a = reference_xy[index] - reference_xy[index].mean(1, keepdims=True)
    b = query_xy[index] - query_xy[index].mean(1, keepdims=True)
    # points on a line say nothing across it: there the identity holds
    ridge = 1e-2 * np.trace(np.einsum("nki,nkj->nij", a, a), axis1=1, axis2=2)[:, None, None] * np.eye(
        2
    ) + 1e-9 * np.eye(2)
    normal = np.einsum("nki,nkj->nij", a, a) + ridge
    mixed = np.einsum("nki,nkj->nij", b, a) + ridge
    return np.asarray(np.linalg.solve(normal, mixed.transpose(0, 2, 1)).transpose(0, 2, 1), np.float64)


class GuidedDense(Matcher):
    """What turns a dense matcher into one that can use a prior; to be inherited beside `SampledMatcher`.

    A guided match returns the points of the prior, at exactly their reference positions.
    """

    uses_prior = True

    @abstractmethod
    def _guided(self, reference: Encoding, query: Encoding, prior: Prior) -> tuple[DenseResult, Tensor] | None:
        """The warp from the reference, started from the prior, and (h, w) which cells it speaks for; None: no use."""

    def _match_guided(
        self, reference: Encoding, query: Encoding, prior: Prior, *, max_matches: int | None, seed: int
    ) -> RawMatches | Correspondences:
        found = self._guided(reference, query, prior)
        if found is None:
            return self._match(reference, query, max_matches=max_matches, seed=seed)
        result, covered = found
        hidden = hide_masked(result, reference, query)
        inside = (hidden.flow.abs() <= 1).all(2)
        spoken_for = _enlarged(covered, (inside.shape[0], inside.shape[1])).to(inside.device)
        certainty = (hidden.certainty.float() * inside * spoken_for).cpu()
        precision = None if hidden.precision is None else hidden.precision.float().cpu()
        return _at_points(DenseResult(hidden.flow.float().cpu(), certainty, False, precision), reference, query, prior)

    def _guide_points(self, encoding: Encoding) -> NDArray[np.float32]:
        cells = cell_centres(_GUIDE_SIDE, _GUIDE_SIDE).flatten(1).T.numpy()
        xy = to_pixels(cells, encoding.size)
        return np.asarray(xy[encoding.allows(xy)], np.float32)


def _enlarged(covered: Tensor, size: tuple[int, int]) -> Tensor:
    wide: Tensor = torch.nn.functional.interpolate(covered[None, None].float(), size=size, mode="nearest-exact")
    return wide[0, 0] > 0


def _at_points(result: DenseResult, reference: Encoding, query: Encoding, prior: Prior) -> RawMatches:
    """The warp read at the points of the prior."""
    height, width = result.certainty.shape
    layers = torch.cat([result.flow, result.certainty[..., None]], 2).permute(2, 0, 1)[None]
    at = torch.from_numpy(to_normalised(prior.reference_xy, reference.size)).float()
    values = sample_features(layers, at.T[None, :, None])[0, :, 0].T.numpy()
    query_xy = to_pixels(values[:, :2], query.size)
    cells = np.floor((at.numpy() + 1) / 2 * [width, height]).astype(np.intp).clip(0, [width - 1, height - 1])
    cell = cells[:, 1] * width + cells[:, 0]
    # next to a cell that is no match (masked, outside, not spoken for) an interpolated place would be half made up
    least = -torch.nn.functional.max_pool2d(-result.certainty[None, None], 3, 1, 1).flatten().numpy()
    good = (values[:, 2] > _LEAST_CERTAINTY) & (least[cell] > 0) & (np.abs(values[:, :2]) <= 1).all(1)
    index = np.flatnonzero(good)
    warp_xy = to_pixels(result.flow.numpy(), query.size)
    certainty = result.certainty.numpy()
    precision, linear = warp_precision(warp_xy, certainty, cell[index], query.size)
    if result.precision is not None:
        precision = precision_at(result.precision, at[index], query.size)
    per_pixel: Any = linear * np.array([width / reference.size[0], height / reference.size[1]])
    return RawMatches(
        prior.reference_xy[index],
        query_xy[index],
        values[index, 2],
        upper_triangle(precision),
        per_pixel,
        DenseWarp(warp_xy, certainty, reference.size, query.size),
    )
