"""Which of two motions in one pair is the camera's: the background surrounds what moves by itself, and has parallax."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from ros2_densematch.arrays import BoolArray, Float32
from ros2_densematch.geometry.relative_pose import Geometry, RelativePose

_COLUMNS, _ROWS = 10, 8
_LEAST_IN_CELL = 2  # matches: single ones may be wrong
_SURROUNDED, _APART = 0.8, 0.5  # shares of matches within the hull of the others
_ASKED = 500  # matches at most that are looked for in a hull
_COVERED = 0.7  # share of the cells: a plane over less of the image may be a thing
_OF_A_PLANE = (Geometry.PLANAR, Geometry.PLANAR_OR_PANORAMIC)  # what a flat thing gives, near or far


def background_votes(xy: Float32, size: tuple[int, int], first: RelativePose, second: RelativePose) -> int:
    """Above 0: the first motion is the background's; below 0: the second one's; 0: nobody can tell.

    Args:
        xy: (N, 2) reference pixels of all matches.
        size: (width, height) of the reference image.
        first, second: each with its inliers among all matches.
    """
    surrounded = _within_hull(xy, size, first.inliers, second.inliers)  # the first by the second
    surrounds = _within_hull(xy, size, second.inliers, first.inliers)
    votes = int(surrounds > _SURROUNDED and surrounded < _APART) - int(surrounded > _SURROUNDED and surrounds < _APART)
    general = [pose.geometry is Geometry.CALIBRATED for pose in (first, second)]
    flat = [pose.geometry is Geometry.PLANAR for pose in (first, second)]
    return votes + int(general[0] and flat[1]) - int(general[1] and flat[0])


def covered(xy: Float32, size: tuple[int, int]) -> float:
    """Share of the cells of an image of (width, height) that hold matches (N, 2)."""
    return float((_counts(xy, size) >= _LEAST_IN_CELL).mean())


def doubt(pose: RelativePose, xy: Float32, size: tuple[int, int]) -> str:
    """What a status adds where the pose is that of one plane over a part of the image, which may move by itself; else
    ""."""
    if pose.geometry not in _OF_A_PLANE or covered(xy[pose.inliers], size) >= _COVERED:
        return ""
    return "; the plane covers only a part of the image and may be an independently moving object"


def _counts(xy: Float32, size: tuple[int, int]) -> NDArray[np.intp]:
    x, y = _cells(xy, size)
    return np.bincount(y * _COLUMNS + x, minlength=_COLUMNS * _ROWS).reshape(_ROWS, _COLUMNS)


def _cells(xy: Float32, size: tuple[int, int]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    x, y = np.clip((xy + 0.5) / np.array(size, np.float32), 0.0, 0.9999).T
    return (x * _COLUMNS).astype(np.intp), (y * _ROWS).astype(np.intp)


def _within_hull(xy: Float32, size: tuple[int, int], inner: BoolArray, outer: BoolArray) -> float:
    """Share of some matches that lies within the hull of others, whose lone ones do not count."""
    counts = _counts(xy[outer], size)
    x, y = _cells(xy[outer], size)
    kept = xy[outer][counts[y, x] >= _LEAST_IN_CELL]
    if len(kept) < 3 or not inner.any():
        return 0.0
    hull = cv2.convexHull(kept.astype(np.float32))
    some = xy[inner][:_ASKED].astype(np.float64)
    return float(np.mean([cv2.pointPolygonTest(hull, point, False) >= 0 for point in some.tolist()]))
