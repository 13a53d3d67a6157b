"""Turning by EXIF orientation: pictures for matcher and eye, matches there and back. Coordinates in results are always
those of the stored pixels."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from ros2_densematch.geometry.correspondences import Correspondences, DenseWarp

# For each orientation the map of offsets from the middle, x right and y down, from the stored to the turned picture.
_MAPS = {
    1: ((1, 0), (0, 1)),
    2: ((-1, 0), (0, 1)),
    3: ((-1, 0), (0, -1)),
    4: ((1, 0), (0, -1)),
    5: ((0, 1), (1, 0)),
    6: ((0, -1), (1, 0)),
    7: ((0, -1), (-1, 0)),
    8: ((0, 1), (-1, 0)),
}
_BACK = {6: 8, 8: 6}  # every other turn undoes itself

Matches = TypeVar("Matches", bound=Correspondences)
Pixels = TypeVar("Pixels", bound=np.generic)


def back(orientation: int) -> int:
    """The turn that undoes one of 1 to 8."""
    return _BACK.get(orientation, orientation)


def turned_picture(picture: NDArray[Pixels], orientation: int) -> NDArray[Pixels]:
    """A picture (H, W) or (H, W, C), or any map of one, turned as EXIF's orientation (1 to 8) asks for."""
    M = _MAPS[orientation]
    swapped = M[0][0] == 0
    turned = picture.swapaxes(0, 1) if swapped else picture
    right, down = (M[0][1], M[1][0]) if swapped else (M[0][0], M[1][1])
    return np.ascontiguousarray(turned[::down, ::right])


def turned_size(size: tuple[int, int], orientation: int) -> tuple[int, int]:
    """(width, height) of the turned picture."""
    return (size[1], size[0]) if orientation >= 5 else size


def turned_matches(matches: Matches, reference: int, query: int) -> Matches:
    """The matches of the two pictures turned by these orientations; with `back` of them, those of the stored pictures.

    What compares the two pictures at the same place (`stillness`, `unchanged`) is lost where the two turn differently.
    """
    if reference == query == 1:
        return matches
    sizes = turned_size(matches.reference_size, reference), turned_size(matches.query_size, query)
    Mr, Mq = (np.array(_MAPS[o], np.float32) for o in (reference, query))
    changes: dict[str, Any] = {
        "reference_xy": _turned_points(matches.reference_xy, matches.reference_size, reference),
        "query_xy": _turned_points(matches.query_xy, matches.query_size, query),
        "reference_size": sizes[0],
        "query_size": sizes[1],
    }
    if matches.precision is not None:
        full = Mq @ matches.precision[:, [0, 1, 1, 2]].reshape(-1, 2, 2) @ Mq.T
        changes["precision"] = np.ascontiguousarray(full.reshape(-1, 4)[:, [0, 1, 3]])
    if matches.linear is not None:
        changes["linear"] = Mq @ matches.linear @ Mr.T
    if matches.warp is not None:
        warp = matches.warp
        changes["warp"] = DenseWarp.later(lambda: _turned_warp(warp, reference, query), *sizes)
    if matches.stillness is not None:
        same = reference == query
        changes["stillness"] = turned_picture(matches.stillness, reference) if same else None
        changes["unchanged"] = matches.unchanged if same else None
    return replace(matches, **changes)


def _turned_warp(warp: DenseWarp, reference: int, query: int) -> DenseWarp:
    xy = turned_picture(warp.xy, reference)
    return DenseWarp(
        _turned_points(xy.reshape(-1, 2), warp.query_size, query).reshape(xy.shape),
        turned_picture(warp.certainty, reference),
        turned_size(warp.reference_size, reference),
        turned_size(warp.query_size, query),
    )


def _turned_points(xy: NDArray[np.float32], size: tuple[int, int], orientation: int) -> NDArray[np.float32]:
    M = np.array(_MAPS[orientation], np.float64)
    middle, turned = (0.5 * (np.array(s, np.float64) - 1.0) for s in (size, turned_size(size, orientation)))
    return np.asarray((xy.astype(np.float64) - middle) @ M.T + turned, np.float32)
