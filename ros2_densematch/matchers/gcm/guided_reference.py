"""What guidance keeps of a keyframe: the places that can be followed, and templates that are made once."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import cached_property

import cv2
import numpy as np
from numpy.typing import NDArray

from ros2_densematch.arrays import Float64
from ros2_densematch.matchers.common.template_alignment import Templates, Window, make_templates
from ros2_densematch.matchers.gcm.guided_image import GuideImage

POINTS = 1000  # about as many are followed: one in each cell
_RESOLUTION = 64  # positions are told apart to the 64th of a pixel
# Most templates that are kept at a level; a keyframe that is followed for long meets more points than are ever used at
# a time. Beyond it those of the present call alone stay.
_MOST = 3000
_CORNER_BLOCK = 5
_LEAST_CORNER = 3e-6  # least eigenvalue of the structure tensor of a place that can be aligned, grey in [0, 1]
_MARGIN = 8  # pixels: a patch about a place lies inside the image


class _Kept:
    """Templates by the keys of their positions, in storage that grows by doubling.

    Args:
        make: gives templates of positions (N, 2).
    """

    def __init__(self, make: Callable[[Float64], Templates]) -> None:
        self._make = make
        self._rows: dict[int, int] = {}
        self._storage = make(np.zeros((0, 2)))

    def of(self, xy: Float64) -> Templates:
        """The templates of positions (N, 2)."""
        keys = _keys(xy).tolist()
        missing = {key: number for number, key in enumerate(keys) if key not in self._rows}
        if len(self._rows) + len(missing) > _MOST:
            used = [key for key in dict.fromkeys(keys) if key in self._rows]
            self._storage = self._storage.select(np.array([self._rows[key] for key in used], np.intp))
            self._rows = {key: row for row, key in enumerate(used)}
        if missing:
            self._add(list(missing), self._make(xy[list(missing.values())]))
        return self._storage.select(np.array([self._rows[key] for key in keys], np.intp))

    def _add(self, keys: list[int], templates: Templates) -> None:
        first = len(self._rows)
        last = first + len(keys)
        if last > len(self._storage.contrast):
            room = max(last, 2 * first) - first
            empty = Templates(*(np.empty((room, *part.shape[1:]), part.dtype) for part in templates))
            self._storage = self._storage.select(np.arange(first)).joined(empty)
        for storage, part in zip(self._storage, templates, strict=True):
            storage[first:last] = part
        self._rows.update(zip(keys, range(first, last), strict=True))


class GuidedReference:
    """A keyframe's side of guided matches; safe to use from several threads.

    Args:
        image: the keyframe.
    """

    def __init__(self, image: GuideImage) -> None:
        self.image = image
        width, height = image.size
        self.cell = max(8, round((width * height / POINTS) ** 0.5))
        self._lock = threading.Lock()
        self._kept: dict[tuple[int, int], _Kept] = {}

    @cached_property
    def places(self) -> Float64:
        """(M, 2) pixels: in each cell the place that can be aligned best, the best first; no network is asked."""
        strength = np.asarray(cv2.cornerMinEigenVal(self.image.grey, _CORNER_BLOCK), np.float32)
        width, height = self.image.size
        columns, rows = -(-width // self.cell), -(-height // self.cell)
        padded = np.full((rows * self.cell, columns * self.cell), -1.0, np.float32)
        padded[:height, :width] = strength
        y, x = np.divmod(np.arange(self.cell**2), self.cell)
        padded[:_MARGIN], padded[:, :_MARGIN] = -1.0, -1.0
        padded[height - _MARGIN :], padded[:, width - _MARGIN :] = -1.0, -1.0
        cells = padded.reshape(rows, self.cell, columns, self.cell).swapaxes(1, 2).reshape(rows * columns, -1)
        best = cells.argmax(1)
        value = cells[np.arange(len(cells)), best]
        row, column = np.divmod(np.arange(rows * columns), columns)
        xy = np.stack([column * self.cell + x[best], row * self.cell + y[best]], 1).astype(np.float64)
        kept = (value > _LEAST_CORNER) & self.image.admits(xy, _MARGIN - 1)
        order = np.argsort(-value[kept], kind="stable")
        return np.asarray(xy[kept][order], np.float64)

    def cells(self, xy: Float64) -> NDArray[np.int64]:
        """Number (N,) of the cell in which each position (N, 2) lies."""
        column, row = (xy // self.cell).astype(np.int64).T
        return np.asarray(row * 65536 + column)

    def templates(self, xy: Float64, level: int, window: Window) -> Templates:
        """Templates of points.

        Args:
            xy: (N, 2) pixels of the full image.
            level: of the pyramid at which the patch is sampled.
            window: in pixels of that level.
        """
        slot = level, window.side
        with self._lock:
            if slot not in self._kept:
                self._kept[slot] = _Kept(lambda at: self._made(at, level, window))
            return self._kept[slot].of(xy)

    def _made(self, xy: Float64, level: int, window: Window) -> Templates:
        return make_templates(self.image.level(level), (xy + 0.5) / 2**level - 0.5, window)


def _keys(xy: Float64) -> NDArray[np.int64]:
    """One integer per position."""
    x, y = np.rint(xy * _RESOLUTION).astype(np.int64).T
    return np.asarray((y << 32) + x)
