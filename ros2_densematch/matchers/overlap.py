"""Overlap: the share of the reference's usable area that the query shows, whatever the roll or zoom between them.

One measure for all matchers. A matcher with a dense warp has it for every place; from sparse matches a map of the image
is made: the affine map that they have in common takes roll and zoom out, local affine maps of those that their
neighbours confirm do the rest. A place counts when such matches are near and it is carried into the query.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from ros2_densematch.geometry.correspondences import DenseWarp
from ros2_densematch.matchers.common.local_affine import estimate_local_affine, nearest_matches
from ros2_densematch.matchers.encoding import Encoding

Float = NDArray[np.float64]

# Positions are measured in units of which the longer side of the reference has this many.
_SIDE = 640.0
_LEAST = 8  # matches that say anything
_MOST = 600  # matches that are looked at: more tell nothing new about an area
_COMMON = 40.0  # units that a match of a scene with depth may lie from the map that all have in common
_GRID = 20  # places along the longer side
_REACH = 100.0  # units around a confirmed match that are known to be seen
_RESIDUAL, _SUPPORT = 12.0, 0.3  # of confirmed matches
_STIFFNESS = 200.0  # units: how far from the matches the common map takes over


def overlap_of_warp(warp: DenseWarp, reference: Encoding, query: Encoding) -> float:
    """Mean certainty of a warp over the usable places of the reference.

    What leads out of the query, or to a masked pixel of it, counts as not seen.

    Args:
        warp: of any resolution, masks not applied.
        reference: of the image that its entries belong to.
        query: of the image that it leads into.
    """
    places, targets = warp.positions().reshape(-1, 2), warp.xy.reshape(-1, 2)
    counted = reference.allows(places)
    if not counted.any():
        return 0.0
    inside = np.asarray((targets >= -0.5).all(1) & (targets <= np.array(query.size) - 0.5).all(1), np.bool_)
    inside[inside] = query.allows(targets[inside])
    certainty = warp.certainty.reshape(-1).astype(np.float64) * inside
    return float(np.clip(certainty[counted].mean(), 0.0, 1.0))


def overlap_of_matches(
    reference_xy: NDArray[np.floating[Any]],
    query_xy: NDArray[np.floating[Any]],
    reference: Encoding,
    query: Encoding,
) -> float:
    """The overlap that matches show; 0 where fewer than eight of them are confirmed by their neighbours.

    Args:
        reference_xy: (N, 2) pixels inside the reference image, right and wrong matches, of any density.
        query_xy: (N, 2) pixels inside the query image.
        reference, query: encodings of the two images.
    """
    if len(reference_xy) > _MOST:
        chosen = np.linspace(0, len(reference_xy) - 1, _MOST).astype(np.intp)
        reference_xy, query_xy = reference_xy[chosen], query_xy[chosen]
    if len(reference_xy) < _LEAST:
        return 0.0
    unit = max(reference.size) / _SIDE
    x0, x1 = reference_xy.astype(np.float64) / unit, query_xy.astype(np.float64)
    common = _common_map(x0, x1)
    if common is None:
        return 0.0
    # the query in the reference's frame, so that residuals and reach are the reference's units at any roll and zoom
    back = np.linalg.inv(common[:, :2])
    x1 = (x1 - common[:, 2]) @ back.T
    confirmed = estimate_local_affine(x0, x1, robust_scale=8.0, pull=40.0).confirmed(
        residual=_RESIDUAL, support=_SUPPORT
    )
    x0, x1 = x0[confirmed], x1[confirmed]
    if len(x0) < _LEAST:
        return 0.0
    places = _usable_places(reference)
    if len(places) == 0:
        return 0.0
    at = places / unit
    voters = nearest_matches(x0, 12, at)
    predicted = estimate_local_affine(x0, x1, at=at, neighbours=voters, robust_scale=8.0, pull=_STIFFNESS).predicted
    targets = predicted @ common[:, :2].T + common[:, 2]
    seen = (voters.distance[:, 0] < _REACH) & (targets >= -0.5).all(1) & (targets <= np.array(query.size) - 0.5).all(1)
    seen[seen] = query.allows(targets[seen])
    return float(seen.mean())


def _usable_places(reference: Encoding) -> Float:
    """Centres (M, 2) of the cells of a regular grid that may be matched, in pixels of the reference."""
    width, height = reference.size
    columns, rows = (max(1, round(_GRID * side / max(width, height))) for side in (width, height))
    x = (np.arange(columns) + 0.5) * width / columns - 0.5
    y = (np.arange(rows) + 0.5) * height / rows - 0.5
    places = np.stack(np.meshgrid(x, y), -1).reshape(-1, 2)
    return places[reference.allows(places)]


def _common_map(x0: Float, x1: Float) -> Float | None:
    """The affine map (2, 3) with most inliers, or None: too few agree, or it mirrors or flattens.

    The query is first brought to the spread of the reference, so that the tolerance does not depend on the zoom.
    """
    spread = np.sqrt(x0.var(0).sum() / max(x1.var(0).sum(), 1e-12))
    affine, inliers = cv2.estimateAffine2D(
        x0, x1 * spread, method=cv2.RANSAC, ransacReprojThreshold=_COMMON, maxIters=500, confidence=0.99
    )
    if affine is None or int(inliers.sum()) < _LEAST:
        return None
    common: Float = np.asarray(affine, np.float64) / spread
    larger, smaller = np.linalg.svd(common[:, :2], compute_uv=False)
    if np.linalg.det(common[:, :2]) <= 0 or larger > 20.0 * smaller:
        return None
    return common
