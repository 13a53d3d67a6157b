"""WxBS-style sets: a fundamental matrix is estimated and judged by hand-marked correspondences.

Mishkin et al., "WxBS: wide baseline stereo generalizations", BMVC 2015; as the package wxbs-benchmark does by default:
USAC_MAGSAC 0.25 px, 100,000 iterations; mAA@10 is the mean, over thresholds of 1 to 10 pixels, of the share of marked
correspondences whose symmetric epipolar distance lies below the threshold.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from ros2_densematch.arrays import Float64
from ros2_densematch.evaluation.datasets.base import Dataset, EpipolarTruth
from ros2_densematch.evaluation.predictions.entries import Entry
from ros2_densematch.evaluation.predictions.store import PredictionStore
from ros2_densematch.evaluation.protocols import Protocol
from ros2_densematch.evaluation.scores.epipolar import symmetric_distance
from ros2_densematch.evaluation.scores.figures import EntryScores, Figure, FigureGroup, PairScore, bootstrap, cumulative
from ros2_densematch.evaluation.scores.judging import Cost, predictions_of, unusable_pairs
from ros2_densematch.evaluation.scores.pixels import inverse, map_affine

THRESHOLD_PX, ITERATIONS, CONFIDENCE = 0.25, 100_000, 0.9999
LIMITS_PX = np.arange(1.0, 11.0)
LEAST_MATCHES = 8


def score_two_view_points(dataset: Dataset, store: PredictionStore, entry: Entry, protocol: Protocol) -> EntryScores:
    """All figures of one entry; the same predictions, truth and protocol give the same result."""
    cost = Cost.empty()
    shares: list[Float64] = []
    distances: list[Float64] = []
    rows: list[PairScore] = []
    kept: list[str] = []
    for item in predictions_of(dataset, store):
        pair, prediction, truth = item.pair, item.prediction, item.pair.truth
        assert isinstance(truth, EpipolarTruth)
        if prediction is None:
            rows.append(PairScore(pair.name, pair.subset, "missing", None, item.reason))
            continue
        cost.add(prediction)
        # thresholds are pixels of the stored images
        points = [
            map_affine(inverse(seen.pixels()), xy.astype(np.float64))
            for seen, xy in zip(prediction.seeing, (prediction.reference_xy, prediction.query_xy), strict=True)
        ]
        F = fundamental_matrix(*points)
        distance = np.full(len(truth.query_xy), np.inf)
        if F is not None:
            distance = symmetric_distance(F, truth.reference_xy, truth.query_xy)
        distances.append(distance)
        shares.append(np.array([(distance < limit).mean() for limit in LIMITS_PX]))
        kept.append(pair.subset)
        accuracy = float(shares[-1].mean())
        reason = prediction.error or ("" if F is not None else "the estimator found no fundamental matrix")
        values: dict[str, float | None] = {"maa_10": accuracy, "matches": float(len(prediction.score))}
        status = "scored" if F is not None else "failed"
        rows.append(PairScore(pair.name, pair.subset, status, 1.0 - accuracy, reason, values))  # type: ignore[arg-type]
    rows += unusable_pairs(dataset)
    groups: list[FigureGroup] = []
    by_subset = []
    curves = []
    if shares:
        setting = f"OpenCV USAC_MAGSAC {THRESHOLD_PX:g} px, {protocol.images.label}, distances at the stored size"
        all_shares = np.array(shares)
        groups = [_group(all_shares, setting), cost.group(store)]
        names = sorted(set(kept))
        if len(names) > 1:
            by_subset = [(n, (_group(all_shares[np.array([s == n for s in kept])], setting),)) for n in names]
        curves = [cumulative("marked correspondences", np.concatenate(distances).tolist(), LIMITS_PX[-1])]
    return EntryScores(entry.name, entry.facts, tuple(groups), tuple(by_subset), tuple(rows), tuple(curves), "1 - mAA")


def _group(shares: Float64, setting: str) -> FigureGroup:
    def statistic(index: NDArray[np.intp]) -> Float64:
        chosen = shares[index]
        return np.asarray(100 * np.stack([chosen.mean((1, 2)), chosen[..., 2].mean(1)], 1))

    values = statistic(np.arange(len(shares))[None])[0]
    low, high = bootstrap(len(shares), statistic)
    figures = tuple(
        Figure(key, label, float(values[i]), 1, "%", float(low[i]), float(high[i]))
        for i, (key, label) in enumerate((("maa_10", "mAA@10 px"), ("within_3_px", "marks within 3 px")))
    )
    note = "Marked correspondences near the estimated epipolar lines; none of a pair without a fundamental matrix."
    return FigureGroup("wxbs", "Epipolar geometry", setting, figures, note)


def fundamental_matrix(xy0: Float64, xy1: Float64) -> Float64 | None:
    """F (3, 3), x1^T F x0 = 0, or None."""
    if len(xy0) < LEAST_MATCHES:
        return None
    cv2.setRNGSeed(0)
    try:
        F, _ = cv2.findFundamentalMat(xy0, xy1, cv2.USAC_MAGSAC, THRESHOLD_PX, CONFIDENCE, ITERATIONS)
    except cv2.error:  # too few points after its own checks
        return None
    return None if F is None or F.shape != (3, 3) else np.asarray(F, np.float64)
