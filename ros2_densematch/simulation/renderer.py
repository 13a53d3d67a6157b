"""Draws a scene of textured rectangles: image, exact depth and surface ids, on the CPU in some 15 ms a VGA frame.

Everything about a plane is linear in the pixel once it is divided by depth: with the ray r = (x, y, 1) and the plane
n . X = d, the inverse depth is w = (n . r) / d, and "inside the rectangle" is four linear inequalities. So visibility
is a z-buffer over spans of pixels with exact inverse depth; only the winners are textured, through one atlas, with two
mip-mapped samples along the direction in which the texture is most squeezed; pixels on outlines are then blended by
the share of each surface in them.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from ros2_densematch.arrays import Float32, Float64, Image
from ros2_densematch.geometry.camera import Camera
from ros2_densematch.simulation.scene import BORDER, LEVELS, Scene
from ros2_densematch.simulation.view import View

BACKGROUND = -1
_BACKGROUND_COLOUR = (178, 196, 214)
_NO_MAP = np.empty(0, np.float32)  # the first map holds both coordinates
_CHUNK = 16384  # pixels that are textured at a time: what fits in the cache
_NEAR = 0.02  # metres
# Samples along the steepest direction of depth, in pixels, each with its share of a mip level, so that the change from
# one level to the next is spread over two small steps.
_TAPS = ((-0.25, 1.0), (0.25, 2**0.5))
_SUBPIXELS = np.array([(-0.125, -0.375), (0.375, -0.125), (-0.375, 0.125), (0.125, 0.375)])  # rotated grid


@dataclass(frozen=True)
class Rendering:
    """One rendered frame.

    Attributes:
        image: uint8 RGB (H, W, 3).
        depth: float32 (H, W), metres along the optical axis, exact at pixel centres; 0 where there is nothing.
        surface: int16 (H, W), index into `Scene.surfaces` at pixel centres; -1 where there is nothing.
    """

    image: Image
    depth: Float32
    surface: NDArray[np.int16]


@dataclass(frozen=True)
class _Planes:
    """Surfaces that may be visible, as linear functions of the pixel (x, y, 1).

    Attributes:
        index: (M,) surface ids.
        inverse_depth: (M, 3).
        edges: (M, 4, 3), not negative inside: u >= 0, u <= length, v >= 0, v <= length (all times inverse depth).
        distance: (M,) from the camera centre to the plane, metres.
    """

    index: NDArray[np.int64]
    inverse_depth: Float64
    edges: Float64
    distance: Float64


def render(scene: Scene, camera: Camera, T_world_from_camera: Float64) -> Rendering:
    """Draws the scene as a pinhole camera sees it.

    Args:
        scene: what there is.
        camera: pinhole camera without distortion.
        T_world_from_camera: (4, 4) pose of the camera, metres.

    Raises:
        ValueError: the camera has lens distortion, or the pose is not a finite rigid 4 x 4 matrix.
    """
    view = View.of(camera, T_world_from_camera)
    planes = _planes(scene, view)
    inverse_depth, winner = _visibility(planes, view.width, view.height)
    image = _texture(scene, planes, view, inverse_depth, winner)
    _blend_outlines(image, planes, winner)
    depth = np.zeros_like(inverse_depth)
    np.divide(1.0, inverse_depth, out=depth, where=inverse_depth > 0)
    ids = np.append(planes.index, BACKGROUND).astype(np.int16)
    return Rendering(image, depth, ids[winner])


def _planes(scene: Scene, view: View) -> _Planes:
    rotation, centre = view.T_world_from_camera[:3, :3], view.T_world_from_camera[:3, 3]
    origin = (np.array([s.origin for s in scene.surfaces]) - centre) @ rotation  # rows: R^T (X - c)
    edge_u = np.array([s.edge_u for s in scene.surfaces]) @ rotation
    edge_v = np.array([s.edge_v for s in scene.surfaces]) @ rotation
    length_u, length_v = np.linalg.norm(edge_u, axis=1), np.linalg.norm(edge_v, axis=1)
    unit_u, unit_v = edge_u / length_u[:, None], edge_v / length_v[:, None]
    normal = np.cross(unit_v, unit_u)
    d = (normal * origin).sum(1)
    index = np.flatnonzero(d < -1e-6)  # the camera stands on the visible side
    origin, unit_u, unit_v, normal, d = (a[index] for a in (origin, unit_u, unit_v, normal, d))
    inverse_depth = normal / d[:, None]
    u = unit_u - (unit_u * origin).sum(1)[:, None] * inverse_depth
    v = unit_v - (unit_v * origin).sum(1)[:, None] * inverse_depth
    edges = np.stack([u, length_u[index, None] * inverse_depth - u, v, length_v[index, None] * inverse_depth - v], 1)
    to_ray = np.linalg.inv(view.K)  # a function of the ray becomes one of the pixel
    return _Planes(index, inverse_depth @ to_ray, edges @ to_ray, -d)


def _visibility(planes: _Planes, width: int, height: int) -> tuple[Float32, NDArray[np.int16]]:
    """Inverse depth (0 where nothing is) and position in `planes` (M where nothing is) of each pixel."""
    inverse_depth = np.zeros((height, width), np.float32)
    winner = np.full((height, width), len(planes.index), np.int16)
    first, last = _spans(planes, width, height)
    columns = np.arange(width, dtype=np.int16)
    rows = np.arange(height)
    for k in np.flatnonzero((first <= last).any(1)):
        inside = np.flatnonzero(first[k] <= last[k])
        top, bottom = int(inside[0]), int(inside[-1]) + 1
        left, right = int(first[k, inside].min()), int(last[k, inside].max()) + 1
        a, b, c = planes.inverse_depth[k]
        x = columns[left:right]
        w = (a * x).astype(np.float32) + (b * rows[top:bottom, None] + c).astype(np.float32)
        nearer = w > inverse_depth[top:bottom, left:right]
        nearer &= x >= first[k, top:bottom, None]
        nearer &= x <= last[k, top:bottom, None]
        np.copyto(inverse_depth[top:bottom, left:right], w, where=nearer)
        np.copyto(winner[top:bottom, left:right], np.int16(k), where=nearer)
    return inverse_depth, winner


def _spans(planes: _Planes, width: int, height: int) -> tuple[NDArray[np.int16], NDArray[np.int16]]:
    """First and last column (M, H) of each surface in each row; empty where first > last.

    In a row every inequality a x + b >= 0 bounds x from one side, so that a rectangle is one span.
    """
    far = planes.inverse_depth[:, None]
    lines = np.concatenate([planes.edges, far, np.array([0, 0, 1 / _NEAR]) - far], 1)  # in front, and not too near
    slope = lines[:, :, :1]
    offset = lines[:, :, 1:2] * np.arange(height) + lines[:, :, 2:]
    with np.errstate(divide="ignore", invalid="ignore"):
        bound = -offset / slope
    low = np.where(slope > 0, bound, -np.inf).max(1)
    high = np.where(slope < 0, bound, np.inf).min(1)
    high[((slope == 0) & (offset < 0)).any(1)] = -np.inf
    first = np.ceil(np.clip(low, 0, width)).astype(np.int16)
    last = np.floor(np.clip(high, -1, width - 1)).astype(np.int16)
    return first, last


def _texture(scene: Scene, planes: _Planes, view: View, inverse_depth: Float32, winner: NDArray[np.int16]) -> Image:
    height, width = winner.shape
    order = np.argsort(winner.ravel(), kind="stable")  # radix sort: each surface's pixels side by side
    y, x = np.divmod(order.astype(np.int32), np.int32(width))
    x_pixel, y_pixel, w = x.astype(np.float32), y.astype(np.float32), inverse_depth.ravel()[order]
    counts = np.bincount(winner.ravel(), minlength=len(planes.index) + 1)
    stops = np.cumsum(counts)
    maps = np.zeros((len(_TAPS), height * width), np.complex64)  # x and y as one number: they travel together
    for k in np.flatnonzero(counts[:-1]):
        for start in range(int(stops[k] - counts[k]), int(stops[k]), _CHUNK):
            part = slice(start, min(start + _CHUNK, int(stops[k])))
            positions = _atlas_positions(scene, planes, view, int(k), x_pixel[part], y_pixel[part], w[part])
            for target, value in zip(maps, positions, strict=True):
                target[order[part]] = value.view(np.complex64)[:, 0]
    at = maps.view(np.float32).reshape(len(_TAPS), height, width, 2)
    one, two = (cv2.remap(scene.atlas, xy, _NO_MAP, cv2.INTER_LINEAR) for xy in at)
    image = np.asarray(cv2.addWeighted(one, 0.5, two, 0.5, 0), np.uint8)
    if counts[-1]:
        image[winner == len(planes.index)] = _BACKGROUND_COLOUR
    return image


def _atlas_positions(
    scene: Scene, planes: _Planes, view: View, k: int, x: Float32, y: Float32, w: Float32
) -> list[Float32]:
    """Atlas position (N, 2) of N pixels of surface k, for each of the samples."""
    surface = planes.index[k]
    texels = scene.texels[surface]
    density = texels / np.array(scene.surfaces[surface].size)
    a, b = planes.inverse_depth[k, :2]
    steep = np.array([a, b]) / max(float(np.hypot(a, b)), 1e-12)
    # Across, a pixel covers z / f metres; along, 1 / cos of the angle between ray and normal more, and the cosine is
    # distance / (z |r|). The samples share the long side between them.
    per_pixel = float(np.max(density)) / float(np.sqrt(view.K[0, 0] * view.K[1, 1]))
    footprint = np.float32(per_pixel / (planes.distance[k] * len(_TAPS))) / w
    np.maximum(footprint, np.float32(per_pixel), out=footprint)
    footprint /= w
    u_line, v_line = planes.edges[k, 0] * density[0], planes.edges[k, 2] * density[1]
    corner = scene.atlas_xy[surface]
    result = []
    for shift, bias in _TAPS:
        dx, dy = shift * steep
        # 2^l and l for the largest l with 2^l <= footprint, from the exponent bits of the float
        level = (footprint * np.float32(bias)).view(np.int32) >> 23
        np.minimum(np.maximum(level, 127, out=level), 126 + LEVELS, out=level)
        here = w + np.float32(a * dx + b * dy)
        here *= (level << 23).view(np.float32)
        u = _line_at(u_line - 2 * texels[0] * planes.inverse_depth[k], x, y, dx, dy)
        u /= here
        # Level l starts 2 W (1 - 2^-l) texels and 2 l borders to the right of level 0.
        u += level * np.float32(2 * BORDER)
        xy = np.empty((len(x), 2), np.float32)
        np.add(u, np.float32(corner[0] + 2 * texels[0] - 0.5 - 127 * 2 * BORDER), out=xy[:, 0])
        v = _line_at(v_line, x, y, dx, dy)
        v /= here
        np.add(v, np.float32(corner[1] - 0.5), out=xy[:, 1])
        result.append(xy)
    return result


def _line_at(line: Float64, x: Float32, y: Float32, dx: float, dy: float) -> Float32:
    """A function that is linear in the pixel, at (x + dx, y + dy)."""
    value = x * np.float32(line[0])
    value += y * np.float32(line[1])
    value += np.float32(line[0] * dx + line[1] * dy + line[2])
    return np.asarray(value, np.float32)


def _blend_outlines(image: Image, planes: _Planes, winner: NDArray[np.int16]) -> None:
    """Blends, in place, pixels where two surfaces meet by the share of four sub-pixels that each of them covers.

    The colour of the surface that covers the smaller part is that of the neighbouring pixel which it owns.
    """
    height, width = winner.shape
    other = np.zeros((height, width), np.int32)  # offset of a neighbour (in the flat image) that belongs to another
    across, down = winner[:, 1:] != winner[:, :-1], winner[1:] != winner[:-1]
    np.copyto(other[1:], np.int32(-width), where=down)
    np.copyto(other[:-1], np.int32(width), where=down)
    np.copyto(other[:, 1:], np.int32(-1), where=across)
    np.copyto(other[:, :-1], np.int32(1), where=across)
    pixel = np.flatnonzero(other)
    y, x = np.divmod(pixel.astype(np.int32), np.int32(width))
    neighbour = pixel + other.ravel()[pixel]
    owner = winner.ravel()
    empty = np.array([[0, 0, 1e-12], [0, 0, 1], [0, 0, 1], [0, 0, 1], [0, 0, 1]])  # nothing: infinitely far, everywhere
    lines = np.concatenate([planes.inverse_depth[:, None], planes.edges], 1)
    table = np.concatenate([lines, empty[None]])
    ids = np.stack([owner[pixel], owner[neighbour]]).astype(np.intp)
    slope_x, slope_y, value = (np.take(table[:, :, i].T.astype(np.float32), ids, axis=1) for i in range(3))
    value += slope_x * x.astype(np.float32) + slope_y * y.astype(np.float32)
    mine = np.zeros(len(pixel), np.float32)
    for dx, dy in _SUBPIXELS.astype(np.float32):
        here = value + (slope_x * dx + slope_y * dy)
        w = np.where(here[1:].min(0) >= 0, here[0], np.float32(0))
        mine += np.where(w[0] >= w[1], np.float32(1 / len(_SUBPIXELS)), np.float32(0))
    flat = image.reshape(-1, 3)
    colour = mine[:, None] * flat[pixel] + (1 - mine)[:, None] * flat[neighbour]
    flat[pixel] = (colour + np.float32(0.5)).astype(np.uint8)
