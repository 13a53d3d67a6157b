"""Scenes of textured planes with exact truth: what `misleading_scenes.py` builds and `misleading.py` measures on.

A layer is a picture with holes on a plane in space. The nearest layer without a hole is what a pixel shows, so that the
true place of a pixel in another view follows from its layer alone, also where the layer has moved in between.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from ros2_densematch.arrays import Float64, Image

NOWHERE = -1
_EDGE_PX = 4.5  # a place that is hidden in the other view, yet so near to the match, may be either side of an edge


@dataclass(frozen=True)
class Layer:
    """A picture on a plane.

    Attributes:
        picture: uint8 RGBA (h, w, 4); alpha 0 is a hole.
        corner: (3,) metres, the centre of its first pixel.
        across, down: (3,) metres a pixel.
        moved: (3,) metres by which it stands elsewhere in the second view.
    """

    picture: Image
    corner: Float64
    across: Float64
    down: Float64
    moved: Float64 | None = None

    def plane(self, second: bool) -> Float64:
        """(3, 3) map from its pixels (x, y, 1) to the world."""
        corner = self.corner + self.moved if second and self.moved is not None else self.corner
        return np.stack([self.across, self.down, corner], 1)


@dataclass(frozen=True)
class Eye:
    """A camera: (3, 3) K, (3, 3) rotation and (3,) place, the columns of the rotation its axes in the world (x right,
    y down, z forward); (width, height) pixels."""

    K: Float64
    rotation: Float64
    place: Float64
    size: tuple[int, int]

    def homography(self, layer: Layer, second: bool) -> Float64:
        """(3, 3) from pixels of the layer to pixels of the view; the third row gives the depth."""
        plane = layer.plane(second)
        plane[:, 2] -= self.place
        return np.asarray(self.K @ self.rotation.T @ plane, np.float64)


@dataclass(frozen=True)
class Seen:
    """What a camera sees: uint8 RGB (H, W, 3), the number of the layer (H, W) or `NOWHERE`, depth (H, W) metres."""

    image: Image
    layer: NDArray[np.int32]
    depth: NDArray[np.float32]


def look(layers: list[Layer], eye: Eye, *, second: bool, sky: Image, samples: int = 2) -> Seen:
    """Renders the layers with `samples` squared rays a pixel.

    Args:
        sky: uint8 RGB (h, w, 3), stretched over what no layer covers.
    """
    width, height = eye.size
    wide, high = width * samples, height * samples
    finer = np.array([[samples, 0, (samples - 1) / 2], [0, samples, (samples - 1) / 2], [0, 0, 1.0]])
    image = cv2.resize(sky, (wide, high), interpolation=cv2.INTER_LINEAR)
    nearest = np.full((high, wide), np.inf, np.float32)
    number = np.full((high, wide), NOWHERE, np.int32)
    x, y = np.meshgrid(np.arange(wide, dtype=np.float32), np.arange(high, dtype=np.float32))
    for k, layer in enumerate(layers):
        forward = finer @ eye.homography(layer, second)
        if abs(np.linalg.det(forward)) < 1e-12:
            continue
        back = np.linalg.inv(forward)
        back = (back / np.abs(back).max()).astype(np.float64)
        third = (back[2, 0] * x + back[2, 1] * y + back[2, 2]).astype(np.float32)
        # (u, v, 1) * depth = inverse of the homography times (x, y, 1): its third entry is one over the depth
        scale = np.linalg.inv(forward)
        inverse = (scale[2, 0] * x + scale[2, 1] * y + scale[2, 2]).astype(np.float32)
        with np.errstate(divide="ignore"):
            depth = np.where(inverse > 1e-6, 1 / inverse, np.inf).astype(np.float32)
        u = (back[0, 0] * x + back[0, 1] * y + back[0, 2]) / third
        v = (back[1, 0] * x + back[1, 1] * y + back[1, 2]) / third
        h, w = layer.picture.shape[:2]
        candidate = (depth < nearest) & (u > -0.5) & (u < w - 0.5) & (v > -0.5) & (v < h - 0.5)
        if not candidate.any():
            continue
        rows, columns = np.nonzero(candidate)
        box = slice(rows.min(), rows.max() + 1), slice(columns.min(), columns.max() + 1)
        colour, there = _painted(layer.picture, back, third[box], u[box], v[box], candidate[box], box)
        nearest[box][there] = depth[box][there]
        number[box][there] = k
        image[box][there] = colour[there]
    small = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
    middle = samples // 2
    return Seen(
        np.ascontiguousarray(small), number[middle::samples, middle::samples], nearest[middle::samples, middle::samples]
    )


def _painted(
    picture: Image,
    back: Float64,
    third: NDArray[np.float32],
    u: NDArray[np.float32],
    v: NDArray[np.float32],
    candidate: NDArray[np.bool_],
    box: tuple[slice, slice],
) -> tuple[Image, NDArray[np.bool_]]:
    """Colours of the pixels of a box from the level of the picture that fits each, and where there is no hole."""
    # picture pixels a view pixel: the root of the determinant of the map back, which falls with the cube of `third`
    area = np.abs(np.linalg.det(back)) / np.abs(third) ** 3
    level = np.clip(np.rint(0.5 * np.log2(np.maximum(area, 1e-9)) + 0.25), 0, 6).astype(np.int8)
    colour = np.zeros((*u.shape, 3), np.uint8)
    alpha = np.zeros(u.shape, np.uint8)
    chain = picture
    for k in range(int(level[candidate].max()) + 1):
        if k:
            chain = cv2.resize(
                chain, (max(1, chain.shape[1] // 2), max(1, chain.shape[0] // 2)), interpolation=cv2.INTER_AREA
            )
        mine = candidate & (level == k)
        if not mine.any():
            continue
        factor = np.array([picture.shape[1] / chain.shape[1], picture.shape[0] / chain.shape[0]])
        at_x = ((u[mine] + 0.5) / factor[0] - 0.5).astype(np.float32)
        at_y = ((v[mine] + 0.5) / factor[1] - 0.5).astype(np.float32)
        count = len(at_x)
        row = 4096  # remap wants pictures with sides below 32767
        padded = -(-count // row) * row
        grid_x, grid_y = np.zeros(padded, np.float32), np.zeros(padded, np.float32)
        grid_x[:count], grid_y[:count] = at_x, at_y
        found = cv2.remap(
            chain, grid_x.reshape(-1, row), grid_y.reshape(-1, row), cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
        ).reshape(-1, 4)[:count]
        colour[mine], alpha[mine] = found[:, :3], found[:, 3]
    return colour, candidate & (alpha > 127)


@dataclass(frozen=True)
class LayeredPair:
    """Two views of layers, and where every place of the first truly lies in the second."""

    layers: list[Layer]
    eyes: tuple[Eye, Eye]
    seen: tuple[Seen, Seen]

    def true_place(self, xy0: Float64, number: NDArray[np.int32]) -> Float64:
        """(N, 2) pixels of view 1 of places (N, 2) of view 0 on the layers of these numbers (N,); NaN where there is
        none."""
        out = np.full((len(xy0), 2), np.nan)
        for k in np.unique(number):
            if k == NOWHERE:
                continue
            layer, mine = self.layers[k], number == k
            first = self.eyes[0].homography(layer, False)
            total = self.eyes[1].homography(layer, True) @ np.linalg.inv(first)
            h = np.c_[xy0[mine], np.ones(mine.sum())] @ total.T
            with np.errstate(divide="ignore", invalid="ignore"):
                out[mine] = h[:, :2] / np.where(h[:, 2:] > 1e-9, h[:, 2:], np.nan)
        return out

    def shows(self, xy1: Float64, number: NDArray[np.int32]) -> NDArray[np.bool_]:
        """Whether view 1 shows these layers (N,) at these places (N, 2), give or take a pixel."""
        seen = self.seen[1].layer
        h, w = seen.shape
        within = np.isfinite(xy1).all(1) & (xy1 >= -0.5).all(1) & (xy1 < np.array([w, h]) - 0.5).all(1)
        x, y = np.rint(np.nan_to_num(xy1)).astype(int).T
        result = np.zeros(len(xy1), np.bool_)
        for dy in (-1, 0, 1):
            for dx in (-1, 0, 1):
                result |= seen[(y + dy).clip(0, h - 1), (x + dx).clip(0, w - 1)] == number
        return result & within

    def error(self, xy0: Float64, xy1: Float64) -> Float64:
        """How far matches (N, 2), (N, 2) lie from the true place, pixels of view 1; infinite where that is not in view,
        NaN where it cannot be told."""
        seen = self.seen[0].layer
        h, w = seen.shape
        best = np.full(len(xy0), np.inf)
        hidden = np.full(len(xy0), np.inf)
        x, y = np.floor(xy0).astype(int).T
        for dy in (0, 1):  # at an edge a place may belong to either layer
            for dx in (0, 1):
                number = seen[(y + dy).clip(0, h - 1), (x + dx).clip(0, w - 1)]
                place = self.true_place(xy0, number)
                away = np.linalg.norm(place - xy1, axis=1)
                away[~np.isfinite(away)] = np.inf
                shown = self.shows(place, number)
                best = np.minimum(best, np.where(shown, away, np.inf))
                hidden = np.minimum(hidden, away)
        best[~np.isfinite(best) & (hidden < _EDGE_PX)] = np.nan
        return best

    def relative_pose(self) -> Float64:
        """(4, 4): points of camera 0 to camera 1, metres."""
        first, second = self.eyes
        pose = np.eye(4)
        pose[:3, :3] = second.rotation.T @ first.rotation
        pose[:3, 3] = second.rotation.T @ (first.place - second.place)
        return pose
