"""Ray casting of textured scenes: colour with light, shadow and sky, and exact depth."""

from __future__ import annotations

from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ros2_densematch.arrays import Float32
from ros2_densematch.simulation.light import Light
from ros2_densematch.simulation.view import View
from ros2_densematch.training.scenes.model import Ints, SceneModel

FAR = np.float32(1e30)
_EPSILON = np.float32(1e-3)


@dataclass(frozen=True)
class Hits:
    """First surface on each ray: t (N,) in units of the direction's length (FAR: none), part, face, barycentric u v."""

    t: Float32
    part: Ints
    face: Ints
    u: Float32
    v: Float32


class World:
    """Several scene models that can be hit by rays."""

    def __init__(self, models: list[SceneModel]) -> None:
        self.models = models
        self._embree = [_embree_scene(model) for model in models]

    def with_models(self, models: list[SceneModel]) -> World:
        """This world and more models; what was built before is used again."""
        world = World(models)
        world.models = self.models + world.models
        world._embree = self._embree + world._embree
        return world

    def cast(self, origins: Float32, directions: Float32) -> Hits:
        """The first hit of each ray; origins and directions float32 (N, 3)."""
        count = len(origins)
        t = np.full(count, FAR, np.float32)
        part, face = np.full(count, -1, np.int64), np.zeros(count, np.int64)
        u, v = np.zeros(count, np.float32), np.zeros(count, np.float32)
        for k, scene in enumerate(self._embree):
            found = scene.run(origins, directions, output=1)
            nearer = (found["primID"] >= 0) & (found["tfar"] < t)
            t[nearer], part[nearer] = found["tfar"][nearer], k
            face[nearer] = found["primID"][nearer]
            u[nearer], v[nearer] = found["u"][nearer], found["v"][nearer]
        return Hits(t, part, face, u, v)

    def blocked(self, origins: Float32, directions: Float32, reach: Float32) -> NDArray[np.bool_]:
        """Whether anything lies on each ray nearer than `reach` (in units of the direction's length)."""
        result = np.zeros(len(origins), np.bool_)
        for scene in self._embree:
            result |= scene.run(origins, directions, dists=reach, query="OCCLUDED") >= 0
        return result


def _embree_scene(model: SceneModel) -> Any:
    try:
        scenes, meshes = import_module("embreex.rtcore_scene"), import_module("embreex.mesh_construction")
    except ImportError as error:
        message = 'rendering training scenes needs ray casting: pip install ".[train]" in a clone of densematch'
        raise ModuleNotFoundError(message, name="embreex") from error
    scene: Any = scenes.EmbreeScene()
    corners = model.triangles.reshape(-1, 3)
    meshes.TriangleMesh(scene, corners, np.arange(len(corners), dtype=np.int32).reshape(-1, 3))
    return scene


@dataclass(frozen=True)
class Lighting:
    """The light in a scene, and what stands behind it."""

    ambient: Float32
    lights: list[Light]
    zenith: Float32 = field(default_factory=lambda: np.array([0.35, 0.55, 0.9], np.float32))
    horizon: Float32 = field(default_factory=lambda: np.array([0.8, 0.85, 0.9], np.float32))
    gloss: float = 0.0


def depth_of(world: World, view: View) -> Float32:
    """Depth along z at the pixel centres, float32 (H, W), metres; infinite where the ray leaves the scene."""
    t = world.cast(*view.rays()).t
    return np.where(t < FAR, t, np.float32(np.inf)).reshape(view.height, view.width)


def render(world: World, view: View, lighting: Lighting, supersampling: int = 2) -> Float32:
    """Linear picture before exposure, float32 (H, W, 3), mean of supersampling^2 rays a pixel."""
    total = np.zeros((view.height * view.width, 3), np.float32)
    shifts = (np.arange(supersampling) + 0.5) / supersampling - 0.5
    samples = [(x, y) for y in shifts for x in shifts]
    for k, (x, y) in enumerate(samples):
        origins, directions = view.rays(float(x), float(y))
        hits = world.cast(origins, directions)
        # Each of a pixel's rays rounds the mip level at another place: together they blend neighbouring levels.
        bias = (k + 0.5) / len(samples) - 0.5
        step = 1 / (float(view.K[0, 0]) * supersampling)
        total += _shade(world, lighting, origins, directions, hits, step, bias)
    mean: Float32 = total / np.float32(len(samples))
    return mean.reshape(view.height, view.width, 3)


def _shade(
    world: World, lighting: Lighting, origins: Float32, directions: Float32, hits: Hits, step: float, bias: float
) -> Float32:
    out = np.empty_like(directions)
    missed = hits.part < 0
    out[missed] = sky(lighting, directions[missed])
    seen = np.flatnonzero(~missed)
    if not len(seen):
        return out
    towards = directions[seen]
    t = hits.t[seen]
    points = origins[seen] + towards * t[:, None]
    towards = _unit(towards)
    albedo, normal = np.empty((len(seen), 3), np.float32), np.empty((len(seen), 3), np.float32)
    for k, model in enumerate(world.models):
        of_part = np.flatnonzero(hits.part[seen] == k)
        if not len(of_part):
            continue
        rays = seen[of_part]
        face = hits.face[rays]
        u, v = hits.u[rays, None], hits.v[rays, None]
        corner_uv = model.uv[face]
        uv = corner_uv[:, 0] * (1 - u - v) + corner_uv[:, 1] * u + corner_uv[:, 2] * v
        mine = model.normals[face]
        normal[of_part] = mine
        slant = np.abs(_dot(mine, towards[of_part]))
        footprint = t[of_part] * np.float32(step) / np.sqrt(np.maximum(slant, 0.05))
        level = np.log2(np.maximum(footprint, 1e-9)) + model.texel_level[face] + np.float32(bias)
        albedo[of_part] = model.atlas.sample(model.texture[face], uv, level) * model.colour[face]
    normal *= np.where(_dot(normal, towards) > 0, np.float32(-1), np.float32(1))[:, None]  # faces are double sided
    # A little more light from above than from below keeps surfaces of different tilt apart in the shade.
    light = lighting.ambient * (1 + np.float32(0.25) * normal[:, 1:2])
    shine = np.zeros_like(light) if lighting.gloss > 0 else None
    start = points + normal * (_EPSILON * np.maximum(1, t))[:, None]
    for lamp in lighting.lights:
        position, colour = lamp.position.astype(np.float32), lamp.colour.astype(np.float32)
        if lamp.sun:
            direction, reach = np.broadcast_to(_unit(position[None]), points.shape), None
            strength = np.maximum(normal @ direction[0], 0)
        else:
            offset = position - points
            reach = np.sqrt(_dot(offset, offset))
            direction = offset / np.maximum(reach, np.float32(1e-6))[:, None]
            strength = np.maximum(_dot(normal, direction), 0) / (np.float32(0.3) + np.float32(0.12) * reach**2)
        if lamp.shadow:
            lit = np.flatnonzero(strength > 0)
            far = np.full(len(lit), 1e4, np.float32) if reach is None else reach[lit] * np.float32(0.999)
            dark = world.blocked(start[lit], np.ascontiguousarray(direction[lit]), far)
            strength[lit[dark]] = 0
        light += strength[:, None] * colour
        if shine is not None:
            half = _unit(direction - towards)
            shine += (np.maximum(_dot(normal, half), 0) ** 40 * (strength > 0))[:, None] * colour
    albedo *= light
    if shine is not None:
        albedo += np.float32(lighting.gloss) * shine
    out[seen] = albedo
    return out


def _dot(a: Float32, b: Float32) -> Float32:
    result: Float32 = np.einsum("ij,ij->i", a, b)
    return result


def _unit(vectors: Float32) -> Float32:
    result: Float32 = vectors / np.maximum(np.sqrt(_dot(vectors, vectors)), np.float32(1e-9))[:, None]
    return result


def sky(lighting: Lighting, directions: Float32) -> Float32:
    """Colour of the background in each direction (N, 3): horizon to zenith, with soft clouds."""
    unit = _unit(directions)
    x, y, z = unit[:, 0], unit[:, 1], unit[:, 2]
    cloud = np.sin(3.1 * x + 1.3) * np.sin(2.7 * z + 0.4) + 0.5 * np.sin(7.3 * x + 4 * y) * np.sin(6.1 * z - 5 * y)
    height = np.clip(y, 0, 1)[:, None] ** np.float32(0.6)
    colour = lighting.horizon * (1 - height) + lighting.zenith * height
    result: Float32 = (colour + 0.12 * np.clip(cloud, 0, 1)[:, None]).astype(np.float32)
    return result
