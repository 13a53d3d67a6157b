"""Rendered groups of views on disk. Group g depends only on (settings, g): rendering can stop and go on at any time.

One file a group, `group_NNNNNN.npz`:
    image_k            JPEG bytes of view k
    inverse_depth_k    16-bit PNG bytes: 65535 * nearest / depth, 0 = nothing there; depth along z at pixel centres
    nearest            (V,) metres
    K                  (V, 3, 3)
    T_world_from_camera (V, 4, 4)
    pairs              (P, 2) views with enough in common
    overlap            (P,) share of pixels that both see
    scene              name
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from ros2_densematch.arrays import Float32
from ros2_densematch.files.atomic import replacing, write_text
from ros2_densematch.training.images import TrainingDataError
from ros2_densematch.training.scenes.dressing import SceneLibrary, expose, random_lighting
from ros2_densematch.training.scenes.ray_casting import World, depth_of, render
from ros2_densematch.training.scenes.views import Candidate, Region, first_view, next_view, overlap

SETTINGS_FILE = "settings.json"


class SceneRenderConfig(BaseModel):
    """What is rendered. Changing anything but `groups` makes another cache."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    groups: int = Field(
        500, ge=1, description="This many groups of views are rendered; each gives up to views * (views - 1) / 2 pairs."
    )
    views: int = Field(4, ge=2, le=8, description="A group has this many views of one place.")
    width: int = Field(384, ge=64, description="A view is this many pixels wide.")
    height: int = Field(288, ge=64, description="A view is this many pixels high.")
    supersampling: int = Field(2, ge=1, le=4, description="A pixel takes this many rays along each side.")
    objects: float = Field(0.45, ge=0, le=1, description="This share of the groups has scattered objects.")
    relight: float = Field(0.3, ge=0, le=1, description="A further view has light of its own with this probability.")
    min_overlap: float = Field(0.22, ge=0, le=1, description="The views of a pair have at least this share in common.")
    max_overlap: float = Field(
        0.95,
        ge=0,
        le=1,
        description="The views of a pair have at most this share in common, since more is no change of view.",
    )
    seed: int = Field(0, ge=0, description="Everything that is drawn at random depends on this seed alone.")


def group_path(folder: Path, index: int) -> Path:
    return folder / f"group_{index:06d}.npz"


def fill_cache(
    folder: Path,
    library: SceneLibrary,
    config: SceneRenderConfig,
    *,
    on_group: Callable[[int, int], None] | None = None,
    share: tuple[int, int] = (0, 1),
) -> None:
    """Renders all groups that are not in the folder yet.

    Args:
        folder: made when missing.
        library: the scenes.
        config: what to render.
        on_group: called with (groups there, groups in all) after each.
        share: (k, n) renders every n-th group from the k-th on, so that n processes share the work.

    Raises:
        ValueError: the folder holds a cache made with other settings.
    """
    folder.mkdir(parents=True, exist_ok=True)
    _check_settings(folder, config)
    for index in range(share[0], config.groups, share[1]):
        path = group_path(folder, index)
        if not path.exists():
            _write(path, render_group(library, config, index))
        if on_group is not None:
            on_group(index + 1, config.groups)


def _check_settings(folder: Path, config: SceneRenderConfig) -> None:
    mine = config.model_dump(exclude={"groups"})
    path = folder / SETTINGS_FILE
    if path.exists():
        try:
            there = json.loads(path.read_text())
        except ValueError as error:
            raise TrainingDataError(f"{path} is damaged: delete the folder {folder} to render again") from error
        if there != mine:
            changed = sorted(k for k in mine if mine[k] != there.get(k))
            raise ValueError(f"{folder} was rendered with other settings ({', '.join(changed)}): use another folder")
        return
    write_text(path, json.dumps(mine, indent=1))


def _write(path: Path, arrays: dict[str, Any]) -> None:
    with replacing(path) as temporary, temporary.open("wb") as stream:
        np.savez(stream, **arrays)


def render_group(library: SceneLibrary, config: SceneRenderConfig, index: int) -> dict[str, Any]:
    """Views of one place and which of them make pairs, as the arrays of a group file."""
    rng = np.random.default_rng((config.seed, index))
    weights = np.array([library.region(path).weight for path in library.scene_paths])
    for _ in range(200):
        path = library.scene_paths[int(rng.choice(len(weights), p=weights / weights.sum()))]
        world, region = library.world(path), library.region(path)
        first = _best_first(world, region, rng, config)
        if first is None:
            continue
        if rng.random() < config.objects:
            world = library.scattered(world, first, rng)
            first = Candidate(first.view, first.coarse, depth_of(world, first.coarse))
        views = [first]
        while len(views) < config.views:
            another = next_view(world, region, first, rng)
            if another is None:
                break
            views.append(another)
        pairs, shares = _pairs(views, config)
        if len(pairs) >= config.views - 1:
            return _render_views(world, region, views, rng, config) | {
                "pairs": np.array(pairs, np.int32),
                "overlap": np.array(shares, np.float32),
                "scene": np.array(path.stem),
            }
    folder = library.scene_paths[0].parent
    raise TrainingDataError(f"found no views with enough in common in {folder}: check the scenes")


def _pairs(views: list[Candidate], config: SceneRenderConfig) -> tuple[list[tuple[int, int]], list[float]]:
    pairs, shares = [], []
    for i in range(len(views)):
        for j in range(i + 1, len(views)):
            share = overlap(views[i], views[j])
            cosine = views[i].view.T_world_from_camera[:3, 2] @ views[j].view.T_world_from_camera[:3, 2]
            if config.min_overlap <= share <= config.max_overlap and cosine > 0.34:
                pairs.append((i, j))
                shares.append(share)
    return pairs, shares


def _best_first(world: World, region: Region, rng: np.random.Generator, config: SceneRenderConfig) -> Candidate | None:
    """Of three places the one that shows most: texture and depth, rather than a blank wall."""
    best: tuple[float, Candidate] | None = None
    for _ in range(3):
        candidate = first_view(world, region, rng, config.width, config.height)
        if candidate is None:
            continue
        light = random_lighting(rng, region, candidate.view.T_world_from_camera[:3, 3], shadow_chance=0)
        small = render(world, candidate.view.resized(96, 72), light, 1).mean(2)
        score = _texture_share(small) + 0.6 * _relief_share(candidate.depth)
        if best is None or score > best[0]:
            best = (score, candidate)
    return best[1] if best is not None and best[0] > 0.35 else None


def _texture_share(grey: Float32) -> float:
    """Share of 8 x 8 blocks whose grey values vary."""
    blocks = (grey / max(float(grey.mean()), 1e-3)).reshape(9, 8, 12, 8).transpose(0, 2, 1, 3).reshape(108, 64)
    return float((blocks.std(1) > 0.05).mean())


def _relief_share(depth: Float32) -> float:
    """Share of pixels near which the surface is no plane: inverse depth has a second difference there."""
    inverse = 1 / depth
    bend = np.abs(inverse[:, 2:] - 2 * inverse[:, 1:-1] + inverse[:, :-2]) > 0.02 * np.abs(inverse[:, 1:-1]) + 1e-6
    return float(min(1.0, 4 * bend.mean()))


def _render_views(
    world: World, region: Region, views: list[Candidate], rng: np.random.Generator, config: SceneRenderConfig
) -> dict[str, Any]:
    place = views[0].view.T_world_from_camera[:3, 3]
    common = random_lighting(rng, region, place)
    arrays: dict[str, Any] = {
        "K": np.stack([c.view.K for c in views]),
        "T_world_from_camera": np.stack([c.view.T_world_from_camera for c in views]),
    }
    nearest = []
    for k, candidate in enumerate(views):
        own = random_lighting(rng, region, place) if k and rng.random() < config.relight else common
        picture = expose(rng, render(world, candidate.view, own, config.supersampling))
        depth = depth_of(world, candidate.view)
        nearest.append(float(depth.min()))
        coded = np.rint(65535 * nearest[-1] / depth.astype(np.float64)).astype(np.uint16)
        arrays[f"image_{k}"] = _encode(".jpg", picture[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 95])
        arrays[f"inverse_depth_{k}"] = _encode(".png", coded, [cv2.IMWRITE_PNG_COMPRESSION, 2])
    arrays["nearest"] = np.array(nearest)
    return arrays


def _encode(kind: str, array: NDArray[Any], options: list[int]) -> NDArray[np.uint8]:
    ok, data = cv2.imencode(kind, np.ascontiguousarray(array), options)
    if not ok:
        raise RuntimeError(f"OpenCV could not encode a {array.shape} {array.dtype} picture as {kind}")
    return np.asarray(data, np.uint8).reshape(-1)
