"""Image pairs with the true place of every match, from training material only: what the pair filter learns from.

Photo sets (epipolar geometry, confirmed by tracks), rendered scenes (depth and pose), and the layered scenes of
`misleading_scenes.py`. Whole photo sets, scenes and textures are held out for choosing (`development`).
"""

from __future__ import annotations

import csv
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np
from misleading_scenes import Textures, blurred, compressed, make_pair, night
from numpy.typing import NDArray

from ros2_densematch.arrays import Float64, Image
from ros2_densematch.geometry.poses import pose_from_quaternion
from ros2_densematch.matchers.common.local_affine import estimate_local_affine, nearest_matches
from ros2_densematch.training.data.photometric import PhotometricConfig, augment
from ros2_densematch.training.data.posed_views import ViewPair
from ros2_densematch.training.data.scenes import ScenePairs
from ros2_densematch.training.images import read_image
from ros2_densematch.training.scenes.cache import SceneRenderConfig, render_group
from ros2_densematch.training.scenes.dressing import SceneLibrary
from ros2_densematch.training.scenes.views import agrees, transfer

HELD_OUT_SETS = ("aqua", "buddha", "fr3_office", "lewis")
HELD_OUT_SCENES = ("town_street", "kitchen", "hospital", "wooden_staircase")
# two in five show repeated structure
ORDER = (
    "facade_resolvable", "photos", "scenes", "facade_indistinguishable", "photos", "posters", "photos", "scenes",
    "moving", "photos", "facade_resolvable", "scenes", "slant", "photos", "corridor", "night", "photos",
    "facade_resolvable", "scenes", "floor", "photos", "blur", "photos", "zoom", "facade_resolvable", "photos", "jpeg5",
    "scenes", "photos", "haze", "roll",
)  # fmt: skip
DEVELOPMENT_EVERY = 5

# (reference_xy (N, 2), query_xy (N, 2)) to the distance from the true place, pixels of the query: infinite = surely
# wrong, NaN = cannot be told
Error = Callable[[Float64, Float64], Float64]


@dataclass(frozen=True)
class MaterialPair:
    kind: str
    scene: str
    image0: Image
    image1: Image
    error: Error


class Material:
    """Pair i depends on the data and on i alone.

    Args:
        data: holds train_multiview and train_scenes.
        cache: rendered views are kept here.
    """

    def __init__(self, data: Path, cache: Path) -> None:
        self._data, self._cache = data, cache
        self._library = SceneLibrary(data / "train_scenes")
        self._scenes = list(self._library.scene_paths)

    def part(self, index: int) -> str:
        return "development" if index % DEVELOPMENT_EVERY == DEVELOPMENT_EVERY - 1 else "train"

    def pair(self, index: int) -> MaterialPair:
        kind, part = ORDER[index % len(ORDER)], self.part(index)
        rng = np.random.default_rng((77, index))
        if kind == "photos":
            return self._photos(rng, part)
        if kind == "scenes":
            return self._rendered(rng, part, index)
        made = make_pair(_textures(self._data / "train_scenes", part), part, kind, 100_000 + index)
        return MaterialPair(kind, f"layered_{part}", made.seen[0].image, made.seen[1].image, made.error)

    def _photos(self, rng: np.random.Generator, part: str) -> MaterialPair:
        sets = sorted(p.parent for p in (self._data / "train_multiview" / "photos").glob("*/tracks.npz"))
        mine = [p for p in sets if (p.name in HELD_OUT_SETS) == (part == "development")]
        chosen = _photo_set(mine[int(rng.integers(len(mine)))])
        i, j = chosen.pairs[int(rng.integers(len(chosen.pairs)))]
        i, j = (int(i), int(j)) if rng.random() < 0.5 else (int(j), int(i))
        image0, image1 = (_changed(rng, read_image(chosen.images[k])) for k in (i, j))
        return MaterialPair("photos", chosen.name, image0, image1, chosen.error(i, j))

    def _rendered(self, rng: np.random.Generator, part: str, index: int) -> MaterialPair:
        folder = self._cache / f"views_{part}_{index:05d}"
        if not any(folder.glob("group_*.npz")):
            self._library.scene_paths = [
                p for p in self._scenes if (p.stem in HELD_OUT_SCENES) == (part == "development")
            ]
            config = SceneRenderConfig(views=2, width=600, height=450, objects=0.6, seed=11, max_overlap=0.9)
            folder.mkdir(parents=True, exist_ok=True)
            np.savez(folder / "group_000000.npz", **render_group(self._library, config, index))
        pair = ScenePairs(folder).draw_views(rng)
        return MaterialPair(
            "scenes", str(pair.group), _changed(rng, pair.image0), _changed(rng, pair.image1), _by_depth(pair)
        )


@lru_cache
def _textures(folder: Path, part: str) -> Textures:
    return Textures(folder, part)


def _changed(rng: np.random.Generator, image: Image) -> Image:
    """Moderate changes of light and camera; one in six images is dark, blurred or ruined by compression."""
    image = augment(image, rng, PhotometricConfig(strength=0.5))
    hard = rng.random()
    if hard < 0.05:
        return night(rng, image)
    if hard < 0.11:
        return blurred(rng, image, float(rng.uniform(4, 13)))
    return compressed(image, 5) if hard < 0.16 else image


def _by_depth(pair: ViewPair) -> Error:
    """Judges by depth and pose. At a depth edge, a place may belong to either side."""

    def error(xy0: Float64, xy1: Float64) -> Float64:
        h, w = pair.depth0.shape
        with np.errstate(divide="ignore"):
            inverse = 1 / pair.depth0.astype(np.float64)
        x, y = np.floor(xy0).astype(int).T
        x, y = x.clip(0, w - 2), y.clip(0, h - 2)
        f = (xy0 - np.stack([x, y], 1)).clip(0, 1)
        corners = np.stack([inverse[y, x], inverse[y, x + 1], inverse[y + 1, x], inverse[y + 1, x + 1]], 1)
        share = np.stack(
            [(1 - f[:, 0]) * (1 - f[:, 1]), f[:, 0] * (1 - f[:, 1]), (1 - f[:, 0]) * f[:, 1], f[:, 0] * f[:, 1]], 1
        )
        smooth = (corners * share).sum(1)
        edge = corners.max(1) > 1.02 * corners.min(1)
        tried = [smooth] + [np.where(edge, corners[:, k], smooth) for k in range(4)]
        best, hidden = np.full(len(xy0), np.inf), np.full(len(xy0), np.inf)
        for value in tried:
            with np.errstate(divide="ignore"):
                place, z = transfer(xy0, 1 / value, pair.K0, pair.K1, pair.T_1_from_0)
            away = np.linalg.norm(place - xy1, axis=1)
            away[~np.isfinite(away)] = np.inf
            shown = agrees(np.nan_to_num(place, nan=-1.0), np.nan_to_num(z), pair.depth1, 0.02)
            best = np.minimum(best, np.where(shown, away, np.inf))
            hidden = np.minimum(hidden, away)
        best[~np.isfinite(best) & (hidden < 4.5)] = np.nan
        best[~np.isfinite(best) & np.isfinite(hidden)] = np.inf
        best[(corners <= 0).all(1)] = np.nan  # the sky
        return best

    return error


class _PhotoSet:
    """One reconstruction with its cameras and tracks."""

    def __init__(self, folder: Path) -> None:
        self.name = folder.name
        with (folder / "cameras.csv").open(newline="") as stream:
            rows = list(csv.DictReader(stream))
        self.images = [folder / "images" / r["image"] for r in rows]
        self._K, self._pose = [], []
        for row in rows:
            v = {k: float(s) for k, s in row.items() if k != "image"}
            self._K.append(np.array([[v["fx"], 0, v["cx"]], [0, v["fy"], v["cy"]], [0, 0, 1]]))
            self._pose.append(
                pose_from_quaternion([v[c] for c in ("tx", "ty", "tz")], [v[c] for c in ("qx", "qy", "qz", "qw")])
            )
        with np.load(folder / "tracks.npz") as data:
            image, point, xy = data["image"], data["point"], data["xy"].astype(np.float64)
        self._tracks = []
        seen = np.zeros((len(rows), int(point.max()) + 1), np.float32)
        seen[image, point] = 1
        for k in range(len(rows)):
            mine = np.flatnonzero(image == k)
            mine = mine[np.argsort(point[mine])]
            self._tracks.append((point[mine], xy[mine]))
        self.pairs: NDArray[np.intp] = np.argwhere(np.triu(seen @ seen.T, 1) >= 25)

    def error(self, i: int, j: int) -> Error:
        relative = np.linalg.inv(self._pose[j]) @ self._pose[i]
        x, y, z = relative[:3, 3]
        skew = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
        fundamental = np.linalg.inv(self._K[j]).T @ skew @ relative[:3, :3] @ np.linalg.inv(self._K[i])
        (point0, at0), (point1, at1) = self._tracks[i], self._tracks[j]
        _, first, second = np.intersect1d(point0, point1, return_indices=True)
        at0, at1 = at0[first], at1[second]
        # aerial photos of opposite headings: the local maps begin at the common one
        common = cv2.estimateAffine2D(at0, at1, ransacReprojThreshold=30.0)[0]
        common = np.eye(2, 3) if common is None else common

        def error(xy0: Float64, xy1: Float64) -> Float64:
            """The epipolar distance where tracks near by confirm the place; where it is large, that is enough."""
            h0, h1 = np.c_[xy0, np.ones(len(xy0))], np.c_[xy1, np.ones(len(xy1))]
            line1, line0 = h0 @ fundamental.T, h1 @ fundamental
            product = np.abs((h1 * line1).sum(1))
            distance = product * (1 / np.hypot(*line1[:, :2].T) + 1 / np.hypot(*line0[:, :2].T)) / 2
            begin, place = (xy @ common[:, :2].T + common[:, 2] for xy in (at0, xy0))
            nearest = nearest_matches(begin, 8, place)
            local = estimate_local_affine(begin, at1, at=place, neighbours=nearest)
            away = np.linalg.norm(local.predicted - xy1, axis=1)
            reach = nearest.distance[:, 2]
            confirmed = away < 5 + 0.3 * reach
            refuted = (reach < 40) & (away > 40 + 0.5 * reach) & (local.support > 0.6)
            out = np.where(confirmed | (distance > 1.5), distance, np.nan)
            return np.where(refuted, np.inf, out)

        return error


@lru_cache
def _photo_set(folder: Path) -> _PhotoSet:
    return _PhotoSet(folder)
