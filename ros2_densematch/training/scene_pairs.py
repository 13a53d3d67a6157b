"""Pairs from rendered scenes: real viewpoint change, occlusion and exact correspondences from depth and pose."""

from __future__ import annotations

import zipfile
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from ros2_densematch.training.photometric import Image
from ros2_densematch.training.sample import (
    Pair,
    TrainingDataError,
    apply_homography,
    inside,
    kept_inside,
    similarity,
    warp_crop,
)
from ros2_densematch.training.scene_model import Floats
from ros2_densematch.training.scene_views import agrees, transfer

CANDIDATES = 6000


class ScenePairsConfig(BaseModel):
    """How crops of rendered views are laid."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    rotation_deg: float = Field(12.0, ge=0, le=180, description="largest added in-plane rotation between the crops")
    min_scale: float = Field(1.0, gt=0, description="smallest scale, relative to the crop filling the view's height")
    max_scale: float = Field(1.6, gt=0, description="largest scale")
    relative_scale: float = Field(1.25, ge=1, description="largest added change of scale between the crops")
    tolerance: float = Field(0.01, gt=0, description="largest relative difference of depth at a visible point")
    min_points: int = Field(60, ge=8, description="crops with fewer points are laid again, elsewhere")


@dataclass(frozen=True)
class _Group:
    path: Path
    pairs: NDArray[np.int32]
    K: NDArray[np.float64]
    T_world_from_camera: NDArray[np.float64]
    nearest: NDArray[np.float64]


@dataclass(frozen=True)
class ViewPair:
    """Two whole rendered views with depth (z, metres, not finite = nothing there), calibration and relative pose."""

    image0: Image
    image1: Image
    depth0: Floats
    depth1: Floats
    K0: NDArray[np.float64]
    K1: NDArray[np.float64]
    T_1_from_0: NDArray[np.float64]


@dataclass(frozen=True)
class _View:
    image: Image
    depth: Floats


class ScenePairs:
    """Draws two views of a rendered group and crops around what both see."""

    name = "scenes"

    def __init__(
        self,
        folder: Path | str,
        *,
        config: ScenePairsConfig | None = None,
        groups: int | None = None,
        views_in_memory: int = 1500,
    ) -> None:
        """
        Args:
            folder: a cache made by `scene_cache.fill_cache`.
            config: how crops are laid.
            groups: use the first so many groups only; a cache that is still growing then gives the same pairs.
            views_in_memory: decoded views that are kept (0.8 MB each at 384x288).
        """
        self.config = config or ScenePairsConfig()
        self._paths = sorted(Path(folder).glob("group_*.npz"))[:groups]
        if not self._paths:
            raise TrainingDataError(f"no rendered group in {folder}: run densematch train, which renders them first")
        self._groups: dict[Path, _Group] = {}
        self._views: OrderedDict[tuple[Path, int], _View] = OrderedDict()
        self._capacity = views_in_memory

    def files(self) -> list[Path]:
        return list(self._paths)

    def draw_views(self, rng: np.random.Generator) -> ViewPair:
        """Two whole views of a group. Raises TrainingDataError for a damaged file."""
        group = self._group(self._paths[int(rng.integers(len(self._paths)))])
        i, j = (int(k) for k in group.pairs[int(rng.integers(len(group.pairs)))])
        if rng.random() < 0.5:
            i, j = j, i
        view0, view1 = self._view(group, i), self._view(group, j)
        transform: NDArray[np.float64] = np.asarray(
            np.linalg.inv(group.T_world_from_camera[j]) @ group.T_world_from_camera[i], np.float64
        )
        return ViewPair(view0.image, view1.image, view0.depth, view1.depth, group.K[i], group.K[j], transform)

    def draw(self, rng: np.random.Generator, size: int) -> Pair:
        views = self.draw_views(rng)
        xy0, xy1 = _correspondences(
            rng, views.depth0, views.depth1, views.K0, views.K1, views.T_1_from_0, self.config.tolerance
        )
        crop0, crop1, chosen = self._lay_crops(rng, size, xy0, xy1, views.image0.shape[:2])
        return Pair(
            warp_crop(views.image0, crop0, size),
            warp_crop(views.image1, crop1, size),
            apply_homography(crop0, xy0[chosen]).astype(np.float32),
            apply_homography(crop1, xy1[chosen]).astype(np.float32),
        )

    def _group(self, path: Path) -> _Group:
        if path not in self._groups:
            try:
                with np.load(path) as data:
                    self._groups[path] = _Group(
                        path, data["pairs"], data["K"], data["T_world_from_camera"], data["nearest"]
                    )
            except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
                raise _damaged(path, str(error)) from error
        return self._groups[path]

    def _view(self, group: _Group, k: int) -> _View:
        key = (group.path, k)
        if key in self._views:
            self._views.move_to_end(key)
            return self._views[key]
        try:
            with np.load(group.path) as data:
                image = cv2.imdecode(data[f"image_{k}"], cv2.IMREAD_COLOR)
                coded = cv2.imdecode(data[f"inverse_depth_{k}"], cv2.IMREAD_UNCHANGED)
        except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
            raise _damaged(group.path, str(error)) from error
        if image is None or coded is None:
            raise _damaged(group.path, f"view {k} cannot be decoded")
        with np.errstate(divide="ignore"):
            depth = (np.float32(65535 * group.nearest[k]) / coded.astype(np.float32)).astype(np.float32)
        view = _View(np.ascontiguousarray(image[..., ::-1], dtype=np.uint8), depth)
        self._views[key] = view
        if len(self._views) > self._capacity:
            self._views.popitem(last=False)
        return view

    def _lay_crops(
        self,
        rng: np.random.Generator,
        size: int,
        xy0: NDArray[np.float64],
        xy1: NDArray[np.float64],
        shape: tuple[int, ...],
    ) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.bool_]]:
        config = self.config
        height, width = shape
        fit = size / height
        centre = (size - 1) / 2
        best: tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.bool_]] | None = None
        for _ in range(4):
            scale = fit * float(np.exp(rng.uniform(np.log(config.min_scale), np.log(config.max_scale))))
            relative = config.relative_scale ** float(rng.uniform(-0.5, 0.5))
            turn = np.radians(config.rotation_deg) * float(rng.uniform(-1, 1))
            anchor = int(rng.integers(len(xy0))) if len(xy0) else None
            jitter = rng.uniform(-0.2, 0.2, (2, 2)) * size / scale
            at0, at1 = (np.zeros(2), np.zeros(2)) if anchor is None else (xy0[anchor], xy1[anchor])
            at0 = kept_inside(at0 + jitter[0], size, scale * relative, 0.0, width, height)
            at1 = kept_inside(at1 + jitter[1], size, scale / relative, turn, width, height)
            crop0 = similarity(scale * relative, 0.0, at0, centre)
            crop1 = similarity(scale / relative, turn, at1, centre)
            keep = inside(apply_homography(crop0, xy0), size, size) & inside(apply_homography(crop1, xy1), size, size)
            if best is None or keep.sum() > best[2].sum():
                best = (crop0, crop1, keep)
            if keep.sum() >= config.min_points * 4:
                break
        assert best is not None
        return best


def _damaged(path: Path, reason: str) -> TrainingDataError:
    return TrainingDataError(f"cannot read rendered group {path}: {reason}: delete it to render it again")


def _correspondences(
    rng: np.random.Generator,
    depth0: Floats,
    depth1: Floats,
    k0: NDArray[np.float64],
    k1: NDArray[np.float64],
    transform: NDArray[np.float64],
    tolerance: float,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Random pixels of view 0 that view 1 sees, and where: (N, 2) and (N, 2)."""
    height, width = depth0.shape
    grid = np.stack([rng.integers(width, size=CANDIDATES), rng.integers(height, size=CANDIDATES)], 1)
    z0 = depth0[grid[:, 1], grid[:, 0]].astype(np.float64)
    there = np.isfinite(z0)
    grid, z0 = grid[there], z0[there]
    xy1, z1 = transfer(grid.astype(np.float64), z0, k0, k1, transform)
    seen = agrees(xy1, z1, depth1, tolerance)
    return grid[seen].astype(np.float64), xy1[seen]
