"""Matches that stand still in the picture although the camera moves: HUD, robot body, watermark, dirt on the lens.

A standing camera gives such matches too. The picture decides (`Correspondences.stillness`): where it has changed around
a match that stands still, the match belongs to something in front of the scene; where it has not, the place counts.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ros2_densematch.arrays import BoolArray, Float32
from ros2_densematch.geometry.correspondences import Correspondences

_STILL_PX = 1.0  # at 640 pixels along the longer side
_LEAST, _LEAST_SHARE = 10, 0.05  # fewer static matches are no overlay
UNCHANGED = 0.45  # stillness above which a tile, or in the median the whole picture, has not changed
_LARGEST = 0.4  # share of the picture: more than this is the scene itself
_CENTRE_SHARE = 0.25  # of an overlay that may lie in the middle quarter of the picture
_RING_SHARE = 0.55  # of the outermost tiles: what holds more of them is the background
_SIDE_SHARE = 0.7  # of the tiles of a side: what holds them on two neighbouring sides is the background, too
_BORDER = 0.22  # of the picture's sides: the border region
_BORDER_SHARE = 0.7  # of the static matches in it: then they are a watermark, as COLMAP defines it
_THIN_SHARE = 0.15  # of the static matches around which the picture has changed: then they are one overlay
_RECURS = 0.6  # correlation of the pictures at both ends of a match that joins parts of an overlay


@dataclass(frozen=True, eq=False)
class StaticMatches:
    """What of a pair's matches stands still, and what that is.

    Attributes:
        static: bool (N,), within about a pixel of the same place in both images.
        hidden: bool (N,), static and, as far as the picture tells, in front of a scene that moves.
        standing: the picture as a whole, or the background around what moves, has not changed.
        border: the hidden matches lie in the border region of the image.
    """

    static: BoolArray
    hidden: BoolArray
    standing: bool
    border: bool


def static_matches(m: Correspondences) -> StaticMatches | None:
    """The static matches, or None where there are too few to matter or nothing is known of the picture."""
    still = m.stillness
    if still is None or m.reference_size != m.query_size or len(m) == 0:
        return None
    limit = _STILL_PX * max(1.0, max(m.reference_size) / 640.0)
    static = np.asarray(np.linalg.norm(m.reference_xy - m.query_xy, axis=1) < limit, np.bool_)
    known = np.isfinite(still)
    if static.sum() < max(_LEAST, _LEAST_SHARE * len(m)) or known.mean() < 0.1:
        return None
    nothing = np.zeros(len(m), np.bool_)
    if np.median(still[known]) >= UNCHANGED:
        return StaticMatches(static, nothing, True, False)
    row, column = _tiles(m.reference_xy, m.reference_size, still)
    around = np.nan_to_num(still[row, column], nan=1.0)
    thin = static & (around < UNCHANGED)
    solid = static & ~thin
    occupied = np.zeros(still.shape, np.bool_)
    occupied[row[solid], column[solid]] = True
    ring = np.ones(still.shape, np.bool_)
    ring[1:-1, 1:-1] = False
    if occupied[ring].mean() > _RING_SHARE or (
        thin.sum() <= _THIN_SHARE * static.sum() and _frames(occupied | (np.nan_to_num(still, nan=0.0) >= UNCHANGED))
    ):
        return StaticMatches(static, nothing, True, False)
    middle = _within(m.reference_xy, m.reference_size, 0.25)
    at_border = solid.any() and middle[solid].mean() < _CENTRE_SHARE and occupied.mean() < _LARGEST
    # Large letters leave some tiles unchanged: where most of it is an overlay, what else stands still is, too.
    hidden = static if at_border or thin.sum() > _THIN_SHARE * static.sum() else thin
    border = hidden.any() and (~_within(m.reference_xy[hidden], m.reference_size, _BORDER)).mean() > _BORDER_SHARE
    if m.unchanged is not None and hidden.any():  # text that recurs is matched with itself elsewhere
        hidden = hidden | (~static & (m.unchanged > _RECURS))
    return StaticMatches(static, hidden, False, bool(border))


def _frames(unchanged: BoolArray) -> bool:
    """Whether unchanged tiles (rows, columns) hold most of two neighbouring sides, as the background of a thing that
    passes does; a robot body lies at one side."""
    sides = [unchanged[0], unchanged[:, -1], unchanged[-1], unchanged[:, 0]]
    held = [bool(side.mean() >= _SIDE_SHARE) for side in sides]
    return any(held[k] and held[(k + 1) % 4] for k in range(4))


def _tiles(xy: Float32, size: tuple[int, int], still: Float32) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    rows, columns = still.shape
    x, y = np.clip(xy / np.array(size, np.float32), 0.0, 0.999).T
    return (y * rows).astype(np.intp), (x * columns).astype(np.intp)


def _within(xy: Float32, size: tuple[int, int], margin: float) -> BoolArray:
    """Whether pixels (N, 2) lie farther from every side than `margin` of that side's length."""
    place = xy / np.array(size, np.float32)
    return np.asarray(((place > margin) & (place < 1.0 - margin)).all(1), np.bool_)
