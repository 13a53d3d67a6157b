"""Scenes made of textured rectangles, with all their textures packed into one mip-mapped atlas."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from ros2_densematch.arrays import Float64, Image
from ros2_densematch.simulation.light import Light
from ros2_densematch.simulation.textures import Texture

LEVELS = 6  # mip levels; texture sides are multiples of 2 ** (LEVELS - 1), so that every level halves exactly
BORDER = 4  # texels of repeated border around each level: linear interpolation never reaches a neighbour
# Not a multiple of a power of two: rows would fall into the same cache lines.
_ATLAS_WIDTH = 6151
_AMBIENT = 0.62  # share of the light that comes from everywhere
_REACH_M = 5.0  # distance at which a lamp's light has fallen to half
_ATLAS_HEIGHT = 32767  # cv2.remap takes sources of at most this many texels a side


@dataclass(frozen=True)
class Surface:
    """A textured rectangle, seen from the side to which its normal points only.

    Attributes:
        origin: (3,) corner of texel (0, 0), world frame, metres.
        edge_u: (3,) from the origin along the texture's x, metres; perpendicular to `edge_v`.
        edge_v: (3,) from the origin along the texture's y, metres. The visible side is the one from which the texture
            is not mirrored: its normal is the cross product of edge_v and edge_u.
        texture: paints the surface.
        density: texels per metre.
    """

    origin: Float64
    edge_u: Float64
    edge_v: Float64
    texture: Texture
    density: float = 220.0

    def __post_init__(self) -> None:
        for name in ("origin", "edge_u", "edge_v"):
            value = np.asarray(getattr(self, name), np.float64)
            if value.shape != (3,) or not np.isfinite(value).all():
                raise ValueError(f"{name} must be three finite numbers in metres, got {value}")
            object.__setattr__(self, name, value)
        length_u, length_v = float(np.linalg.norm(self.edge_u)), float(np.linalg.norm(self.edge_v))
        if min(length_u, length_v) <= 0 or abs(float(self.edge_u @ self.edge_v)) > 1e-6 * length_u * length_v:
            raise ValueError(f"edges must be perpendicular and not zero, got {self.edge_u} and {self.edge_v}")
        if self.density <= 0:
            raise ValueError(f"density must be positive, in texels per metre, got {self.density}")

    @property
    def size(self) -> tuple[float, float]:
        """Lengths along u and v in metres."""
        return float(np.linalg.norm(self.edge_u)), float(np.linalg.norm(self.edge_v))


class Scene:
    """Surfaces and their atlas. Built once; drawing is deterministic in `seed`.

    Attributes:
        surfaces: the rectangles; the index in this list is the surface id of the renderer.
        atlas: uint8 RGB, every texture's mip levels side by side.
        atlas_xy: float64 (S, 2), atlas position (x, y) of the upper left corner of texel (0, 0), level 0.
        texels: int64 (S, 2), width and height of level 0.
    """

    def __init__(self, surfaces: Sequence[Surface], *, light: Light | None = None, seed: int = 0):
        if not surfaces:
            raise ValueError("a scene needs at least one surface, got none")
        self.surfaces = tuple(surfaces)
        unit = 2 ** (LEVELS - 1)
        sizes = np.array([s.size for s in surfaces]) * np.array([s.density for s in surfaces])[:, None]
        self.texels = (np.maximum(np.ceil(sizes / unit), 1) * unit).astype(np.int64)
        self.atlas_xy, height = _pack(self.texels)
        self.atlas: Image = np.zeros((height, _ATLAS_WIDTH, 3), np.uint8)
        for i, surface in enumerate(surfaces):
            width, rows = (int(v) for v in self.texels[i])
            texture = surface.texture(rows, width, surface.density, np.random.default_rng([seed, i]))
            if light is not None:
                texture = _lit(texture, surface, light)
            self._store(i, texture)

    def _store(self, index: int, texture: Image) -> None:
        x, y = (int(v) for v in self.atlas_xy[index])
        for level in range(LEVELS):
            padded = cv2.copyMakeBorder(texture, BORDER, BORDER, BORDER, BORDER, cv2.BORDER_REPLICATE)
            self.atlas[y - BORDER : y - BORDER + padded.shape[0], x - BORDER : x - BORDER + padded.shape[1]] = padded
            x += texture.shape[1] + 2 * BORDER
            if level + 1 < LEVELS:
                smaller = (texture.shape[1] // 2, texture.shape[0] // 2)
                texture = cv2.resize(texture, smaller, interpolation=cv2.INTER_AREA).astype(np.uint8, copy=False)


def _pack(texels: NDArray[np.int64]) -> tuple[Float64, int]:
    """Shelf packing, tallest first; each block is twice as wide as its texture, for the levels beside it."""
    corner = np.zeros((len(texels), 2), np.float64)
    x = y = shelf = 0
    for i in np.argsort(-texels[:, 1], kind="stable"):
        width, height = 2 * int(texels[i, 0]) + 2 * LEVELS * BORDER, int(texels[i, 1]) + 2 * BORDER
        if width > _ATLAS_WIDTH:
            raise ValueError(f"surface {i} has {texels[i, 0]} texels a row: lower its density or split it")
        if x + width > _ATLAS_WIDTH:
            x, y, shelf = 0, y + shelf, 0
        corner[i] = (x + BORDER, y + BORDER)
        x, shelf = x + width, max(shelf, height)
    if y + shelf > _ATLAS_HEIGHT:
        raise ValueError(f"the textures need {y + shelf} atlas rows, {_ATLAS_HEIGHT} are possible: lower the density")
    return corner, y + shelf


def _lit(texture: Image, surface: Surface, light: Light) -> Image:
    """Lambert shading: it does not depend on the viewer, so it may be part of the texture. There are no shadows."""
    rows, columns = 33, 33  # the light varies slowly: a coarse grid, enlarged
    v, u = np.meshgrid(np.linspace(0, 1, rows), np.linspace(0, 1, columns), indexing="ij")
    points = surface.origin + u[..., None] * surface.edge_u + v[..., None] * surface.edge_v
    to_light = np.broadcast_to(light.position, points.shape) if light.sun else light.position - points
    distance = np.linalg.norm(to_light, axis=-1)
    normal = np.cross(surface.edge_v, surface.edge_u)
    cosine = np.clip((to_light @ normal) / (np.linalg.norm(normal) * np.maximum(distance, 1e-6)), 0, 1)
    nearness = 1.0 if light.sun else 1 + (distance / _REACH_M) ** 2
    gain = _AMBIENT + (1 - _AMBIENT) * 1.6 * cosine / nearness
    size = (texture.shape[1], texture.shape[0])
    field = cv2.resize(gain.astype(np.float32), size, interpolation=cv2.INTER_LINEAR)
    return np.asarray(np.clip(texture * (field[..., None] * light.colour.astype(np.float32)), 0, 255), np.uint8)


def box(
    centre: ArrayLike,
    size: ArrayLike,
    textures: Texture | Sequence[Texture],
    *,
    yaw: float = 0.0,
    density: float = 220.0,
) -> list[Surface]:
    """The six faces of a box, seen from outside.

    Args:
        centre: (x, y, z) in metres, world frame with z up.
        size: extent along x, y and z in metres, before the rotation.
        textures: one for all faces, or one each for +x, -x, +y, -y, +z, -z.
        yaw: rotation about z in radians.
        density: texels per metre.
    """
    faces = list(textures) if isinstance(textures, Sequence) else [textures] * 6
    if len(faces) != 6:
        raise ValueError(f"a box has one texture or six, got {len(faces)}")
    c, s = np.cos(yaw), np.sin(yaw)
    rotation = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1.0]])
    half = np.asarray(size, np.float64) / 2
    result = []
    # (normal, direction of the texture's x, of its y): edge_v x edge_u = normal
    axes = (
        ((1, 0, 0), (0, 1, 0), (0, 0, -1)),
        ((-1, 0, 0), (0, -1, 0), (0, 0, -1)),
        ((0, 1, 0), (-1, 0, 0), (0, 0, -1)),
        ((0, -1, 0), (1, 0, 0), (0, 0, -1)),
        ((0, 0, 1), (0, -1, 0), (-1, 0, 0)),
        ((0, 0, -1), (0, -1, 0), (1, 0, 0)),
    )
    for (normal, u, v), texture in zip(axes, faces, strict=True):
        n_axis, u_axis, v_axis = (np.asarray(a, np.float64) for a in (normal, u, v))
        corner = (n_axis - u_axis - v_axis) * half
        result.append(
            Surface(
                np.asarray(centre, np.float64) + rotation @ corner,
                rotation @ (2 * u_axis * half),
                rotation @ (2 * v_axis * half),
                texture,
                density,
            )
        )
    return result


def room(lower: ArrayLike, upper: ArrayLike, textures: Sequence[Texture], *, density: float = 170.0) -> list[Surface]:
    """The six walls of a room between two corners, seen from inside.

    Args:
        lower: smallest (x, y, z) in metres.
        upper: largest (x, y, z) in metres.
        textures: of the walls at the largest x, smallest x, largest y, smallest y, of the ceiling and of the floor.
        density: texels per metre.
    """
    low, high = np.asarray(lower, np.float64), np.asarray(upper, np.float64)
    outside = box((low + high) / 2, high - low, list(textures), density=density)
    # Seen from the other side left and right change places: start at the other end of u and walk back.
    return [Surface(s.origin + s.edge_u, -s.edge_u, s.edge_v, s.texture, s.density) for s in outside]
