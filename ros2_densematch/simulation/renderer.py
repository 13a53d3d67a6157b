"""Draws a scene of textured rectangles: image, exact depth and surface ids, on the CPU in some 15 ms a VGA frame.

Everything about a plane is linear in the pixel once it is divided by depth: with the ray r = (x, y, 1) and the plane
n . X = d, the inverse depth is w = (n . r) / d, and "inside the rectangle" is four linear inequalities. So visibility is
a z-buffer over spans of pixels with exact inverse depth; only the winners are textured, through one atlas, with three
mip-mapped samples along the direction in which the texture is most squeezed; pixels on outlines are then blended by the
share of each surface in them.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from ros2_densematch.geometry.camera import Camera
from ros2_densematch.simulation.scene import BORDER, LEVELS, Scene

Image = NDArray[np.uint8]
Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]

BACKGROUND = -1
_BACKGROUND_COLOUR = (178, 196, 214)
_NEAR = 0.02  # metres
# Samples along the steepest direction of depth, in pixels, each with its share of a mip level, so that the change from
# one level to the next is spread over three small steps.
_TAPS = ((-1 / 3, 1.0), (0.0, 2 ** (1 / 3)), (1 / 3, 2 ** (2 / 3)))
_SUBPIXELS = np.array([(-0.125, -0.375), (0.375, -0.125), (-0.375, 0.125), (0.125, 0.375)])  # rotated grid


@dataclass(frozen=True)
class Rendering:
    """One drawn frame.

    Attributes:
        image: uint8 RGB (H, W, 3).
        depth: float32 (H, W), metres along the optical axis, exact at pixel centres; 0 where there is nothing.
        surface: int16 (H, W), index into `Scene.surfaces` at pixel centres; -1 where there is nothing.
    """

    image: Image
    depth: Floats
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
    inverse_depth: Doubles
    edges: Doubles
    distance: Doubles


def render(scene: Scene, camera: Camera, T_world_from_camera: Doubles) -> Rendering:
    """Draws the scene as a pinhole camera sees it.

    Args:
        scene: what there is.
        camera: pinhole camera without distortion.
        T_world_from_camera: (4, 4) pose of the camera, metres.

    Raises:
        ValueError: the camera has lens distortion, or the pose is not a finite rigid 4 x 4 matrix.
    """
    if camera.distortion_model != "none" and np.any(camera.D):
        raise ValueError(f"the renderer draws pinhole cameras only, got {camera.distortion_model}: drop the distortion")
    pose = np.asarray(T_world_from_camera, np.float64)
    if pose.shape != (4, 4) or not np.isfinite(pose).all() or abs(np.linalg.det(pose[:3, :3]) - 1) > 1e-6:
        raise ValueError(f"T_world_from_camera must be a finite rigid (4, 4) matrix, got {pose.tolist()}")
    planes = _planes(scene, camera, pose)
    inverse_depth, winner = _visibility(planes, camera.width, camera.height)
    image = _texture(scene, planes, camera, inverse_depth, winner)
    _blend_outlines(image, planes, winner)
    depth = np.zeros_like(inverse_depth)
    np.divide(1.0, inverse_depth, out=depth, where=inverse_depth > 0)
    ids = np.append(planes.index, BACKGROUND).astype(np.int16)
    return Rendering(image, depth, ids[winner])


def _planes(scene: Scene, camera: Camera, pose: Doubles) -> _Planes:
    rotation, centre = pose[:3, :3], pose[:3, 3]
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
    to_ray = np.linalg.inv(camera.K)  # a function of the ray becomes one of the pixel
    return _Planes(index, inverse_depth @ to_ray, edges @ to_ray, -d)


def _visibility(planes: _Planes, width: int, height: int) -> tuple[Floats, NDArray[np.int16]]:
    """Inverse depth (0 where nothing is) and position in `planes` (M where nothing is) of each pixel."""
    inverse_depth = np.zeros((height, width), np.float32)
    winner = np.full((height, width), len(planes.index), np.int16)
    columns = np.arange(width)
    rows = np.arange(height, dtype=np.float64)
    pending = []
    for k in range(len(planes.index)):
        # In a row each inequality a x + b >= 0 bounds x from one side: the rectangle is one span. w <= 1 / near as well.
        lines = np.vstack([planes.edges[k], planes.inverse_depth[k], (0, 0, 1 / _NEAR) - planes.inverse_depth[k]])
        offset = lines[:, 1, None] * rows + lines[:, 2, None]
        slope = np.broadcast_to(lines[:, :1], offset.shape)
        with np.errstate(divide="ignore", invalid="ignore"):
            bound = -offset / slope
        low = np.where(slope > 0, bound, -np.inf).max(0)
        high = np.where(slope < 0, bound, np.inf).min(0)
        high[((slope == 0) & (offset < 0)).any(0)] = -np.inf
        first = np.clip(np.ceil(low), 0, width).astype(np.int64)
        last = np.clip(np.floor(high), -1, width - 1).astype(np.int64)
        inside = np.flatnonzero(first <= last)
        if len(inside):
            top, bottom = int(inside[0]), int(inside[-1]) + 1
            left, right = int(first[inside].min()), int(last[inside].max()) + 1
            a, b, c = planes.inverse_depth[k]
            nearest = max(a * x + b * y for x in (left, right) for y in (top, bottom)) + c
            pending.append((nearest, k, top, bottom, left, right, first, last))
    pending.sort(key=lambda item: (-item[0], item[1]))  # near first: later ones mostly lose
    for _, k, top, bottom, left, right, first, last in pending:
        a, b, c = planes.inverse_depth[k]
        w = (a * columns[left:right]).astype(np.float32) + (b * rows[top:bottom, None] + c).astype(np.float32)
        x = columns[left:right]
        nearer = w > inverse_depth[top:bottom, left:right]
        nearer &= x >= first[top:bottom, None]
        nearer &= x <= last[top:bottom, None]
        np.copyto(inverse_depth[top:bottom, left:right], w, where=nearer)
        np.copyto(winner[top:bottom, left:right], np.int16(k), where=nearer)
    return inverse_depth, winner


def _texture(
    scene: Scene, planes: _Planes, camera: Camera, inverse_depth: Floats, winner: NDArray[np.int16]
) -> Image:
    height, width = winner.shape
    order = np.argsort(winner.ravel(), kind="stable")  # radix sort: each surface's pixels side by side
    y, x = np.divmod(order.astype(np.int32), np.int32(width))
    x_pixel, y_pixel, w = x.astype(np.float32), y.astype(np.float32), inverse_depth.ravel()[order]
    counts = np.bincount(winner.ravel(), minlength=len(planes.index) + 1)
    stops = np.cumsum(counts)
    maps = np.zeros((len(_TAPS), 2, height * width), np.float32)
    for k in np.flatnonzero(counts[:-1]):
        part = slice(int(stops[k] - counts[k]), int(stops[k]))
        _atlas_positions(scene, planes, camera, int(k), x_pixel[part], y_pixel[part], w[part], maps[:, :, part])
    samples = [
        cv2.remap(scene.atlas, m[0].reshape(height, width), m[1].reshape(height, width), cv2.INTER_LINEAR) for m in maps
    ]
    pair = cv2.addWeighted(samples[0], 0.5, samples[2], 0.5, 0)
    mean = cv2.addWeighted(pair, 2 / 3, samples[1], 1 / 3, 0).reshape(-1, 3)
    mean[int(stops[-1] - counts[-1]) :] = _BACKGROUND_COLOUR
    image = np.empty((height * width, 3), np.uint8)
    image[order] = mean
    return image.reshape(height, width, 3)


def _atlas_positions(
    scene: Scene, planes: _Planes, camera: Camera, k: int, x: Floats, y: Floats, w: Floats, out: Floats
) -> None:
    """Atlas position of each pixel for each of the samples, into `out` (taps, 2, N)."""
    surface = planes.index[k]
    metres = scene.surfaces[surface].size
    texels = scene.texels[surface]
    density = (texels / metres).astype(np.float64)
    a, b, c = planes.inverse_depth[k]
    steep = np.array([a, b]) / max(float(np.hypot(a, b)), 1e-12)
    # Across, a pixel covers z / f metres; along, 1 / cos of the angle between ray and normal more, and the cosine is
    # distance / (z |r|). The three samples share the long side between them.
    per_pixel = float(np.max(density)) / float(np.sqrt(camera.K[0, 0] * camera.K[1, 1]))
    longest = np.float32(per_pixel / (planes.distance[k] * len(_TAPS))) / (w * w)
    footprint = np.maximum(longest, np.float32(per_pixel) / w)
    lines = (planes.edges[k, 0] * density[0], planes.edges[k, 2] * density[1])
    at_pixel = [np.float32(q[0]) * x + (np.float32(q[1]) * y + np.float32(q[2])) for q in lines]
    corner = scene.atlas_xy[surface]
    for tap, (shift, bias) in enumerate(_TAPS):
        scale, level = _mip_level(footprint, bias)
        dx, dy = shift * steep
        here = w + np.float32(a * dx + b * dy)
        u = (at_pixel[0] + np.float32(lines[0][0] * dx + lines[0][1] * dy)) / here
        v = (at_pixel[1] + np.float32(lines[1][0] * dx + lines[1][1] * dy)) / here
        # Level l starts 2 W (1 - 2^-l) texels and 2 l borders to the right of level 0.
        u = (u - np.float32(2 * texels[0])) / scale + level * np.float32(2 * BORDER)
        out[tap, 0] = u + np.float32(corner[0] + 2 * texels[0] - 0.5)
        out[tap, 1] = v / scale + np.float32(corner[1] - 0.5)


def _mip_level(footprint: Floats, bias: float) -> tuple[Floats, Floats]:
    """2^l and l for the largest l with 2^l <= footprint * bias, from the exponent bits of the float."""
    bits = (footprint * np.float32(bias)).view(np.int32)
    level = (bits >> 23) - 127
    np.clip(level, 0, LEVELS - 1, out=level)
    scale = ((level + 127) << 23).view(np.float32)
    return scale, level.astype(np.float32)


def _blend_outlines(image: Image, planes: _Planes, winner: NDArray[np.int16]) -> None:
    """Blends, in place, pixels where surfaces meet by the share of four sub-pixels that each of them covers.

    The colour of a surface that covers only a part of the pixel is that of the neighbouring pixel that it owns.
    """
    height, width = winner.shape
    changes = np.zeros((height, width), np.bool_)
    across, down = winner[:, 1:] != winner[:, :-1], winner[1:] != winner[:-1]
    changes[:, 1:] |= across
    changes[:, :-1] |= across
    changes[1:] |= down
    changes[:-1] |= down
    y, x = np.nonzero(changes)
    if not len(y):
        return
    steps = np.array([(0, 0), (0, 1), (0, -1), (1, 0), (-1, 0)])
    near_y = np.clip(y + steps[:, :1], 0, height - 1)
    near_x = np.clip(x + steps[:, 1:], 0, width - 1)
    candidate = winner[near_y, near_x]  # (5, E)
    empty = np.array([[0, 0, 1e-12], [0, 0, 1], [0, 0, 1], [0, 0, 1], [0, 0, 1]])  # nothing: infinitely far, everywhere
    lines = np.concatenate([planes.inverse_depth[:, None], planes.edges], 1)
    table = np.concatenate([lines, empty[None]]).astype(np.float64)
    value = np.empty((5, *candidate.shape), np.float32)
    for i in range(5):
        row = table[:, i]
        value[i] = row[candidate, 0] * x + row[candidate, 1] * y + row[candidate, 2]
    slopes = table[:, :, :2].astype(np.float32)
    weight = np.zeros((len(steps), len(y)), np.float32)
    everyone = np.arange(len(y))
    for dx, dy in _SUBPIXELS.astype(np.float32):
        here = value + (slopes[:, :, 0] * dx + slopes[:, :, 1] * dy).T[:, candidate]
        inside = (here[1:] >= 0).all(0)
        nearest = np.where(inside, here[0], 0).argmax(0)
        weight[nearest, everyone] += 1 / len(_SUBPIXELS)
    colour = np.einsum("ce,cek->ek", weight, image[near_y, near_x].astype(np.float32))
    image[y, x] = (colour + 0.5).astype(np.uint8)
