"""Whole image pairs that can judge any match: what the match filter is trained on.

Rendered views judge by depth and pose, photos by the homography between two crops, photo sets by epipolar geometry
alone (a wrong match that happens to lie on its epipolar line passes: about one in two hundred).
"""

from __future__ import annotations

import csv
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from ros2_densematch.geometry.poses import pose_from_quaternion
from ros2_densematch.training.homography_pairs import HomographyPairs
from ros2_densematch.training.multiview_pairs import MultiviewPairs
from ros2_densematch.training.photometric import Image
from ros2_densematch.training.posed_views import ViewPair
from ros2_densematch.training.sample import ImageStore, TrainingDataError, apply_homography
from ros2_densematch.training.scene_views import agrees, transfer

FloatArray = NDArray[np.float64]
# 1 = right, 0 = wrong, -1 = cannot be told
Verdict = NDArray[np.int8]
Judge = Callable[[FloatArray, FloatArray], Verdict]

RIGHT_PX = 1.5
# beyond this distance from its epipolar line a match is wrong, below the first one taken as right
_EPIPOLAR_PX = (1.0, 2.0)


@dataclass(frozen=True)
class JudgedPair:
    """Two images and a judge of matches (N, 2), (N, 2) between them, in pixels of these images."""

    image0: Image
    image1: Image
    judge: Judge


class JudgedSource(Protocol):
    """Draws judged pairs; what it draws depends on `rng` alone."""

    def draw(self, rng: np.random.Generator) -> JudgedPair: ...


class JudgedPhotos:
    """Two crops of a photo under a random homography."""

    def __init__(self, source: HomographyPairs, size: int = 416) -> None:
        self._source, self._size = source, size

    def draw(self, rng: np.random.Generator) -> JudgedPair:
        pair = self._source.draw(rng, self._size)
        # the points are exact: any method recovers the homography
        h, _ = cv2.findHomography(pair.points0.astype(np.float64), pair.points1.astype(np.float64), 0)
        if h is None:
            raise TrainingDataError("a crop of a photo without common points: widen the recipe's photo settings")
        homography = np.asarray(h, np.float64)

        def judge(xy0: FloatArray, xy1: FloatArray) -> Verdict:
            error = np.linalg.norm(apply_homography(homography, xy0) - xy1, axis=1)
            return np.asarray(error < RIGHT_PX, np.int8)

        return JudgedPair(pair.image0, pair.image1, judge)


class ViewSource(Protocol):
    """Draws whole views with depth and relative pose."""

    def draw_views(self, rng: np.random.Generator) -> ViewPair: ...


class JudgedScenes:
    """Two whole views with depth: rendered, or of MegaDepth, ScanNet or a recording."""

    def __init__(self, source: ViewSource) -> None:
        self._source = source

    def draw(self, rng: np.random.Generator) -> JudgedPair:
        pair = self._source.draw_views(rng)

        def judge(xy0: FloatArray, xy1: FloatArray) -> Verdict:
            column, row = np.round(xy0).astype(int).T
            depth = pair.depth0[row, column].astype(np.float64)
            expected, z = transfer(xy0, depth, pair.K0, pair.K1, pair.T_1_from_0)
            known = np.isfinite(depth) & np.isfinite(z)
            error = np.where(known, np.linalg.norm(expected - xy1, axis=1), np.inf)
            visible = agrees(np.nan_to_num(expected, nan=-1.0), np.nan_to_num(z), pair.depth1, 0.02)
            verdict = ((error < RIGHT_PX) & visible).astype(np.int8)
            # at a depth edge the nearest pixel may belong to the other surface
            near = np.isfinite(error) & (error < 3 * RIGHT_PX) & ~visible
            verdict[~np.isfinite(depth) | near] = -1
            return verdict

        return JudgedPair(pair.image0, pair.image1, judge)


class JudgedPhotoSets:
    """Two photos of a reconstruction."""

    def __init__(self, source: MultiviewPairs, store: ImageStore) -> None:
        self._source, self._store = source, store
        self._cameras: dict[Path, dict[Path, tuple[FloatArray, FloatArray]]] = {}

    def draw(self, rng: np.random.Generator) -> JudgedPair:
        path0, path1 = self._source.draw_images(rng)
        k0, pose0 = self._camera(path0)
        k1, pose1 = self._camera(path1)
        relative: FloatArray = np.asarray(np.linalg.inv(pose1) @ pose0, np.float64)
        x, y, z = relative[:3, 3]
        skew = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
        fundamental = np.linalg.inv(k1).T @ skew @ relative[:3, :3] @ np.linalg.inv(k0)

        def judge(xy0: FloatArray, xy1: FloatArray) -> Verdict:
            h0, h1 = np.c_[xy0, np.ones(len(xy0))], np.c_[xy1, np.ones(len(xy1))]
            line1, line0 = h0 @ fundamental.T, h1 @ fundamental
            product = np.abs((h1 * line1).sum(1))
            distance = product * (1 / np.hypot(*line1[:, :2].T) + 1 / np.hypot(*line0[:, :2].T)) / 2
            verdict = np.full(len(xy0), -1, np.int8)
            verdict[distance < _EPIPOLAR_PX[0]] = 1
            verdict[distance > _EPIPOLAR_PX[1]] = 0
            return verdict

        return JudgedPair(self._store.get(path0), self._store.get(path1), judge)

    def _camera(self, image: Path) -> tuple[FloatArray, FloatArray]:
        folder = image.parent.parent
        if folder not in self._cameras:
            with (folder / "cameras.csv").open(newline="") as stream:
                self._cameras[folder] = {
                    folder / "images" / row["image"]: _camera(row) for row in csv.DictReader(stream)
                }
        return self._cameras[folder][image]


def _camera(row: dict[str, str]) -> tuple[FloatArray, FloatArray]:
    value = {k: float(v) for k, v in row.items() if k != "image"}
    k = np.array([[value["fx"], 0, value["cx"]], [0, value["fy"], value["cy"]], [0, 0, 1]])
    pose = pose_from_quaternion([value[c] for c in ("tx", "ty", "tz")], [value[c] for c in ("qx", "qy", "qz", "qw")])
    return k, pose
