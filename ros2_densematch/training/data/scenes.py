"""Pairs from rendered scenes: real viewpoint change, occlusion and exact correspondences from depth and pose."""

from __future__ import annotations

import zipfile
import zlib
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from ros2_densematch.arrays import Float32, Image
from ros2_densematch.training.data.posed_views import CropConfig, ViewPair, crop_pair
from ros2_densematch.training.data.sample import Pair, Part, part_of
from ros2_densematch.training.data.source import Opening, PairSource, SourceConfig
from ros2_densematch.training.images import TrainingDataError
from ros2_densematch.training.scenes.cache import SceneRenderConfig
from ros2_densematch.training.scenes.jobs import render_missing


class ScenePairsConfig(CropConfig):
    """How crops of rendered views are laid."""


class ScenesSource(SourceConfig):
    """Rendered scenes. What is not in the cache yet is rendered before the first step."""

    kind: Literal["scenes"]
    folder: Path = Field(
        Path("train_scenes"), description="This folder holds scenes/*.glb, relative to the data folder."
    )
    cache: Path | None = Field(
        None,
        description="The rendered views are kept in this folder; null keeps them in `scenes` of the output folder.",
    )
    processes: int = Field(1, ge=1, description="This many processes render the views.")
    render: SceneRenderConfig = SceneRenderConfig()
    settings: ScenePairsConfig = ScenePairsConfig()

    @classmethod
    def recognise(cls, data: Path, wanted: Sequence[SourceConfig]) -> ScenesSource | None:
        found = any((data / "scenes").glob("*.glb"))
        return cls(kind="scenes", weight=1, folder=Path(".")) if found else None

    def open(self, folder: Path, opening: Opening) -> PairSource:
        cache = self.cache or opening.out / "scenes"
        if opening.primary:
            render_missing(folder, cache, self.render, self.processes, partial(_tell, opening))
        return ScenePairs(cache, config=self.settings, groups=self.render.groups, part=opening.part)


def _tell(opening: Opening, done: int, total: int) -> None:
    opening.report("render", done, total, "")


@dataclass(frozen=True)
class _Group:
    path: Path
    pairs: NDArray[np.int32]
    K: NDArray[np.float64]
    T_world_from_camera: NDArray[np.float64]
    nearest: NDArray[np.float64]
    scene: int


@dataclass(frozen=True)
class _View:
    image: Image
    depth: Float32


class ScenePairs(PairSource):
    """Draws two views of a rendered group and crops around what both see."""

    name = "scenes"
    has_dense = True
    has_views = True

    def __init__(
        self,
        folder: Path | str,
        *,
        config: ScenePairsConfig | None = None,
        groups: int | None = None,
        views_in_memory: int = 1500,
        part: Part | None = None,
    ) -> None:
        """
        Args:
            folder: a cache made by `scene_cache.fill_cache`.
            config: how crops are laid.
            groups: use the first so many groups only; a cache that is still growing then gives the same pairs.
            views_in_memory: decoded views that are kept (0.8 MB each at 384x288).
            part: of the groups, for validation.
        """
        self.config = config or ScenePairsConfig()
        self._paths = sorted(Path(folder).glob("group_*.npz"))[:groups]
        if not self._paths:
            raise TrainingDataError(f"no rendered group in {folder}: run densematch train, which renders them first")
        self._paths = part_of(self._paths, part or Part())
        self._groups: dict[Path, _Group] = {}
        self._views: OrderedDict[tuple[Path, int], _View] = OrderedDict()
        self._capacity = views_in_memory

    def __len__(self) -> int:
        return len(self._paths)

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
        return ViewPair(
            image0=view0.image,
            image1=view1.image,
            depth0=view0.depth,
            depth1=view1.depth,
            K0=group.K[i],
            K1=group.K[j],
            T_1_from_0=transform,
            group=group.scene,
        )

    def draw(self, rng: np.random.Generator, size: int) -> Pair:
        return crop_pair(self.draw_views(rng), rng, size, self.config)

    def _group(self, path: Path) -> _Group:
        if path not in self._groups:
            try:
                with np.load(path) as data:
                    self._groups[path] = _Group(
                        path,
                        data["pairs"],
                        data["K"],
                        data["T_world_from_camera"],
                        data["nearest"],
                        zlib.crc32(str(data["scene"]).encode()),
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


def _damaged(path: Path, reason: str) -> TrainingDataError:
    return TrainingDataError(f"cannot read rendered group {path}: {reason}: delete it to render it again")
