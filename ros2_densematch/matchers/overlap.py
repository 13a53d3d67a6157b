"""Overlap: the share of the reference's usable area that the query shows, whatever the roll or zoom between them.

One measure for all matchers. A matcher with a dense warp has it for every place. From sparse matches it follows from
geometry, not from their density: the affine map that they have in common, where it is no chance, takes roll and zoom
out; local affine maps of the matches that agree with their neighbours carry every place of the reference into the
query, and those that land in it are seen. A few matches all over an image tell this as well as many do. Only places far
from all matches, compared with the distance at which so few of them lie, are left out: something else may be there.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.special import bdtrc, gammaln

from ros2_densematch.arrays import Float64
from ros2_densematch.geometry.correspondences import DenseWarp
from ros2_densematch.matchers.common.local_affine import estimate_local_affine, nearest_matches
from ros2_densematch.matchers.encoding import Encoding

# Positions are measured in units of which the longer side of the reference has this many.
_SIDE = 640.0
_LEAST = 6  # matches that say anything
_MOST = 600  # matches that are looked at: more tell nothing new about an area
# units from the map that all have in common: at which it is looked for, at which its support is counted, and up to
# which a match of a scene with depth may be right
_COMMON, _TOLERANCES, _LOOSE = 40.0, np.array([5.0, 10.0, 20.0, 40.0]), 80.0
_CHANCE = 1e-3  # false maps that matches at random may give, on average
_PLACE = 10.0  # units: matches nearer to each other are of one place
_GRID = 20  # places along the longer side
_REACH = 100.0  # units around a confirmed match that are known to be seen, however many there are
_GAP = 4.0  # the same in mean distances of as many matches all over the reference: larger where they are few
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
    """The overlap that matches show; 0 where their agreement may be chance, or fewer than six agree.

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
    distance = np.linalg.norm(x1 - x0, axis=1)
    tolerance = _agreed(x0, x1, distance, query.size[0] * query.size[1] * abs(float(np.linalg.det(back))))
    if tolerance is None:
        return 0.0
    near = distance < _LOOSE
    x0, x1, distance = x0[near], x1[near], distance[near]
    confirmed = estimate_local_affine(x0, x1, robust_scale=8.0, pull=40.0).confirmed(
        residual=_RESIDUAL, support=_SUPPORT
    )
    if confirmed.sum() < _LEAST:
        confirmed = distance < tolerance
    places = _usable_places(reference)
    if len(places) == 0:
        return 0.0
    return _share_seen(places, unit, x0[confirmed], x1[confirmed], common, query)


def overlap_of_maps(
    reference_xy: NDArray[np.floating[Any]],
    query_xy: NDArray[np.floating[Any]],
    linear: NDArray[np.floating[Any]],
    reference: Encoding,
    query: Encoding,
) -> float:
    """The overlap that matches show which their neighbours confirmed already, at a fraction of the time.

    Every place goes into the query by the local map of the match nearest to it.

    Args:
        reference_xy, query_xy: (N, 2) pixels of the images.
        linear: (N, 2, 2) local affine maps from reference to query offsets.
        reference, query: encodings of the two images.
    """
    places = _usable_places(reference)
    if len(reference_xy) < _LEAST or len(places) == 0:
        return 0.0
    nearest = nearest_matches(reference_xy.astype(np.float64), 1, places)
    index = nearest.index[:, 0]
    targets = query_xy[index] + np.einsum("nij,nj->ni", linear[index], places - reference_xy[index])
    unit = max(reference.size) / _SIDE
    return _share(targets, nearest.distance[:, 0] / unit, len(reference_xy), query)


def _share_seen(places: Float64, unit: float, x0: Float64, x1: Float64, common: Float64, query: Encoding) -> float:
    """The share of the places (M, 2), in pixels of the reference, that the matches carry into the query.

    Args:
        x0: (N, 2) confirmed matches in the reference, in units of so many pixels.
        x1: (N, 2) where they are in the query, carried into the reference's frame by the common map.
        common: (2, 3) from units of the reference to pixels of the query.
    """
    at = places / unit
    voters = nearest_matches(x0, 12, at)
    predicted = estimate_local_affine(x0, x1, at=at, neighbours=voters, robust_scale=8.0, pull=_STIFFNESS).predicted
    targets = predicted @ common[:, :2].T + common[:, 2]
    return _share(targets, voters.distance[:, 0], len(x0), query)


def _share(targets: Float64, distance: Float64, matches: int, query: Encoding) -> float:
    """The share of the places that are near a match and lead into the query.

    Args:
        targets: (M, 2) pixels of the query to which they lead.
        distance: (M,) of the match nearest to each, in units.
        matches: how many there are.
    """
    side = (_SIDE / _GRID) ** 2  # area of a place
    reach = max(_REACH, _GAP * float(np.sqrt(side * len(targets) / (np.pi * matches))))
    seen = (distance < reach) & (targets >= -0.5).all(1) & (targets <= np.array(query.size) - 0.5).all(1)
    seen[seen] = query.allows(targets[seen])
    return float(seen.mean())


def _agreed(x0: Float64, x1: Float64, distance: Float64, area: float) -> float | None:
    """The tolerance at which the agreement with the common map is the least likely chance; None where it may be one.

    A contrario: the number of maps that so many matches at random would give, every three of them one, with as many
    others within the tolerance (Moisan and Stival, "A probabilistic criterion to detect rigid point matches between two
    images and estimate the fundamental matrix", IJCV 2004, section 4).

    Matches of one place, as of a key point with several orientations, are no witnesses of each other: places count.

    Args:
        x0, x1: (N, 2) matches, in units of the reference.
        distance: (N,) of the matches from the map.
        area: of the query in the same units, squared.
    """
    places = np.stack([_place_of(x0), _place_of(x1)])
    n = _different(places)
    among = np.array([_different(places[:, distance < tolerance]) for tolerance in _TOLERANCES])
    by_chance = np.minimum(np.pi * _TOLERANCES**2 / area, 0.5)
    triples = gammaln(n + 1) - gammaln(4) - gammaln(n - 2)
    with np.errstate(divide="ignore"):  # what is too unlikely for a number is no chance
        false = np.log(len(_TOLERANCES)) + triples + np.log(bdtrc(among - 4, n - 3, by_chance))
    best = int(np.argmin(false))
    return float(_TOLERANCES[best]) if false[best] < np.log(_CHANCE) else None


def _place_of(xy: Float64) -> NDArray[np.int64]:
    """A number (N,) for the place of each position."""
    cell = np.floor(xy / _PLACE).astype(np.int64)
    return np.asarray((cell[:, 0] << 32) + cell[:, 1], np.int64)


def _different(places: NDArray[np.int64]) -> int:
    """How many different places matches have, in the image where they are fewer."""
    return min(len(np.unique(of_one_image)) for of_one_image in places)


def _usable_places(reference: Encoding) -> Float64:
    """Centres (M, 2) of the cells of a regular grid that may be matched, in pixels of the reference."""
    width, height = reference.size
    columns, rows = (max(1, round(_GRID * side / max(width, height))) for side in (width, height))
    x = (np.arange(columns) + 0.5) * width / columns - 0.5
    y = (np.arange(rows) + 0.5) * height / rows - 0.5
    places = np.stack(np.meshgrid(x, y), -1).reshape(-1, 2)
    return places[reference.allows(places)]


def _common_map(x0: Float64, x1: Float64) -> Float64 | None:
    """The affine map (2, 3) with most inliers, or None: too few agree, or it mirrors or flattens.

    The query is first brought to the spread of the reference, so that the tolerance does not depend on the zoom.
    """
    spread = np.sqrt(x0.var(0).sum() / max(x1.var(0).sum(), 1e-12))
    affine, inliers = cv2.estimateAffine2D(
        x0, x1 * spread, method=cv2.RANSAC, ransacReprojThreshold=_COMMON, maxIters=2000, confidence=0.999
    )
    if affine is None or int(inliers.sum()) < _LEAST:
        return None
    common: Float64 = np.asarray(affine, np.float64) / spread
    larger, smaller = np.linalg.svd(common[:, :2], compute_uv=False)
    if np.linalg.det(common[:, :2]) <= 0 or larger > 20.0 * smaller:
        return None
    return common
