"""The pairs that went worst, with the matches of every entry side by side."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from ros2_densematch.arrays import Image
from ros2_densematch.evaluation.comparison.run import Evaluation, store_of
from ros2_densematch.evaluation.datasets.base import Dataset, DatasetError, FlowTruth, HomographyTruth, Pair, PoseTruth
from ros2_densematch.evaluation.pictures import match_picture
from ros2_densematch.evaluation.predictions.entries import Entry
from ros2_densematch.evaluation.predictions.images import MissingImageError, read_seen
from ros2_densematch.evaluation.predictions.store import Prediction
from ros2_densematch.evaluation.protocols import Protocol
from ros2_densematch.evaluation.scores.dense import match_errors
from ros2_densematch.evaluation.scores.epipolar import epipolar_errors
from ros2_densematch.evaluation.scores.homography import map_points
from ros2_densematch.evaluation.scores.pose import judged_problem
from ros2_densematch.geometry.correspondences import Correspondences

SHOWN = 10
RIGHT_PX = 3.0
_MOST_BYTES = 3_400_000  # of all pictures together, as base64: the page stays below 5 MB
_WIDTHS = (560, 440, 340, 260, 200)
_QUALITY = 72


@dataclass(frozen=True)
class ShownPair:
    """One pair of the page: its name, and for each entry a data URL and a caption."""

    name: str
    pictures: tuple[tuple[str, str, str], ...]


def worst_pairs(
    out: Path, dataset: Dataset, protocol: Protocol, evaluation: Evaluation, entries: Sequence[Entry]
) -> list[ShownPair]:
    """The pairs with the largest error of the first entry, drawn for all entries; as large as the page allows."""
    ranked = _ranked(dataset, evaluation)[:SHOWN]
    for width in _WIDTHS:
        shown = [_shown(out, dataset, protocol, evaluation, entries, index, width) for index in ranked]
        if sum(len(url) for pair in shown for _, url, _ in pair.pictures) <= _MOST_BYTES or width == _WIDTHS[-1]:
            return [pair for pair in shown if pair.pictures]
    return []


def _ranked(dataset: Dataset, evaluation: Evaluation) -> list[int]:
    """Indices of pairs in the data set, worst first: by the error of the first entry, then by that of all."""
    rows = [{p.name: p for p in entry.pairs} for entry in evaluation.entries]
    keys = []
    for index, pair in enumerate(dataset.pairs):
        errors = [by_name[pair.name].error for by_name in rows]
        if errors[0] is not None:
            others = [min(e, 1e9) for e in errors if e is not None]
            keys.append((-min(errors[0], 1e9), -float(np.mean(others)), index))
    return [index for *_, index in sorted(keys)]


def _shown(
    out: Path,
    dataset: Dataset,
    protocol: Protocol,
    evaluation: Evaluation,
    entries: Sequence[Entry],
    index: int,
    width: int,
) -> ShownPair:
    pair = dataset.pairs[index]
    pictures = []
    for entry, scores in zip(entries, evaluation.entries, strict=True):
        prediction = store_of(out, dataset, protocol, entry).read(index, pair.name)
        row = next(p for p in scores.pairs if p.name == pair.name)
        if prediction is None or row.error is None:
            continue
        try:
            picture = _picture(pair, prediction, protocol, width)
        except MissingImageError:
            continue
        error = "no result" if row.status == "failed" else f"error {row.error:.3g} {scores.error_unit}"
        reason = f" ({row.reason})" if row.reason else ""
        caption = f"{error}{reason}, {len(prediction.score)} matches"
        pictures.append((entry.name, _data_url(picture), caption))
    return ShownPair(pair.name, tuple(pictures))


def _picture(pair: Pair, prediction: Prediction, protocol: Protocol, width: int) -> Image:
    images = [
        read_seen(path, protocol.images, turns)[0]
        for path, turns in zip((pair.reference, pair.query), pair.turns, strict=True)
    ]
    sizes = prediction.seeing[0].size, prediction.seeing[1].size
    matches = Correspondences(prediction.reference_xy, prediction.query_xy, prediction.score, 0.0, *sizes)
    right = right_matches(pair, prediction, protocol)
    if right is None:
        return match_picture(images[0], images[1], matches, width=width, max_lines=80)
    return match_picture(images[0], images[1], matches, right, width=width, max_lines=80)


def right_matches(pair: Pair, prediction: Prediction, protocol: Protocol) -> NDArray[np.bool_] | None:
    """Which matches (N,) lie within 3 px of the truth, or of its epipolar line; None where the truth does not tell."""
    truth = pair.truth
    xy0, xy1 = prediction.reference_xy.astype(np.float64), prediction.query_xy.astype(np.float64)
    if isinstance(truth, PoseTruth):
        problem, T = judged_problem(pair, prediction, protocol)
        if np.linalg.norm(T[:3, 3]) < 1e-9 or not len(xy0):
            return np.zeros(len(xy0), np.bool_) if len(xy0) == 0 else None
        return np.asarray(epipolar_errors(*problem.rays(), T, problem.focal) <= RIGHT_PX)
    if isinstance(truth, HomographyTruth):
        H = prediction.seeing[1].pixels() @ truth.H @ np.linalg.inv(prediction.seeing[0].pixels())
        return np.asarray(np.linalg.norm(map_points(H, xy0) - xy1, axis=1) <= RIGHT_PX)
    if isinstance(truth, FlowTruth):
        try:
            away, kept = match_errors(prediction, *truth.read())
        except (DatasetError, OSError):
            return None
        right = np.zeros(len(xy0), np.bool_)
        right[kept] = np.linalg.norm(away, axis=1) <= RIGHT_PX
        return right
    return None


def _data_url(picture: Image) -> str:
    ok, data = cv2.imencode(".jpg", picture[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])
    if not ok:
        raise RuntimeError(f"OpenCV could not encode a picture of shape {picture.shape}")
    return "data:image/jpeg;base64," + base64.b64encode(data.tobytes()).decode("ascii")
