"""The first homography of DFM and GCM: estimated on the coarsest cells, it warps the query onto the reference."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from ros2_densematch.arrays import Float64, Image
from ros2_densematch.matchers.common.pyramid.cells import PyramidMatches

_LEAST = 4
_ITERATIONS = 5000
_CONFIDENCE = 0.9999


def cells_to_pixels(xy: NDArray[np.integer], stride: int) -> Float64:
    """Centres of cells in pixels, (0, 0) the centre of the top-left pixel."""
    return np.asarray((xy + 0.5) * stride - 0.5, np.float64)


def initial_homography(matches: PyramidMatches, stride: int = 16) -> Float64:
    """Homography from query to reference pixels (RANSAC, one and a half cells); the identity where none is found."""
    reference, query = (cells_to_pixels(xy.cpu().numpy(), stride) for xy in (matches.reference, matches.query))
    found = fit_homography(query, reference, stride * 2**0.5 + 1)
    return np.eye(3) if found is None else found


def fit_homography(source: Float64, target: Float64, threshold: float) -> Float64 | None:
    """OpenCV's RANSAC as in the released code; None where it finds nothing.

    Args:
        source: (N, 2) pixels.
        target: (N, 2) pixels.
        threshold: of an inlier, in target pixels.
    """
    if len(source) < _LEAST:
        return None
    found, _ = cv2.findHomography(source, target, cv2.RANSAC, threshold, maxIters=_ITERATIONS, confidence=_CONFIDENCE)
    if found is None or not np.isfinite(found).all() or abs(np.linalg.det(found)) < 1e-12:
        return None
    return np.asarray(found, np.float64)


def warped(image: Image, homography: Float64, size: tuple[int, int]) -> Image:
    """The image carried by a homography, bilinear, zero outside; `size` is (width, height)."""
    return np.asarray(cv2.warpPerspective(image, homography, size), np.uint8)


def carried_back(xy: NDArray[np.integer], homography: Float64) -> Float64:
    """Pixels (N, 2) of the warped image in the image that was warped."""
    points = np.column_stack([xy, np.ones(len(xy))]) @ np.linalg.inv(homography).T
    # a point on the horizon has no place: far outside, where it is dropped
    depth = np.where(np.abs(points[:, 2:]) < 1e-9, 1e-9, points[:, 2:])
    return np.asarray(points[:, :2] / depth, np.float64)


def inside(
    reference: Float64,
    query: Float64,
    reference_size: tuple[int, int],
    query_size: tuple[int, int],
    *,
    margin: int = 0,
    as_released: bool = False,
) -> NDArray[np.bool_]:
    """Which matches (N,) lie inside both images, a margin away from their rims.

    Args:
        reference: (N, 2) pixels.
        query: (N, 2) pixels.
        reference_size: (width, height).
        query_size: (width, height).
        margin: in pixels.
        as_released: the released code compares the query's y with the width: reproduce it.
    """
    width, height = query_size
    limits = (reference_size, (width, width if as_released else height))
    keep = np.ones(len(reference), np.bool_)
    for xy, limit in zip((reference, query), limits, strict=True):
        keep &= (xy >= margin).all(1) & (xy < np.array(limit) - margin).all(1)
    return keep
