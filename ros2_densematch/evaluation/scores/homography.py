"""Homography pairs: mean matching accuracy, corner errors by several estimators, purity, calibration."""

from __future__ import annotations

import cv2
import numpy as np
import poselib  # type: ignore[import-untyped]
from numpy.typing import NDArray

from ros2_densematch.arrays import Float64
from ros2_densematch.evaluation.datasets.base import Dataset, HomographyTruth
from ros2_densematch.evaluation.pose import pose_auc
from ros2_densematch.evaluation.predictions.entries import Entry
from ros2_densematch.evaluation.predictions.store import PredictionStore
from ros2_densematch.evaluation.protocols import SWEEP_PX, EstimatorName, EstimatorSetting, Protocol
from ros2_densematch.evaluation.scores.areas import recall_areas, recall_at
from ros2_densematch.evaluation.scores.covariance import covariance_group, match_errors_squared
from ros2_densematch.evaluation.scores.figures import (
    EntryScores,
    Figure,
    FigureGroup,
    PairScore,
    bootstrap,
    cumulative,
    mean_or_none,
)
from ros2_densematch.evaluation.scores.judging import (
    Cost,
    ScoreJudgement,
    predictions_of,
    purity_group,
    unusable_pairs,
)

MMA_PX = (1.0, 3.0, 5.0)
CORNER_PX = (1.0, 3.0, 5.0)
RIGHT_PX = 3.0
COVARIANCE_UP_TO_PX = 5.0
LEAST_MATCHES = 4
ITERATIONS = 10_000
CONFIDENCE = 0.99999


def score_homography(dataset: Dataset, store: PredictionStore, entry: Entry, protocol: Protocol) -> EntryScores:
    """All figures of one entry; the same predictions, truth and protocol give the same result."""
    cost, judged = Cost.empty(), ScoreJudgement.empty()
    distances: list[Float64] = []
    corners: dict[tuple[EstimatorSetting, float], list[float]] = {}
    covariances: list[tuple[float, int]] = []
    rows: list[PairScore] = []
    kept: list[str] = []
    for item in predictions_of(dataset, store):
        pair, prediction = item.pair, item.prediction
        if prediction is None:
            rows.append(PairScore(pair.name, pair.subset, "missing", None, item.reason))
            continue
        assert isinstance(pair.truth, HomographyTruth)
        cost.add(prediction)
        A0, A1 = (seen.pixels() for seen in prediction.seeing)
        H = A1 @ pair.truth.H @ np.linalg.inv(A0)
        xy0, xy1 = prediction.reference_xy.astype(np.float64), prediction.query_xy.astype(np.float64)
        away = map_points(H, xy0) - xy1
        distance = np.linalg.norm(away, axis=1)
        distances.append(distance)
        judged.add(prediction.score, distance <= RIGHT_PX)
        if prediction.precision is not None:
            near = distance <= COVARIANCE_UP_TO_PX
            covariances += [(float(v), 2) for v in match_errors_squared(away[near], prediction.precision[near])]
        kept.append(pair.subset)
        errors = []
        for setting in protocol.homography_estimators:
            for threshold in SWEEP_PX if setting.threshold_px is None else (setting.threshold_px,):
                estimated = estimate_homography(xy0, xy1, setting.name, threshold)
                error = corner_error(estimated, H, prediction.seeing[0].size)
                corners.setdefault((setting, threshold), []).append(error)
                errors.append(error)
        failed = not np.isfinite(errors[0])
        reason = prediction.error or ("the estimator found no homography" if failed else "")
        values = {"matches": float(len(xy0)), "within_3_px": float((distance < 3).sum())}
        status = "failed" if failed else "scored"
        rows.append(PairScore(pair.name, pair.subset, status, errors[0], reason, values))  # type: ignore[arg-type]
    rows += unusable_pairs(dataset)
    groups: list[FigureGroup] = []
    curves = []
    by_subset = []
    if kept:
        where = protocol.images.label
        for setting in protocol.homography_estimators:
            group, best = _corner_group(corners, setting, where, None)
            groups.append(group)
            curves.append(cumulative(setting.label, corners[setting, best], CORNER_PX[-1]))
        groups.append(_accuracy_group(distances, where))
        for name in sorted(set(kept)) if len(set(kept)) > 1 else ():
            index = np.array([i for i, s in enumerate(kept) if s == name], np.intp)
            by_subset.append(
                (name, tuple(_corner_group(corners, s, where, index)[0] for s in protocol.homography_estimators))
            )
        groups.append(
            purity_group(distances, where, "Distance from the true place. A pair without matches counts as wrong.")
        )
        calibration, reliability = judged.group(
            entry.name, where, "A match counts as right within 3 px of its true place."
        )
        groups += calibration
        curves += reliability
        note = (
            f"Of the matches within {COVARIANCE_UP_TO_PX:g} px: whether a match is right at all is the score's matter."
        )
        groups += covariance_group("match_covariance", "Covariance of the matches", where, covariances, note)
        groups.append(cost.group(store))
    return EntryScores(entry.name, entry.facts, tuple(groups), tuple(by_subset), tuple(rows), tuple(curves), "px")


def map_points(H: Float64, xy: Float64) -> Float64:
    """Points (N, 2) under a homography; infinite where it sends them to infinity."""
    mapped = np.c_[xy, np.ones(len(xy))] @ H.T
    with np.errstate(divide="ignore", invalid="ignore"):
        there = mapped[:, :2] / mapped[:, 2:]
    return np.asarray(np.where(np.isfinite(there), there, np.inf), np.float64)


def estimate_homography(xy0: Float64, xy1: Float64, name: EstimatorName, threshold_px: float) -> Float64 | None:
    """H (3, 3), reference to query, or None. `own` has no homography of its own and is PoseLib's."""
    if len(xy0) < LEAST_MATCHES:
        return None
    if name in ("poselib", "own"):
        options = {"max_reproj_error": threshold_px, "max_iterations": ITERATIONS, "seed": 0}
        H, info = poselib.estimate_homography(xy0, xy1, options, {})
        return np.asarray(H, np.float64) if info.get("num_inliers", 0) >= LEAST_MATCHES else None
    cv2.setRNGSeed(0)
    method = cv2.USAC_MAGSAC if name == "magsac" else cv2.RANSAC
    try:
        H, _ = cv2.findHomography(xy0, xy1, method, threshold_px, maxIters=ITERATIONS, confidence=CONFIDENCE)
    except cv2.error:  # too few points after its own checks
        return None
    return None if H is None else np.asarray(H, np.float64)


def corner_error(estimated: Float64 | None, true: Float64, size: tuple[int, int]) -> float:
    """Mean distance in pixels of the four corners of a (width, height) image; infinite without an estimate."""
    if estimated is None:
        return float("inf")
    w, h = size[0] - 1.0, size[1] - 1.0
    corners = np.array([[0, 0], [w, 0], [w, h], [0, h]])
    error = float(np.linalg.norm(map_points(estimated, corners) - map_points(true, corners), axis=1).mean())
    return error if np.isfinite(error) else float("inf")


def _corner_group(
    corners: dict[tuple[EstimatorSetting, float], list[float]],
    setting: EstimatorSetting,
    where: str,
    index: NDArray[np.intp] | None,
) -> tuple[FigureGroup, float]:
    """Corner accuracy and AUC of one estimator, and the threshold that they belong to."""
    threshold, label = setting.threshold_px, setting.label
    sweep: tuple[tuple[float, tuple[Figure, ...]], ...] = ()
    if threshold is None:
        sweep = tuple((t, _corner_figures(np.array(corners[setting, t]))) for t in SWEEP_PX)
        threshold = max(SWEEP_PX, key=lambda t: float(pose_auc(corners[setting, t], (3.0,))[0]))
        label += f": {threshold:g} px"
    errors = np.array(corners[setting, threshold])
    figures = _corner_figures(errors if index is None else errors[index])
    key = f"{setting.name} {'auto' if setting.threshold_px is None else f'{threshold:g}'}"
    note = (
        "Mean error of the image's four corners under the estimated homography; a pair without one is infinitely wrong."
    )
    return FigureGroup(key, "Homography", f"{label}, {where}", figures, note, sweep), threshold


def _corner_figures(errors: Float64) -> tuple[Figure, ...]:
    def areas(e: Float64) -> Float64:
        return np.asarray(100 * np.hstack([recall_at(e, CORNER_PX), recall_areas(e, CORNER_PX)]), np.float64)

    values = areas(errors[None])[0]
    low, high = bootstrap(len(errors), lambda index: areas(errors[index]))
    names = [("accuracy", "corners <", t) for t in CORNER_PX] + [("auc", "AUC@", t) for t in CORNER_PX]
    return tuple(
        Figure(
            f"{key}_{t:g}", f"{label}{' ' if key == 'accuracy' else ''}{t:g} px", float(v), 1, "%", float(a), float(b)
        )
        for (key, label, t), v, a, b in zip(names, values, low, high, strict=True)
    )


def _accuracy_group(distances: list[Float64], where: str) -> FigureGroup:
    shares = np.array([[(d < t).mean() if len(d) else 0.0 for t in MMA_PX] for d in distances])
    low, high = bootstrap(len(shares), lambda index: np.asarray(shares[index].mean(1)))
    figures = tuple(
        Figure(f"mma_{t:g}", f"MMA@{t:g} px", float(shares[:, i].mean()), 2, "", float(low[i]), float(high[i]))
        for i, t in enumerate(MMA_PX)
    )
    good = mean_or_none([float((d < 3).sum()) for d in distances])
    figures += (Figure("within_3_px", "matches within 3 px", good, 0),)
    note = (
        "Share of a pair's matches within a distance of the true place, mean over pairs; 0 for a pair without matches."
    )
    return FigureGroup("mma", "Mean matching accuracy", where, figures, note)
