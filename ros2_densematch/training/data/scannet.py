"""Pairs of ScanNet: indoor RGB-D scans, with LoFTR's lists of overlapping frames.

The folder holds `scannet_indices/**/*.npz` (name (N, 4): scene, scan, frame, frame; score (N,): overlap) and the scans,
`scans/SCENE`, `scans/scans_train/SCENE`, `scans_train/SCENE` or `SCENE`, each with color/N.jpg, depth/N.png
(millimetres), pose/N.txt (camera to world) and intrinsic/intrinsic_color.txt, as ScanNet's exporter writes them.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from ros2_densematch.arrays import Float32, Image
from ros2_densematch.training.data.depth_maps import checked_depth
from ros2_densematch.training.data.posed_views import CropConfig, ViewPair, crop_pair
from ros2_densematch.training.data.restricted_pickle import read_numpy_dictionary
from ros2_densematch.training.data.sample import Pair, Part, part_of
from ros2_densematch.training.data.source import Opening, PairSource, SourceConfig
from ros2_densematch.training.images import TrainingDataError, read_training_image

_PLACES = ("scans", "scans/scans_train", "scans_train", "")
# scene0000_00.npz are LoFTR's lists of one scan; its test lists must not be trained on
_TEST_LIST = re.compile(r"test|val", re.IGNORECASE)


class ScanNetConfig(CropConfig):
    """Which pairs are drawn; the defaults are those of DKM and RoMa."""

    tolerance: float = Field(0.05, gt=0, description="A point is visible when its depth differs by at most this share.")
    min_overlap: float = Field(0.0, ge=0, description="The pairs must overlap more than this score of the lists.")
    max_overlap: float = Field(1.01, gt=0, description="The pairs must overlap less than this score of the lists.")
    frame_step: int = Field(10, ge=1, description="Only frames are used whose number is a multiple of this.")
    max_pairs: int = Field(
        10_000, ge=1, description="This many pairs of a scan are used; the rest is left out at random."
    )
    alpha: float = Field(
        0.75, ge=0, le=1, description="A pair weighs the number of pairs of its scan to the power of minus this."
    )


class ScanNetSource(SourceConfig):
    """ScanNet with LoFTR's lists."""

    kind: Literal["scannet"]
    folder: Path = Field(
        Path("scannet"), description="This folder holds scannet_indices and scans, relative to the data folder."
    )
    settings: ScanNetConfig = ScanNetConfig()

    @classmethod
    def recognise(cls, data: Path, wanted: Sequence[SourceConfig]) -> ScanNetSource | None:
        found = (data / "scannet_indices").is_dir()
        return cls(kind="scannet", weight=1, folder=Path(".")) if found else None

    def open(self, folder: Path, opening: Opening) -> PairSource:
        return ScanNetPairs(folder, config=self.settings, part=opening.part)


@dataclass(frozen=True)
class _Scan:
    number: int
    folder: Path
    frames: NDArray[np.int64]


class ScanNetPairs(PairSource):
    """Draws two frames of a scan and crops around what both see."""

    name = "scannet"
    has_dense = True
    has_views = True

    def __init__(
        self, folder: Path | str, *, config: ScanNetConfig | None = None, part: Part | None = None, in_memory: int = 64
    ) -> None:
        """Arguments and errors as for `MegaDepthPairs`."""
        self.config = config or ScanNetConfig()
        root = Path(folder)
        lists = sorted((root / "scannet_indices").rglob("*.npz"))
        lists = [p for p in lists if not _TEST_LIST.search(p.relative_to(root).as_posix()) and p.stem != "intrinsics"]
        if not lists:
            raise TrainingDataError(
                f"no training list *.npz in {root / 'scannet_indices'}: fetch LoFTR's ScanNet lists"
            )
        self._files = part_of(lists, part or Part())
        self._scans = self._read(root)
        if not self._scans and (part is None or not part.held_out):
            raise TrainingDataError(
                f"none of the {len(self._files)} lists in {root / 'scannet_indices'} leaves a pair of a scan that is "
                f"there: put the scans into {root / 'scans'}, or lower min_overlap and frame_step"
            )
        weight = np.array([len(s.frames) for s in self._scans], np.float64) ** (1 - self.config.alpha)
        self._chance = weight / weight.sum() if len(weight) else weight
        self._views: OrderedDict[Path, tuple[Image, Float32, NDArray[np.float64]]] = OrderedDict()
        self._in_memory = in_memory

    def _read(self, root: Path) -> list[_Scan]:
        config = self.config
        frames: dict[str, NDArray[np.int64]] = {}
        for path in self._files:
            content = read_numpy_dictionary(path)
            try:
                names = np.asarray(content["name"], np.int64).reshape(-1, 4)
                score = np.asarray(content["score"], np.float64).ravel()
                kept = (score > config.min_overlap) & (score < config.max_overlap)
                kept &= (names[:, 2:] % config.frame_step == 0).all(1)
            except (KeyError, ValueError) as error:
                raise TrainingDataError(f"{path} is no list of ScanNet pairs ({error}): fetch it again") from error
            names = names[kept]
            for scene, scan in np.unique(names[:, :2], axis=0):
                mine = names[(names[:, 0] == scene) & (names[:, 1] == scan)][:, 2:]
                frames[f"scene{scene:04d}_{scan:02d}"] = mine
        scans: list[_Scan] = []
        for name in sorted(frames):
            places = [root / place / name for place in _PLACES]
            there = next((p for p in places if (p / "color").is_dir()), None)
            if there is None:
                continue  # a copy of a few scans with the lists of all is usual
            pairs = frames[name]
            if len(pairs) > config.max_pairs:
                order = np.random.default_rng(len(pairs)).permutation(len(pairs))[: config.max_pairs]
                pairs = pairs[np.sort(order)]
            scans.append(_Scan(len(scans), there, pairs))
        return scans

    def __len__(self) -> int:
        return sum(len(s.frames) for s in self._scans)

    def files(self) -> list[Path]:
        """The lists alone: the frames that they name are too large to be digested."""
        return list(self._files)

    def draw_views(self, rng: np.random.Generator) -> ViewPair:
        """Two whole frames with depth. Raises TrainingDataError for a damaged file."""
        scan = self._scans[int(rng.choice(len(self._scans), p=self._chance))]
        i, j = (int(k) for k in scan.frames[int(rng.integers(len(scan.frames)))])
        if rng.random() < 0.5:
            i, j = j, i
        (image0, depth0, K0), (image1, depth1, K1) = self._view(scan.folder, i), self._view(scan.folder, j)
        pose0, pose1 = (_matrix(scan.folder / "pose" / f"{k}.txt") for k in (i, j))
        relative: NDArray[np.float64] = np.asarray(np.linalg.inv(pose1) @ pose0, np.float64)
        return ViewPair(
            image0=image0,
            image1=image1,
            depth0=depth0,
            depth1=depth1,
            K0=K0,
            K1=K1,
            T_1_from_0=relative,
            group=scan.number,
        )

    def draw(self, rng: np.random.Generator, size: int) -> Pair:
        return crop_pair(self.draw_views(rng), rng, size, self.config)

    def _view(self, folder: Path, k: int) -> tuple[Image, Float32, NDArray[np.float64]]:
        """Frame k at the size of its depth map, with the calibration at that size."""
        depth_path = folder / "depth" / f"{k}.png"
        if depth_path in self._views:
            self._views.move_to_end(depth_path)
            return self._views[depth_path]
        image = read_training_image(folder / "color" / f"{k}.jpg")
        depth = read_depth_png(depth_path)
        K = _matrix(folder / "intrinsic" / "intrinsic_color.txt")[:3, :3].copy()
        height, width = depth.shape
        sx, sy = width / image.shape[1], height / image.shape[0]
        K[0] *= sx
        K[1] *= sy
        K[0, 2] += (sx - 1) / 2
        K[1, 2] += (sy - 1) / 2
        if image.shape[:2] != depth.shape:
            image = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA).astype(np.uint8, copy=False)
        view = self._views[depth_path] = (image, depth, K)
        if len(self._views) > self._in_memory:
            self._views.popitem(last=False)
        return view


def read_depth_png(path: Path) -> Float32:
    """A 16-bit PNG of millimetres as metres, NaN where it is 0. Raises TrainingDataError as `checked_depth` does."""
    try:
        data = np.frombuffer(path.read_bytes(), np.uint8)
    except OSError as error:
        raise TrainingDataError(f"cannot read depth {path}: {error.strerror}: restore the file") from error
    stored = cv2.imdecode(data, cv2.IMREAD_UNCHANGED) if data.size else None
    if stored is None or stored.dtype != np.uint16:
        raise TrainingDataError(f"depth {path} is damaged or no 16-bit PNG: export it again")
    return checked_depth(np.asarray(stored, np.float32) * np.float32(1e-3), path)


def _matrix(path: Path) -> NDArray[np.float64]:
    """A 4 x 4 matrix of numbers in a text file. Raises TrainingDataError when it is missing or not finite."""
    try:
        matrix = np.loadtxt(path, dtype=np.float64)
    except (OSError, ValueError) as error:
        raise TrainingDataError(f"cannot read {path}: {error}: export it again") from error
    if matrix.shape != (4, 4) or not np.isfinite(matrix).all():
        raise TrainingDataError(f"{path} is no finite 4 x 4 matrix: the frame has no pose, leave it out")
    return matrix
