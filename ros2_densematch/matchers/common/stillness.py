"""Which parts of two pictures show the same thing at the same place: a standing camera, or what it carries in front.

Matches alone cannot tell a standing camera from an overlay that is printed over two different pictures: the pixels
between the matches can.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from ros2_densematch.arrays import Float32
from ros2_densematch.geometry.correspondences import Correspondences
from ros2_densematch.geometry.overlay import UNCHANGED
from ros2_densematch.matchers.encoding import Encoding

Thumbnail = NDArray[np.uint8]

_LONGER_SIDE = 256  # pixels of a thumbnail
_TILE = 21
_WINDOW = 7  # pixels of a thumbnail
_BLUR = 6.0  # brightness that varies slowly belongs to the light, not to the scene
_SHIFT = 7  # pixels: a picture does not look like itself at that distance
_STANDS_PX, _SOME, _SOME_SHARE = 2.0, 10, 0.05  # with fewer matches that stand still nobody asks
_CONTRAST = 1.5  # grey values: where less changes by the shift, there is nothing to be seen


def thumbnail(image: NDArray[np.uint8]) -> Thumbnail:
    """A small grey version (h, w) of an image (H, W, 3) or (H, W), longer side 256 pixels or less."""
    scale = min(1.0, _LONGER_SIDE / max(image.shape[:2]))
    size = max(round(image.shape[1] * scale), 1), max(round(image.shape[0] * scale), 1)
    # grey first: one channel is made small in less than half the time of three
    grey = image if image.ndim == 2 else cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    return np.asarray(cv2.resize(grey, size, interpolation=cv2.INTER_AREA), np.uint8)


def stillness(a: Thumbnail, b: Thumbnail) -> Float32 | None:
    """How alike two thumbnails of one size are at the same place, tile by tile.

    Returns:
        float32 (rows, columns): 1 where nothing has changed, about 0 where the two show different things, NaN where
        there is too little contrast to tell. Tiles are of equal size and cover the image but for a margin of less than
        a tile on the right and below. None where the thumbnails differ in size or are smaller than a tile.
    """
    rows, columns = a.shape[0] // _TILE, a.shape[1] // _TILE
    if a.shape != b.shape or min(rows, columns) == 0:
        return None
    first, second = _detail(a), _detail(b)
    strength = [max(float(np.percentile(np.abs(detail), 80)), 1e-3) for detail in (first, second)]
    second = second * np.float32(strength[0] / strength[1])  # the exposure may have changed
    here = _tile_medians(np.abs(first - second), rows, columns)
    shifts = ((_SHIFT, 0), (-_SHIFT, 0), (0, _SHIFT), (0, -_SHIFT))
    there = np.mean([np.abs(first - np.roll(second, shift, (0, 1))) for shift in shifts], axis=0)
    apart = _tile_medians(there, rows, columns)
    return np.where(apart > _CONTRAST, 1.0 - here / np.maximum(apart, 1e-6), np.nan).astype(np.float32)


def stands(reference: Encoding, query: Encoding) -> bool:
    """Whether the picture as a whole has not changed, or nothing is known of it."""
    if reference.thumbnail is None or query.thumbnail is None or reference.size != query.size:
        return True
    still = stillness(reference.thumbnail, query.thumbnail)
    return still is None or bool(np.isnan(still).mean() > 0.9) or bool(np.nanmedian(still) >= UNCHANGED)


def with_stillness(m: Correspondences, reference: Encoding, query: Encoding) -> Correspondences:
    """The matches with the stillness of their pictures, where some of them stand still: then it is asked for."""
    if reference.thumbnail is None or query.thumbnail is None or reference.size != query.size or len(m) == 0:
        return m
    moved = np.abs(m.reference_xy - m.query_xy).max(1)
    if np.count_nonzero(moved < _STANDS_PX) < max(_SOME, _SOME_SHARE * len(m)):
        return m
    a, b = reference.thumbnail, query.thumbnail
    return replace(m, stillness=stillness(a, b), unchanged=unchanged(a, b, m))


def unchanged(a: Thumbnail, b: Thumbnail, m: Correspondences) -> Float32:
    """Correlation (N,) of two thumbnails in a small window at the same place, around the reference end of each match or
    around its query end, whichever is smaller."""
    first, second = _detail(a), _detail(b)

    def mean(values: Float32) -> Float32:
        return np.asarray(cv2.boxFilter(values, -1, (_WINDOW, _WINDOW)), np.float32)

    ma, mb = mean(first), mean(second)
    va, vb = mean(first * first) - ma * ma, mean(second * second) - mb * mb
    correlation = (mean(first * second) - ma * mb) / np.sqrt(np.maximum(va * vb, 1.0))
    ends = []
    for xy in (m.reference_xy, m.query_xy):
        place = (xy + 0.5) * (np.array(a.shape[::-1], np.float32) / np.array(m.reference_size, np.float32))
        x, y = np.clip(place, 0, np.array(a.shape[::-1]) - 1).astype(np.intp).T
        ends.append(correlation[y, x])
    return np.asarray(np.minimum(*ends), np.float32)


def _detail(grey: Thumbnail) -> Float32:
    values = grey.astype(np.float32)
    return np.asarray(values - cv2.GaussianBlur(values, (0, 0), _BLUR), np.float32)


def _tile_medians(values: NDArray[Any], rows: int, columns: int) -> NDArray[Any]:
    tiles = values[: rows * _TILE, : columns * _TILE].reshape(rows, _TILE, columns, _TILE).transpose(0, 2, 1, 3)
    return np.asarray(np.median(tiles.reshape(rows, columns, -1), axis=2))
