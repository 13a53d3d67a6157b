"""Which part of the image the camera carries along: a robot body, a HUD, dirt on the lens. Learnt while it turns.

Where the camera turns, everything in the scene moves in the image, however far away it is, and the rotation tells by
how much and where to. A tile whose picture stays the same all the while is no part of the scene. Nothing is learnt from
a camera that stands, or that drives straight on towards a far horizon: no rotation predicts no motion.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import cv2
import numpy as np
from numpy.typing import NDArray

from ros2_densematch.arrays import BoolArray, Float64
from ros2_densematch.geometry import poses
from ros2_densematch.geometry.camera import Camera

Counts = NDArray[np.uint8]
Thumbnail = NDArray[np.uint8]

_TILE = 8  # pixels of a thumbnail, whose longer side has 256
_DETAIL = 3.0  # pixels of a thumbnail: what varies more slowly is light
_CONTRAST = 2.5  # grey values, root mean square of a tile's detail: with less there is nothing to be seen
_SAME, _OTHER = 0.75, 0.4  # 2 ab / (aa + bb) of a tile in two pictures
_LEAST_PX = 3.0  # of the image and of the thumbnail: what moves less has not moved
_MOVING = 0.7  # share of the tiles that must be expected to move that far
_CHANGED = 0.4  # share of the tiles with contrast that look different; with fewer the camera stands
_SECTORS = 8  # directions of the expected motion
_DIRECTIONS, _SIGHTINGS = 3, 4  # that a tile of the mask has been seen still in, and how often
_REMEMBERED = 12  # sightings at most: later doubts count as well
_FORGETTING = 2  # sightings of another picture, one after the other, after which a tile is forgotten
_LARGEST = 0.4  # share of the image; more is no overlay
_SMALLEST = 0.004  # less is not worth a mask
_LONGEST_S = 2.0  # between two pictures that are compared


@dataclass(frozen=True, eq=False)
class Picture:
    """What is kept of a frame for the comparison with a later one.

    Attributes:
        thumbnail: uint8 (h, w), the small grey image.
        camera: of the full image.
        R_world_from_camera: (3, 3).
        stamp_ns: time.
        segment: rotations of different ones have no known relation.
        scene: bool (rows, columns), tiles whose matches agree with the pose: they are part of the scene; or None.
    """

    thumbnail: Thumbnail
    camera: Camera
    R_world_from_camera: Float64
    stamp_ns: int
    segment: int
    scene: BoolArray | None = None

    @cached_property
    def detail(self) -> NDArray[np.float32]:
        """The thumbnail without its slow variations."""
        values = self.thumbnail.astype(np.float32)
        return np.asarray(values - cv2.GaussianBlur(values, (0, 0), _DETAIL), np.float32)

    @cached_property
    def centres(self) -> Float64:
        """Pixels (tiles, 2) of the image in the middle of each tile, row by row."""
        rows, columns = _shape(self.thumbnail)
        x, y = np.meshgrid(np.arange(columns), np.arange(rows))
        scale = max(self.camera.size) / max(self.thumbnail.shape)
        return np.asarray((np.stack([x, y], -1).reshape(-1, 2) + 0.5) * (_TILE * scale), np.float64)

    @cached_property
    def rays(self) -> Float64:
        """(tiles, 3), through the centres; NaN where the camera model does not reach."""
        return np.column_stack([self.camera.normalise(self.centres), np.ones(len(self.centres))])


@dataclass(frozen=True, eq=False)
class StaticMask:
    """What has been learnt so far. It never changes: each frame leads to the next one.

    Attributes:
        before: the picture that the next ones are compared with, or None.
        still: uint8 (rows, columns), in which directions of motion, a bit each, a tile was seen still.
        sightings: uint8 (rows, columns), how often it was, less how often nobody could tell.
        changes: uint8 (rows, columns), how often, in a row until now, it was seen to be another picture.
        tiles: bool (rows, columns), the mask; None where there is none.
    """

    before: Picture | None = None
    still: Counts | None = None
    sightings: Counts | None = None
    changes: Counts | None = None
    tiles: BoolArray | None = None

    @property
    def share(self) -> float:
        """Of the image that the mask covers."""
        return 0.0 if self.tiles is None else float(self.tiles.mean())

    @property
    def note(self) -> str:
        """What the reason of a frame says about it; "" without a mask."""
        return "" if self.tiles is None else f"; static mask over {self.share:.0%} of the image"

    def pixels(self, size: tuple[int, int]) -> BoolArray | None:
        """Bool (H, W) of an image of (width, height), False where the mask covers it; None without a mask for it."""
        return self._pixels if self.before is not None and self.before.camera.size == size else None

    @cached_property
    def _pixels(self) -> BoolArray | None:
        if self.tiles is None or self.before is None:
            return None
        height, width = self.before.thumbnail.shape
        # the margin right and below, less than a tile, belongs to the last tiles
        row, column = (
            np.minimum(np.arange(n) // _TILE, m - 1) for n, m in zip((height, width), self.tiles.shape, strict=True)
        )
        small = self.tiles[row][:, column].astype(np.uint8)
        return np.asarray(cv2.resize(small, self.before.camera.size, interpolation=cv2.INTER_NEAREST) == 0, np.bool_)

    def is_due(self, picture: Picture) -> bool:
        """Whether the camera has turned far enough, and not too long ago, for a comparison."""
        before = self.before
        if before is None or not _comparable(before, picture):
            return False
        turn = np.radians(poses.rotation_angle_deg(before.R_world_from_camera.T @ picture.R_world_from_camera))
        return bool(turn * max(picture.camera.K[0, 0], picture.camera.K[1, 1]) >= _LEAST_PX)

    def after(self, picture: Picture) -> StaticMask:
        """With what a further frame teaches."""
        before = self.before
        if before is None or before.thumbnail.shape != picture.thumbnail.shape:
            return StaticMask(picture)
        if not _comparable(before, picture):
            return replace(self, before=picture)
        if not self.is_due(picture):  # most frames
            return self
        moves, sector = _expected(before, picture)
        if moves.mean() < _MOVING:
            return self
        alike = _likeness(before, picture)
        with np.errstate(invalid="ignore"):
            same, other = alike > _SAME, alike < _OTHER
        if other.sum() < _CHANGED * max(np.isfinite(alike).sum(), 1) or same.mean() > _LARGEST:
            return replace(self, before=picture)
        if picture.scene is not None:
            same = same & ~picture.scene
        doubtful = moves & np.isfinite(alike) & ~(alike > _SAME)
        return replace(self._with(moves & same, doubtful, moves & other, sector), before=picture)

    def _with(self, same: BoolArray, doubtful: BoolArray, other: BoolArray, sector: Counts) -> StaticMask:
        nothing = np.zeros(same.shape, np.uint8)
        still, sightings, changes = (
            nothing if value is None else value for value in (self.still, self.sightings, self.changes)
        )
        still = np.where(same, still | (np.uint8(1) << sector), still)
        sightings = np.where(same, np.minimum(sightings + 1, _REMEMBERED), sightings)
        sightings = np.where(doubtful, np.maximum(sightings, 1) - 1, sightings).astype(np.uint8)
        changes = np.where(other, np.minimum(changes, 250) + 1, np.where(same, 0, changes)).astype(np.uint8)
        gone = changes >= _FORGETTING
        still, sightings = np.where(gone, 0, still).astype(np.uint8), np.where(gone, 0, sightings).astype(np.uint8)
        directions = np.unpackbits(still[..., None], axis=-1).sum(-1)
        tiles = (directions >= _DIRECTIONS) & (sightings >= _SIGHTINGS)
        # parts without contrast inside an overlay belong to it, as long as nothing moves there
        closed = cv2.morphologyEx(tiles.astype(np.uint8), cv2.MORPH_CLOSE, np.ones((3, 3), np.uint8)) > 0
        tiles = np.asarray(tiles | (closed & (changes == 0)), np.bool_)
        if tiles.mean() > _LARGEST:
            return StaticMask(self.before)
        return StaticMask(self.before, still, sightings, changes, tiles if tiles.mean() > _SMALLEST else None)


def tiles_of_scene(
    thumbnail: Thumbnail, size: tuple[int, int], xy: NDArray[np.float32], inliers: BoolArray
) -> BoolArray:
    """Tiles (rows, columns) in which most matches agree with the pose.

    Args:
        thumbnail: (h, w) of the frame.
        size: (width, height) of the frame.
        xy: (N, 2) its pixels that are matched.
        inliers: bool (N,).
    """
    rows, columns = _shape(thumbnail)
    height, width = thumbnail.shape
    place = ((xy + 0.5) * (np.array([width, height], np.float32) / np.array(size, np.float32)) / _TILE).astype(np.intp)
    index = place[:, 1].clip(0, rows - 1) * columns + place[:, 0].clip(0, columns - 1)
    every, agreeing = (np.bincount(index[chosen], minlength=rows * columns) for chosen in (slice(None), inliers))
    return np.asarray(((agreeing > 1) & (agreeing > 0.7 * every)).reshape(rows, columns), np.bool_)


def _shape(thumbnail: Thumbnail) -> tuple[int, int]:
    return max(thumbnail.shape[0] // _TILE, 1), max(thumbnail.shape[1] // _TILE, 1)


def _comparable(before: Picture, picture: Picture) -> bool:
    seconds = (picture.stamp_ns - before.stamp_ns) * 1e-9
    return (
        before.segment == picture.segment and 0.0 < seconds <= _LONGEST_S and before.camera.size == picture.camera.size
    )


def _expected(before: Picture, picture: Picture) -> tuple[BoolArray, Counts]:
    """Tiles (rows, columns) that a scene at any distance leaves by at least `_LEAST_PX`, and the direction of it."""
    scale = max(before.camera.size) / max(before.thumbnail.shape)
    R = picture.R_world_from_camera.T @ before.R_world_from_camera
    shift = picture.camera.project(before.rays @ R.T) - before.centres
    length = np.linalg.norm(shift, axis=1)
    moves = np.isfinite(length) & (length >= _LEAST_PX * max(scale, 1.0))
    angle = np.arctan2(np.nan_to_num(shift[:, 1]), np.nan_to_num(shift[:, 0]))
    sector = np.floor((angle / (2 * np.pi) + 0.5) * _SECTORS).astype(np.uint8) % _SECTORS
    shape = _shape(before.thumbnail)
    return np.asarray(moves.reshape(shape), np.bool_), sector.reshape(shape)


def _likeness(first: Picture, second: Picture) -> Float64:
    """2 ab / (aa + bb) of the detail in each tile (rows, columns): 1 the same picture, about 0 another one, NaN where
    there is too little contrast."""
    a, b = first.detail, second.detail
    ab, aa, bb = (_tile_means(product) for product in (a * b, a * a, b * b))
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(np.minimum(aa, bb) > _CONTRAST**2, 2 * ab / (aa + bb), np.nan)


def _tile_means(values: NDArray[np.float32]) -> Float64:
    rows, columns = values.shape[0] // _TILE, values.shape[1] // _TILE
    if min(rows, columns) == 0:
        return np.asarray(values.mean(), np.float64).reshape(1, 1)
    tiles = values[: rows * _TILE, : columns * _TILE].reshape(rows, _TILE, columns, _TILE)
    return np.asarray(tiles.mean((1, 3)), np.float64)
