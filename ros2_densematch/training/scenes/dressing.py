"""What changes from one rendered group of views to the next: light, sky, scattered objects and textured boxes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ros2_densematch.arrays import Float32
from ros2_densematch.simulation.light import Light
from ros2_densematch.training.images import TrainingDataError, read_training_image
from ros2_densematch.training.scenes.model import SceneModel, TextureAtlas, load_scene, model_of, placed
from ros2_densematch.training.scenes.ray_casting import FAR, Lighting, World
from ros2_densematch.training.scenes.views import Candidate, Region, region_of


def random_lighting(
    rng: np.random.Generator, region: Region, near: NDArray[np.floating], *, shadow_chance: float = 0.7
) -> Lighting:
    """The sun outdoors, one to three lamps indoors, and light from all sides; tinted at random."""

    def tint(spread: float) -> Float32:
        return np.exp(rng.normal(0, spread, 3)).astype(np.float32)

    lights: list[Light] = []
    if not region.roof:
        elevation, azimuth = np.radians(rng.uniform(12, 75)), rng.uniform(-np.pi, np.pi)
        direction = np.array(
            [np.cos(elevation) * np.sin(azimuth), np.sin(elevation), np.cos(elevation) * np.cos(azimuth)], np.float32
        )
        strength = np.float32(rng.uniform(0.2, 1.3))
        lights.append(Light(direction, strength * tint(0.08), sun=True, shadow=bool(rng.random() < shadow_chance)))
    else:
        for _ in range(int(rng.integers(1, 4))):
            x = np.clip(near[0] + rng.normal(0, 2.5), *region.x)
            z = np.clip(near[2] + rng.normal(0, 2.5), *region.z)
            position = np.array([x, region.floor + rng.uniform(1.6, 2.6), z], np.float32)
            # One lamp with shadows is enough to be seen and costs one more ray a sample.
            shadow = bool(not lights and rng.random() < shadow_chance)
            lights.append(Light(position, np.float32(rng.uniform(0.2, 1.0)) * tint(0.12), shadow=shadow))
    return Lighting(
        np.float32(rng.uniform(0.25, 0.65)) * tint(0.08),
        lights,
        zenith=np.clip(np.array([0.35, 0.55, 0.9], np.float32) * rng.uniform(0.4, 1.1) * tint(0.15), 0, 1),
        horizon=np.clip(np.array([0.8, 0.85, 0.9], np.float32) * rng.uniform(0.5, 1.1) * tint(0.1), 0, 1),
        gloss=float(rng.uniform(0.02, 0.25)) if rng.random() < 0.5 else 0.0,
    )


def expose(rng: np.random.Generator, picture: Float32, noise: float = 0.004) -> NDArray[np.uint8]:
    """Linear picture to uint8: gain for a random mean brightness, highlights rolled off, a little noise."""
    gain = np.float32(rng.uniform(0.32, 0.55) / max(float(picture.mean()), 1e-3))
    out = picture * gain
    # Straight up to 0.8, then an exponential shoulder towards 1, as cameras do.
    shoulder = np.float32(0.8)
    over = out > shoulder
    out[over] = 1 - (1 - shoulder) * np.exp(-(out[over] - shoulder) / (1 - shoulder))
    out = out + rng.standard_normal(out.shape, dtype=np.float32) * np.float32(noise)
    result: NDArray[np.uint8] = (np.clip(out, 0, 1) * 255 + 0.5).astype(np.uint8)
    return result


def box_model(image: NDArray[np.uint8]) -> SceneModel:
    """A unit cube that stands on y = 0, centred on x = z = 0, with a picture on every side."""
    triangles, uv = [], []
    for axis in range(3):
        for side in (-0.5, 0.5):
            corners = np.zeros((4, 3), np.float32)
            corners[:, axis] = side
            across, up = ((2, 1), (0, 2), (0, 1))[axis]
            corners[:, across] = [-0.5, 0.5, 0.5, -0.5]
            corners[:, up] = [-0.5, -0.5, 0.5, 0.5]
            corners[:, 1] += 0.5
            texture = np.array([[0, 1], [1, 1], [1, 0], [0, 0]], np.float32)
            for triple in ([0, 1, 2], [0, 2, 3]):
                triangles.append(corners[triple])
                uv.append(texture[triple])
    count = len(triangles)
    return model_of(
        "box",
        np.stack(triangles),
        np.stack(uv),
        np.ones(count, np.int64),
        np.ones((count, 3), np.float32),
        TextureAtlas([image]),
    )


@dataclass(frozen=True)
class _Spot:
    position: Float32
    distance: float


class SceneLibrary:
    """Scenes, objects and textures of the training scenes folder, loaded on first use."""

    def __init__(self, folder: Path | str) -> None:
        """Args: folder: holds scenes/*.glb and, optionally, objects/*.glb and textures/*.jpg."""
        root = Path(folder)
        self.scene_paths = sorted((root / "scenes").glob("*.glb"))
        self.object_paths = sorted((root / "objects").glob("*.glb"))
        self.texture_paths = sorted((root / "textures").glob("*.jpg"))
        if not self.scene_paths:
            raise TrainingDataError(f"no scenes/*.glb in {root}: point --data to the training data")
        self._worlds: dict[Path, World] = {}
        self._objects: dict[Path, SceneModel] = {}

    def files(self) -> list[Path]:
        return [*self.scene_paths, *self.object_paths, *self.texture_paths]

    def world(self, path: Path) -> World:
        """The scene of a file, ready for ray casting."""
        if path not in self._worlds:
            self._worlds[path] = World([load_scene(path)])
        return self._worlds[path]

    def region(self, path: Path) -> Region:
        return region_of(self.world(path).models[0])

    def scattered(self, world: World, first: Candidate, rng: np.random.Generator) -> World:
        """The world with objects and textured boxes on level surfaces that the first view sees."""
        spots = _level_spots(world, first, rng, int(rng.integers(3, 10)))
        models: list[SceneModel] = []
        for spot in spots:
            yaw = float(rng.uniform(-np.pi, np.pi))
            if self.texture_paths and (not self.object_paths or rng.random() < 0.4):
                box = box_model(read_training_image(self.texture_paths[int(rng.integers(len(self.texture_paths)))]))
                size = float(np.exp(rng.uniform(np.log(0.06), np.log(0.28)))) * spot.distance
                models.append(placed(box, size, yaw, spot.position))
            elif self.object_paths:
                path = self.object_paths[int(rng.integers(len(self.object_paths)))]
                if path not in self._objects:
                    self._objects[path] = load_scene(path)
                low, high = self._objects[path].bounds
                # Small things are enlarged until they fill a fair part of the picture.
                wanted = float(rng.uniform(0.06, 0.3)) * spot.distance
                scale = float(np.clip(wanted / float((high - low).max()), 0.5, 8.0))
                models.append(placed(self._objects[path], scale, yaw, spot.position))
        return world.with_models(models) if models else world


def _level_spots(world: World, first: Candidate, rng: np.random.Generator, count: int) -> list[_Spot]:
    origins, directions = first.coarse.rays()
    hits = world.cast(origins, directions)
    normals = np.zeros((len(origins), 3), np.float32)
    for k, model in enumerate(world.models):
        mine = hits.part == k
        normals[mine] = model.normals[hits.face[mine]]
    level = np.flatnonzero((hits.t < FAR) & (np.abs(normals[:, 1]) > 0.95) & (directions[:, 1] < 0) & (hits.t > 0.7))
    chosen = rng.permutation(level)[:count]
    return [
        _Spot((origins[i] + directions[i] * hits.t[i]).astype(np.float32), float(np.clip(hits.t[i], 0.7, 12)))
        for i in chosen
    ]
