"""Textured triangle scenes from GLB files, as flat arrays for ray casting: triangles, texture coordinates, mip maps."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from ros2_densematch.arrays import Float32
from ros2_densematch.training.images import TrainingDataError

Ints = NDArray[np.int64]


class TextureAtlas:
    """All mip levels of all textures of a scene in one flat array, so that any mixture of texels is one gather.

    Coordinates repeat. Texture 0 is plain white, for materials that have a colour only.
    """

    def __init__(self, images: list[NDArray[np.uint8]]) -> None:
        """Args: images: uint8 RGB (h, w, 3), of any sizes."""
        white = np.full((1, 1, 3), 255, np.uint8)
        levels: list[list[NDArray[np.uint8]]] = [_mip_levels(image) for image in [white, *images]]
        depth = max(len(chain) for chain in levels)
        shape = (len(levels), depth)
        self._offset = np.zeros(shape, np.int64)
        self._width, self._height = np.ones(shape, np.int64), np.ones(shape, np.int64)
        self._last = np.array([len(chain) - 1 for chain in levels])
        self.base_size = np.array([chain[0].shape[1::-1] for chain in levels], np.float32)
        flat, start = [], 0
        for k, chain in enumerate(levels):
            for j in range(depth):
                image = chain[min(j, len(chain) - 1)]
                if j < len(chain):
                    flat.append(image.reshape(-1, 3))
                    self._offset[k, j], start = start, start + image.shape[0] * image.shape[1]
                else:
                    self._offset[k, j] = self._offset[k, j - 1]
                self._height[k, j], self._width[k, j] = image.shape[:2]
        self._texels = np.concatenate(flat)

    def sample(self, texture: Ints, uv: Float32, level: Float32) -> Float32:
        """Bilinear lookup in the nearest mip level.

        Args:
            texture: (N,) texture number.
            uv: (N, 2) texture coordinates as glTF stores them (v downwards), repeating.
            level: (N,) mip level, any real number; rounded and clamped.

        Returns:
            float32 (N, 3) colours in [0, 1].
        """
        chosen = np.clip(np.rint(level), 0, self._last[texture]).astype(np.int64)
        width, height = self._width[texture, chosen], self._height[texture, chosen]
        offset = self._offset[texture, chosen]
        x = uv[:, 0] * width - 0.5
        y = uv[:, 1] * height - 0.5
        x0, y0 = np.floor(x).astype(np.int64), np.floor(y).astype(np.int64)
        fx, fy = (x - x0).astype(np.float32)[:, None], (y - y0).astype(np.float32)[:, None]
        xa, xb = x0 % width, (x0 + 1) % width
        ya, yb = offset + (y0 % height) * width, offset + ((y0 + 1) % height) * width
        texels = self._texels
        top = texels[ya + xa] * (1 - fx) + texels[ya + xb] * fx
        bottom = texels[yb + xa] * (1 - fx) + texels[yb + xb] * fx
        result: Float32 = (top * (1 - fy) + bottom * fy) * np.float32(1 / 255)
        return result


def _mip_levels(image: NDArray[np.uint8]) -> list[NDArray[np.uint8]]:
    chain = [np.ascontiguousarray(image)]
    while max(chain[-1].shape[:2]) > 1:
        height, width = chain[-1].shape[:2]
        half = (max(1, width // 2), max(1, height // 2))
        smaller = cv2.resize(chain[-1], half, interpolation=cv2.INTER_AREA)
        chain.append(np.asarray(smaller, np.uint8).reshape(half[1], half[0], 3))
    return chain


@dataclass(frozen=True)
class SceneModel:
    """A scene in world coordinates: metres, y up.

    Attributes:
        name: of the file, without its ending.
        triangles: float32 (F, 3, 3) corners.
        uv: float32 (F, 3, 2) texture coordinates of the corners.
        normals: float32 (F, 3) unit face normals; their side means nothing.
        texture: int64 (F,) texture number in the atlas.
        colour: float32 (F, 3) factor that multiplies the texture.
        texel_level: float32 (F,) log2 of texels per metre.
    """

    name: str
    triangles: Float32
    uv: Float32
    normals: Float32
    texture: Ints
    colour: Float32
    texel_level: Float32
    atlas: TextureAtlas

    @property
    def bounds(self) -> tuple[Float32, Float32]:
        """Lowest and highest corner of the bounding box."""
        return self.triangles.min((0, 1)), self.triangles.max((0, 1))


def load_scene(path: Path | str) -> SceneModel:
    """A GLB file as a SceneModel. Faces with a cut-out texture (leaves) are left out.

    Raises:
        TrainingDataError: the file is missing, damaged or holds no mesh.
    """
    import trimesh

    path = Path(path)
    try:
        scene: Any = trimesh.load(path, force="scene", process=False)
    except Exception as error:  # the loader raises whatever its parser raises
        raise TrainingDataError(f"cannot read scene {path}: {error}: restore or delete the file") from error
    images: list[NDArray[np.uint8]] = []
    numbers: dict[int, int] = {}
    parts: list[tuple[Float32, Float32, Ints, Float32]] = []
    for node in scene.graph.nodes_geometry:
        transform, name = scene.graph[node]
        mesh = scene.geometry[name]
        material = getattr(mesh.visual, "material", None)
        if getattr(material, "alphaMode", None) == "MASK":
            continue
        corners = trimesh.transform_points(mesh.vertices, transform)[mesh.faces].astype(np.float32)
        number, uv = 0, np.zeros((len(corners), 3, 2), np.float32)
        picture = getattr(material, "baseColorTexture", None)
        if picture is not None and getattr(mesh.visual, "uv", None) is not None:
            uv = np.asarray(mesh.visual.uv, np.float32)[mesh.faces]
            uv[..., 1] = 1 - uv[..., 1]  # trimesh turns v upwards, the texture's rows run downwards
            if id(picture) not in numbers:
                images.append(np.asarray(picture.convert("RGB"), np.uint8))
                numbers[id(picture)] = len(images)
            number = numbers[id(picture)]
        factor = getattr(material, "baseColorFactor", None)
        rgb = np.ones(3, np.float32) if factor is None else np.asarray(factor, np.float32)[:3] / 255
        count = len(corners)
        parts.append((corners, uv, np.full(count, number), np.tile(rgb, (count, 1))))
    if not parts:
        raise TrainingDataError(f"scene {path} holds no mesh: restore or delete the file")
    triangles, uv, texture, colour = (np.concatenate(columns) for columns in zip(*parts, strict=True))
    return model_of(path.stem, triangles, uv, texture, colour.astype(np.float32), TextureAtlas(images))


def model_of(
    name: str, triangles: Float32, uv: Float32, texture: Ints, colour: Float32, atlas: TextureAtlas
) -> SceneModel:
    """A SceneModel of triangles (F, 3, 3), uv (F, 3, 2), texture number (F,), colour (F, 3); degenerate faces go."""
    cross = np.cross(triangles[:, 1] - triangles[:, 0], triangles[:, 2] - triangles[:, 0])
    area = np.linalg.norm(cross, axis=1)
    keep = area > 1e-12  # degenerate faces have no normal and cannot be seen
    triangles, uv, texture, colour, area = triangles[keep], uv[keep], texture[keep], colour[keep], area[keep]
    side0, side1 = uv[:, 1] - uv[:, 0], uv[:, 2] - uv[:, 0]
    texels = np.abs(side0[:, 0] * side1[:, 1] - side0[:, 1] * side1[:, 0]) * atlas.base_size[texture].prod(1)
    level = 0.5 * np.log2(np.maximum(texels, 1e-12) / area)
    return SceneModel(
        name=name,
        triangles=np.ascontiguousarray(triangles),
        uv=uv,
        normals=(cross[keep] / area[:, None]).astype(np.float32),
        texture=texture,
        colour=colour,
        texel_level=level.astype(np.float32),
        atlas=atlas,
    )


def placed(model: SceneModel, scale: float, yaw: float, position: NDArray[np.floating]) -> SceneModel:
    """A copy that is scaled, turned about the y axis (radians) and moved."""
    c, s = np.cos(yaw), np.sin(yaw)
    rotation = np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]])
    triangles = (model.triangles @ (scale * rotation.T) + np.asarray(position)).astype(np.float32)
    return SceneModel(
        name=model.name,
        triangles=triangles,
        uv=model.uv,
        normals=(model.normals @ rotation.T).astype(np.float32),
        texture=model.texture,
        colour=model.colour,
        texel_level=model.texel_level - np.float32(np.log2(scale)),
        atlas=model.atlas,
    )
