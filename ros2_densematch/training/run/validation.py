"""Measuring a matcher with the weights at hand on training material that is held out."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from ros2_densematch.arrays import Image
from ros2_densematch.evaluation.pictures import match_picture
from ros2_densematch.evaluation.pose import pose_auc, pose_error_deg
from ros2_densematch.geometry.camera import Camera
from ros2_densematch.geometry.correspondences import Correspondences
from ros2_densematch.geometry.two_view import estimate_relative_pose
from ros2_densematch.matchers.base import Matcher
from ros2_densematch.matchers.registry import load_matcher
from ros2_densematch.training.data.posed_views import ViewPair, dense_from_views
from ros2_densematch.training.data.sample import DenseTruth
from ros2_densematch.training.data.source import PairSource
from ros2_densematch.training.images import TrainingDataError
from ros2_densematch.training.recipe import ValidationRecipe

THRESHOLDS_PX = (1.0, 3.0, 5.0)
THRESHOLDS_DEG = (5.0, 10.0, 20.0)
_MIN_VISIBLE = 0.05  # share of the pixels of image 0; below it a pair shows two different things
_DRAWS = 8
_PICTURE_WIDTH = 960


@dataclass(frozen=True)
class ValidationPair:
    """Two images, the dense truth from the first to the second, and their pose where it is known."""

    image0: Image
    image1: Image
    truth: DenseTruth
    pose: tuple[Camera, Camera, NDArray[np.float64]] | None = None


def draw_validation_pairs(
    sources: Sequence[tuple[PairSource, float]], config: ValidationRecipe, size: int, seed: int
) -> list[ValidationPair]:
    """The same pairs every time: whole views where a source has them, otherwise pairs of crops twice the crop size.

    Sources without dense truth are left out; so are pairs that share too little, and damaged files.
    """
    usable = [(s, w) for s, w in sources if s.has_dense]
    if not usable:
        return []
    chance = np.array([w for _, w in usable]) / sum(w for _, w in usable)
    pairs = []
    for number in range(config.pairs):
        for attempt in range(_DRAWS):
            rng = np.random.default_rng((seed, 31, number, attempt))
            source = usable[int(rng.choice(len(usable), p=chance))][0]
            try:
                pair = _draw(source, rng, config, size)
            except TrainingDataError:
                continue
            if pair.truth.valid.mean() >= _MIN_VISIBLE:
                pairs.append(pair)
                break
    return pairs


def _draw(source: PairSource, rng: np.random.Generator, config: ValidationRecipe, size: int) -> ValidationPair:
    if source.has_views:
        return _whole_views(source.draw_views(rng), config.max_side)
    pair = source.draw(rng, min(2 * size, config.max_side))
    assert pair.dense is not None
    return ValidationPair(pair.image0, pair.image1, pair.dense())


def _whole_views(views: ViewPair, max_side: int) -> ValidationPair:
    side = max(*views.image0.shape[:2], *views.image1.shape[:2])
    scale = min(1.0, max_side / side)
    images, crops, cameras = [], [], []
    for image, K in ((views.image0, views.K0), (views.image1, views.K1)):
        height, width = image.shape[:2]
        w, h = round(width * scale), round(height * scale)
        images.append(cv2.resize(image, (w, h), interpolation=cv2.INTER_AREA).astype(np.uint8, copy=False))
        sx, sy = w / width, h / height
        crops.append(np.array([[sx, 0, (sx - 1) / 2], [0, sy, (sy - 1) / 2], [0, 0, 1]], np.float64))
        cameras.append(Camera.from_matrix(K, width, height).resized(w, h))
    truth = _rectangular(views, crops, images)
    return ValidationPair(images[0], images[1], truth, (cameras[0], cameras[1], views.T_1_from_0))


def _rectangular(views: ViewPair, crops: list[NDArray[np.float64]], images: list[Image]) -> DenseTruth:
    """The dense truth between whole images: that of a square that holds both, cut to the first image."""
    side = max(*images[0].shape[:2], *images[1].shape[:2])
    truth = dense_from_views(views, crops[0], crops[1], side, 0.05)
    height, width = images[0].shape[:2]
    return DenseTruth(truth.warp[:height, :width], truth.valid[:height, :width], truth.known[:height, :width])


@dataclass(frozen=True)
class Measured:
    """What a matcher reached on the validation pairs.

    Attributes:
        values: `mma@T` share of judged matches within T px of the truth, mean over pairs; `auc@T` area under the
            curve of the pose error in degrees, where poses are known; `matches` mean number of matches.
        pictures: match pictures, uint8 RGB, of the first pairs.
    """

    values: dict[str, float]
    pictures: list[Image]


def measure(
    matcher_name: str,
    weights: Path,
    pairs: Sequence[ValidationPair],
    config: ValidationRecipe,
    *,
    device: str = "auto",
    pictures: int = 2,
) -> Measured:
    """Matches the pairs with a weights file.

    Nothing of it touches the random state of training.

    Raises:
        ValueError: the weights are not those of the matcher (yet).
    """
    with torch.random.fork_rng(), _numbers_kept():
        matcher = load_matcher(matcher_name, device=device, weights=str(weights), **config.matcher)
        return _measure(matcher, pairs, pictures)


@contextmanager
def _numbers_kept() -> Iterator[None]:
    """Python's and NumPy's random state afterwards is that of before."""
    python, numpy = random.getstate(), np.random.get_state()  # noqa: NPY002  (others may draw from it)
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)  # noqa: NPY002


def _measure(matcher: Matcher, pairs: Sequence[ValidationPair], pictures: int) -> Measured:
    shares, errors, counts = [], [], []
    drawn: list[Image] = []
    for pair in pairs:
        reference = matcher.encode(pair.image0, reference=True)
        m = matcher.match(reference, matcher.encode(pair.image1), max_matches=2000, seed=0)
        right, judged = judge(pair.truth, m)
        counts.append(float(len(m)))
        shares.append([float((right < t).sum()) / max(1, int(judged.sum())) for t in THRESHOLDS_PX])
        if pair.pose is not None:
            camera0, camera1, truth = pair.pose
            estimate = estimate_relative_pose(m, camera0, camera1, seed=0)
            errors.append(pose_error_deg(estimate.T_query_from_reference if estimate.ok else None, truth))
        if len(drawn) < pictures:
            drawn.append(match_picture(pair.image0, pair.image1, m, right < THRESHOLDS_PX[1], width=_PICTURE_WIDTH))
    values: dict[str, Any] = {}
    for t, share in zip(THRESHOLDS_PX, np.mean(shares, 0), strict=True):
        values[f"mma@{t:g}"] = float(share)
    if errors:
        for t, area in zip(THRESHOLDS_DEG, pose_auc(errors, THRESHOLDS_DEG), strict=True):
            values[f"auc@{t:g}"] = float(area)
    values["matches"] = float(np.mean(counts))
    return Measured(values, drawn)


def judge(truth: DenseTruth, m: Correspondences) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Distance of each match from the truth in pixels (infinite where it is wrong or not judged), and which are judged.

    A match that starts where nothing is known is not judged; one that starts where the second image does not show the
    place is wrong.
    """
    height, width = truth.valid.shape
    x = np.clip(np.round(m.reference_xy[:, 0]).astype(int), 0, width - 1)
    y = np.clip(np.round(m.reference_xy[:, 1]).astype(int), 0, height - 1)
    # the truth is that of the pixel's centre: the rest of the way is carried over, which errs little
    offset = m.reference_xy - np.stack([x, y], 1)
    expected = truth.warp[y, x] + offset
    error = np.linalg.norm(m.query_xy - expected, axis=1).astype(np.float64)
    judged = truth.known[y, x]
    return np.where(judged & truth.valid[y, x], error, np.inf), judged
