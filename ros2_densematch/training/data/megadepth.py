"""Pairs of MegaDepth: internet photos of places, with depth and poses of a reconstruction.

The folder holds `prep_scene_info/*.npy` (a pickled dictionary a scene: image_paths, depth_paths, intrinsics, poses,
pairs, overlaps), and the images and depth files that they name, as DKM and RoMa prepare them.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from ros2_densematch.arrays import Float32, Image
from ros2_densematch.training.data.depth_maps import read_depth_hdf5
from ros2_densematch.training.data.posed_views import CropConfig, ViewPair, crop_pair
from ros2_densematch.training.data.restricted_pickle import read_numpy_dictionary
from ros2_densematch.training.data.sample import Pair, Part, part_of
from ros2_densematch.training.data.source import Opening, PairSource, SourceConfig
from ros2_densematch.training.images import TrainingDataError, read_training_image

_KEYS = ("image_paths", "depth_paths", "intrinsics", "poses", "pairs", "overlaps")

# Scenes that are measured on: MegaDepth-1500 (LoFTR) and the Image Matching Challenge 2021.
BENCHMARK_SCENES = ("0015", "0022", "0008", "0019", "0021", "0024", "0025", "0032", "0063", "1589")
# Scenes that LoFTR's preparation leaves out for wrong depth or poses.
IGNORED_SCENES = (
    "0121", "0133", "0168", "0178", "0229", "0349", "0412", "0430", "0443", "1001", "5014", "5015", "5016",
)  # fmt: skip


class MegaDepthConfig(CropConfig):
    """Which pairs are drawn how often; the defaults are those of DKM and RoMa."""

    tolerance: float = Field(0.05, gt=0, description="A point is visible when its depth differs by at most this share.")
    scenes: list[str] | None = Field(
        None, description="The scenes of these names are used; null uses all but the excluded ones."
    )
    exclude: list[str] = Field(
        list(BENCHMARK_SCENES + IGNORED_SCENES),
        description="These scenes are never used: those of benchmarks and faulty ones.",
    )
    overlaps: list[float] = Field(
        [0.01, 0.35],
        min_length=1,
        description="For each of these numbers, the pairs with more overlap are added once more.",
    )
    max_overlap: float = Field(1.0, gt=0, description="The pairs must overlap less than this.")
    max_pairs: int = Field(
        100_000, ge=1, description="This many pairs of a scene and overlap are used; the rest is left out at random."
    )
    alpha: float = Field(
        0.75, ge=0, le=1, description="A pair weighs the number of pairs of its scene to the power of minus this."
    )


class MegaDepthSource(SourceConfig):
    """MegaDepth with DKM's scene lists."""

    kind: Literal["megadepth"]
    folder: Path = Field(
        Path("megadepth"), description="This folder holds prep_scene_info, relative to the data folder."
    )
    settings: MegaDepthConfig = MegaDepthConfig()

    @classmethod
    def recognise(cls, data: Path, wanted: Sequence[SourceConfig]) -> MegaDepthSource | None:
        found = (data / "prep_scene_info").is_dir()
        return cls(kind="megadepth", weight=1, folder=Path(".")) if found else None

    def open(self, folder: Path, opening: Opening) -> PairSource:
        return MegaDepthPairs(folder, config=self.settings, part=opening.part)


@dataclass(frozen=True)
class _Scene:
    number: int
    name: str
    content: dict[str, Any]


@dataclass(frozen=True)
class _Draws:
    """The pairs of one scene above one overlap."""

    scene: _Scene
    pairs: NDArray[np.int64]


class MegaDepthPairs(PairSource):
    """Draws a pair of photos of a scene, weighted as published, and crops around what both see."""

    name = "megadepth"
    has_dense = True
    has_views = True

    def __init__(
        self,
        folder: Path | str,
        *,
        config: MegaDepthConfig | None = None,
        part: Part | None = None,
        in_memory: int = 64,
    ) -> None:
        """
        Args:
            folder: holds prep_scene_info and what it names.
            config: which pairs, and how crops are laid.
            part: of the scenes, for validation.
            in_memory: decoded photos that are kept.

        Raises:
            TrainingDataError: no usable scene, or a damaged scene file.
        """
        self.config = config or MegaDepthConfig()
        self._root = Path(folder)
        info = self._root / "prep_scene_info"
        found = sorted(p for p in info.glob("*") if p.suffix in (".npy", ".npz"))
        if not found:
            raise TrainingDataError(
                f"no *.npy in {info}: point the source's folder to MegaDepth with DKM's scene lists"
            )
        chosen = self.config.scenes
        excluded = set(self.config.exclude)
        self._files = [p for p in found if p.stem not in excluded and (chosen is None or p.stem in chosen)]
        missing = sorted(set(chosen or []) - {p.stem for p in self._files})
        if missing:
            raise TrainingDataError(f"{info} has no scene {', '.join(missing)}, or it is excluded: check the names")
        self._files = part_of(self._files, part or Part())
        self._draws = self._read()
        if not self._draws and (part is None or not part.held_out):
            raise TrainingDataError(f"no pair in the {len(self._files)} usable scenes of {info}: lower `overlaps`")
        size = np.array([len(d.pairs) for d in self._draws], np.float64)
        weight = size ** (1 - self.config.alpha)
        self._chance = weight / weight.sum() if len(weight) else weight
        self._views: OrderedDict[tuple[int, int], tuple[Image, Float32]] = OrderedDict()
        self._in_memory = in_memory

    def _read(self) -> list[_Draws]:
        draws = []
        for number, path in enumerate(self._files):
            content = read_numpy_dictionary(path)
            absent = [key for key in _KEYS if key not in content]
            if absent:
                raise TrainingDataError(f"{path} has no {', '.join(absent)}: fetch DKM's prepared scene lists again")
            pairs = np.asarray(content["pairs"], np.int64).reshape(-1, 2)
            overlap = np.asarray(content["overlaps"], np.float64).ravel()
            count = min(len(content[key]) for key in _KEYS[:4])
            if len(pairs) != len(overlap) or (len(pairs) and not 0 <= pairs.min() <= pairs.max() < count):
                raise TrainingDataError(
                    f"{path}: pairs {pairs.shape}, overlaps {overlap.shape} and {count} images do not fit: fetch it "
                    "again"
                )
            scene = _Scene(number, path.stem, content)
            for k, least in enumerate(self.config.overlaps):
                kept = pairs[(overlap > least) & (overlap < self.config.max_overlap)]
                if len(kept) > self.config.max_pairs:
                    rng = np.random.default_rng((k, len(kept)))
                    kept = kept[np.sort(rng.permutation(len(kept))[: self.config.max_pairs])]
                if len(kept):
                    draws.append(_Draws(scene, kept))
        return draws

    def __len__(self) -> int:
        return sum(len(d.pairs) for d in self._draws)

    def files(self) -> list[Path]:
        """The scene lists alone: the images and depth maps that they name are too large to be digested."""
        return list(self._files)

    def draw_views(self, rng: np.random.Generator) -> ViewPair:
        """Two whole photos with depth. Raises TrainingDataError for a damaged file."""
        drawn = self._draws[int(rng.choice(len(self._draws), p=self._chance))]
        i, j = (int(k) for k in drawn.pairs[int(rng.integers(len(drawn.pairs)))])
        scene = drawn.scene
        (image0, depth0), (image1, depth1) = self._view(scene, i), self._view(scene, j)
        K0, K1 = self._intrinsics(scene, i), self._intrinsics(scene, j)
        pose0, pose1 = self._pose(scene, i), self._pose(scene, j)
        relative: NDArray[np.float64] = np.asarray(pose1 @ np.linalg.inv(pose0), np.float64)
        return ViewPair(
            image0=image0,
            image1=image1,
            depth0=depth0,
            depth1=depth1,
            K0=K0,
            K1=K1,
            T_1_from_0=relative,
            group=scene.number,
        )

    def draw(self, rng: np.random.Generator, size: int) -> Pair:
        return crop_pair(self.draw_views(rng), rng, size, self.config)

    def _view(self, scene: _Scene, k: int) -> tuple[Image, Float32]:
        key = (scene.number, k)
        if key in self._views:
            self._views.move_to_end(key)
            return self._views[key]
        image_path, depth_path = (self._root / str(scene.content[n][k]) for n in ("image_paths", "depth_paths"))
        image, depth = read_training_image(image_path), read_depth_hdf5(depth_path)
        if depth.shape != image.shape[:2]:
            raise TrainingDataError(
                f"{depth_path} is {depth.shape[1]} x {depth.shape[0]}, its photo {image.shape[1]} x {image.shape[0]}: "
                "fetch both again"
            )
        self._views[key] = (image, depth)
        if len(self._views) > self._in_memory:
            self._views.popitem(last=False)
        return image, depth

    def _intrinsics(self, scene: _Scene, k: int) -> NDArray[np.float64]:
        K: NDArray[np.float64] = np.asarray(scene.content["intrinsics"][k], np.float64)
        if K.size != 9 or not np.isfinite(K).all():
            raise TrainingDataError(f"intrinsics {k} of {self._files[scene.number]} are {K.tolist()}: fetch it again")
        K = K.reshape(3, 3).copy()
        K[:2, 2] -= 0.5  # COLMAP's origin is the corner of the first pixel, ours its centre
        return K

    def _pose(self, scene: _Scene, k: int) -> NDArray[np.float64]:
        pose: NDArray[np.float64] = np.asarray(scene.content["poses"][k], np.float64)
        if pose.shape != (4, 4) or not np.isfinite(pose).all():
            raise TrainingDataError(
                f"pose {k} of {self._files[scene.number]} is no finite 4 x 4 matrix: fetch it again"
            )
        return pose
