"""Pairs of real photos of one place, related by the point tracks of a reconstruction."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from ros2_densematch.arrays import Float64
from ros2_densematch.geometry.poses import pose_from_quaternion
from ros2_densematch.training.data.crops import apply_homography, inside, kept_inside, similarity, warp_crop
from ros2_densematch.training.data.judged import JudgedPair, MatchLabels
from ros2_densematch.training.data.sample import Pair
from ros2_densematch.training.data.source import Opening, PairSource, SourceConfig
from ros2_densematch.training.images import ImageStore, TrainingDataError

# beyond this distance from its epipolar line a match is wrong, below the first one taken as right
_EPIPOLAR_PX = (1.0, 2.0)


class MultiviewConfig(BaseModel):
    """Which pairs are used and how crops are laid."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    min_shared: int = Field(40, ge=8, description="A pair of photos needs this many common tracks.")
    rotation_deg: float = Field(
        20.0,
        ge=0,
        le=180,
        description="The crops are additionally turned against each other by at most this many degrees.",
    )
    any_rotation: float = Field(
        0.05, ge=0, le=1, description="This share of the pairs is additionally turned by any angle."
    )
    min_scale: float = Field(0.45, gt=0, description="Photos are cropped at this scale at least.")
    max_scale: float = Field(1.25, gt=0, description="Photos are cropped at this scale at most.")
    relative_scale: float = Field(
        1.3, ge=1, description="The scale of the crops additionally differs by at most this factor."
    )
    anchors: int = Field(
        6, ge=1, description="This many places of a crop are tried, and the one with most common tracks is taken."
    )


class MultiviewSource(SourceConfig):
    """Real photo sets with point tracks."""

    kind: Literal["multiview"]
    folder: Path = Field(
        Path("train_multiview/photos"), description="The photo sets lie in this folder, relative to the data folder."
    )
    settings: MultiviewConfig = MultiviewConfig()

    @classmethod
    def recognise(cls, data: Path, wanted: Sequence[SourceConfig]) -> MultiviewSource | None:
        found = data.is_dir() and any(data.glob("*/tracks.npz"))
        return cls(kind="multiview", weight=1, folder=Path(".")) if found else None

    def open(self, folder: Path, opening: Opening) -> PairSource | None:
        # without dense truth there is nothing to measure on
        return None if opening.part.held_out else MultiviewPairs(folder, config=self.settings, store=opening.store)


@dataclass(frozen=True)
class _Shared:
    images: tuple[Path, Path]
    xy0: NDArray[np.float32]
    xy1: NDArray[np.float32]


class _TrackSet:
    """One reconstruction: for each pair of photos the common tracks."""

    def __init__(self, folder: Path, min_shared: int, number: int) -> None:
        self.number = number
        cameras, tracks = folder / "cameras.csv", folder / "tracks.npz"
        try:
            with cameras.open(newline="") as stream:
                self.images = [folder / "images" / row["image"] for row in csv.DictReader(stream)]
        except (OSError, KeyError) as error:
            raise TrainingDataError(f"cannot read {cameras}: {error}: restore the file or remove its folder") from error
        try:
            with np.load(tracks) as data:
                image, point, xy = data["image"], data["point"], data["xy"].astype(np.float32)
        except (OSError, ValueError, KeyError) as error:
            raise TrainingDataError(f"cannot read {tracks}: {error}: restore the file or remove its folder") from error
        if len(image) and (image.min() < 0 or image.max() >= len(self.images)):
            raise TrainingDataError(f"{tracks} names photo {image.max()}, {cameras} has only {len(self.images)} rows")
        self._rows: list[tuple[NDArray[np.int32], NDArray[np.float32]]] = []
        for k in range(len(self.images)):
            of_image = np.flatnonzero(image == k)
            order = of_image[np.argsort(point[of_image], kind="stable")]
            self._rows.append((point[order], xy[order]))
        seen = np.zeros((len(self.images), int(point.max(initial=0)) + 1), np.float32)
        seen[image, point] = 1
        shared = seen @ seen.T
        self.pairs = np.argwhere(np.triu(shared, 1) >= min_shared)

    def shared(self, k0: int, k1: int) -> _Shared:
        (point0, xy0), (point1, xy1) = self._rows[k0], self._rows[k1]
        _, i0, i1 = np.intersect1d(point0, point1, return_indices=True)
        return _Shared((self.images[k0], self.images[k1]), xy0[i0], xy1[i1])


class MultiviewPairs(PairSource):
    """Draws two photos of a set and crops around their common tracks."""

    name = "multiview"
    has_dense = False

    def __init__(
        self, folder: Path | str, *, config: MultiviewConfig | None = None, store: ImageStore | None = None
    ) -> None:
        """Args: folder: holds one folder per set with cameras.csv, tracks.npz and images/."""
        self.config = config or MultiviewConfig()
        self._store = store or ImageStore()
        self._folders = sorted(p.parent for p in Path(folder).glob("*/tracks.npz"))
        if not self._folders:
            raise TrainingDataError(f"no */tracks.npz in {folder}: point --data to the training data")
        sets = [_TrackSet(p, self.config.min_shared, number) for number, p in enumerate(self._folders)]
        self._sets = [s for s in sets if len(s.pairs)]
        if not self._sets:
            raise TrainingDataError(
                f"no two photos in {folder} share {self.config.min_shared} tracks: lower min_shared"
            )
        # A set with more photos has more to show, but must not drown the others.
        weight = np.sqrt([len(s.images) for s in self._sets])
        self._chance = weight / weight.sum()

    def __len__(self) -> int:
        return len(self._sets)

    def files(self) -> list[Path]:
        found = [p for s in self._sets for p in s.images]
        return sorted(found + [f / n for f in self._folders for n in ("cameras.csv", "tracks.npz")])

    def draw_images(self, rng: np.random.Generator) -> tuple[Path, Path]:
        """The files of two photos of a set that share enough tracks."""
        chosen, k0, k1 = self._choose(rng)
        return chosen.images[k0], chosen.images[k1]

    def _choose(self, rng: np.random.Generator) -> tuple[_TrackSet, int, int]:
        chosen = self._sets[int(rng.choice(len(self._sets), p=self._chance))]
        k0, k1 = chosen.pairs[int(rng.integers(len(chosen.pairs)))]
        return (chosen, int(k1), int(k0)) if rng.random() < 0.5 else (chosen, int(k0), int(k1))

    def draw(self, rng: np.random.Generator, size: int) -> Pair:
        chosen, k0, k1 = self._choose(rng)
        shared = chosen.shared(k0, k1)
        image0, image1 = (self._store.get(p) for p in shared.images)
        sizes = [(image.shape[1], image.shape[0]) for image in (image0, image1)]
        crop0, crop1, keep = self._lay_crops(rng, size, shared, sizes)
        return Pair(
            warp_crop(image0, crop0, size, cv2.BORDER_REFLECT_101),
            warp_crop(image1, crop1, size, cv2.BORDER_REFLECT_101),
            apply_homography(crop0, shared.xy0[keep]).astype(np.float32),
            apply_homography(crop1, shared.xy1[keep]).astype(np.float32),
            group=chosen.number,
        )

    def _lay_crops(
        self, rng: np.random.Generator, size: int, shared: _Shared, sizes: list[tuple[int, int]]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.bool_]]:
        """Maps from photo to crop pixels around a common track, and which tracks lie in both crops."""
        config = self.config
        scale = float(np.exp(rng.uniform(np.log(config.min_scale), np.log(config.max_scale))))
        relative = config.relative_scale ** float(rng.uniform(-1, 1))
        if rng.random() < config.any_rotation:
            turn = float(rng.uniform(-np.pi, np.pi))
        else:
            turn = np.radians(config.rotation_deg) * float(rng.uniform(-1, 1))
        best: tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.bool_]] | None = None
        for anchor in rng.integers(len(shared.xy0), size=config.anchors):
            jitter = rng.uniform(-0.25, 0.25, (2, 2)) * size / scale
            centre = (size - 1) / 2
            scale0, scale1 = scale * relative**0.5, scale * relative**-0.5
            at0 = kept_inside(shared.xy0[anchor] + jitter[0], size, scale0, 0.0, *sizes[0])
            at1 = kept_inside(shared.xy1[anchor] + jitter[1], size, scale1, turn, *sizes[1])
            crop0 = similarity(scale0, 0.0, at0, centre)
            crop1 = similarity(scale1, turn, at1, centre)
            keep = inside(apply_homography(crop0, shared.xy0), size, size) & inside(
                apply_homography(crop1, shared.xy1), size, size
            )
            if best is None or keep.sum() > best[2].sum():
                best = (crop0, crop1, keep)
        assert best is not None
        return best

    def judged(self) -> JudgedPhotoSets:
        return JudgedPhotoSets(self, ImageStore())


class JudgedPhotoSets:
    """Two photos of a reconstruction, judged by epipolar geometry alone.

    A wrong match that happens to lie on its epipolar line passes: about one in two hundred.
    """

    def __init__(self, source: MultiviewPairs, store: ImageStore) -> None:
        self._source, self._store = source, store
        self._cameras: dict[Path, dict[Path, tuple[Float64, Float64]]] = {}

    def draw(self, rng: np.random.Generator) -> JudgedPair:
        path0, path1 = self._source.draw_images(rng)
        k0, pose0 = self._camera(path0)
        k1, pose1 = self._camera(path1)
        relative: Float64 = np.asarray(np.linalg.inv(pose1) @ pose0, np.float64)
        x, y, z = relative[:3, 3]
        skew = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
        fundamental = np.linalg.inv(k1).T @ skew @ relative[:3, :3] @ np.linalg.inv(k0)

        def judge(xy0: Float64, xy1: Float64) -> MatchLabels:
            h0, h1 = np.c_[xy0, np.ones(len(xy0))], np.c_[xy1, np.ones(len(xy1))]
            line1, line0 = h0 @ fundamental.T, h1 @ fundamental
            product = np.abs((h1 * line1).sum(1))
            distance = product * (1 / np.hypot(*line1[:, :2].T) + 1 / np.hypot(*line0[:, :2].T)) / 2
            labels = np.full(len(xy0), -1, np.int8)
            labels[distance < _EPIPOLAR_PX[0]] = 1
            labels[distance > _EPIPOLAR_PX[1]] = 0
            return labels

        return JudgedPair(self._store.get(path0), self._store.get(path1), judge)

    def _camera(self, image: Path) -> tuple[Float64, Float64]:
        folder = image.parent.parent
        if folder not in self._cameras:
            with (folder / "cameras.csv").open(newline="") as stream:
                self._cameras[folder] = {
                    folder / "images" / row["image"]: _camera(row) for row in csv.DictReader(stream)
                }
        return self._cameras[folder][image]


def _camera(row: dict[str, str]) -> tuple[Float64, Float64]:
    value = {k: float(v) for k, v in row.items() if k != "image"}
    k = np.array([[value["fx"], 0, value["cx"]], [0, value["fy"], value["cy"]], [0, 0, 1]])
    pose = pose_from_quaternion([value[c] for c in ("tx", "ty", "tz")], [value[c] for c in ("qx", "qy", "qz", "qw")])
    return k, pose
