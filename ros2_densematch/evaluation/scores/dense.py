"""Dense truth (stereo, flow): accuracy and coverage of the matches, end-point error of the dense warp."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ros2_densematch.arrays import Float64
from ros2_densematch.evaluation.datasets.base import Dataset, DatasetError, FlowTruth
from ros2_densematch.evaluation.predictions.entries import Entry
from ros2_densematch.evaluation.predictions.store import Prediction, PredictionStore
from ros2_densematch.evaluation.protocols import Protocol
from ros2_densematch.evaluation.scores.covariance import covariance_group, match_errors_squared
from ros2_densematch.evaluation.scores.figures import EntryScores, Figure, FigureGroup, PairScore, bootstrap, cumulative
from ros2_densematch.evaluation.scores.judging import (
    Cost,
    ScoreJudgement,
    predictions_of,
    purity_group,
    unusable_pairs,
)
from ros2_densematch.evaluation.scores.pixels import inverse, map_affine
from ros2_densematch.evaluation.scores.transfer import RULE, transfer, warp_at

CELL = 16
RIGHT_PX = 3.0
PCK_ALPHA = 0.05
COVARIANCE_UP_TO_PX = 5.0


def score_dense(dataset: Dataset, store: PredictionStore, entry: Entry, protocol: Protocol) -> EntryScores:
    """All figures of one entry; the same predictions, truth and protocol give the same result."""
    cost, judged = Cost.empty(), ScoreJudgement.empty()
    shares: list[list[float]] = []  # matches, within 1, within 3, cells covered
    flow: list[list[float]] = []  # end-point error, outliers
    pck: list[float] = []
    distances: list[Float64] = []
    covariances: list[tuple[float, int]] = []
    rows: list[PairScore] = []
    for item in predictions_of(dataset, store):
        pair, prediction = item.pair, item.prediction
        if prediction is None:
            rows.append(PairScore(pair.name, pair.subset, "missing", None, item.reason))
            continue
        assert isinstance(pair.truth, FlowTruth)
        try:
            truth, valid = pair.truth.read()
        except (DatasetError, OSError) as error:
            rows.append(PairScore(pair.name, pair.subset, "missing", None, str(error)))
            continue
        cost.add(prediction)
        away, kept = match_errors(prediction, truth, valid)
        distance = np.linalg.norm(away, axis=1)
        distances.append(distance)
        judged.add(prediction.score[kept], distance <= RIGHT_PX)
        if prediction.precision is not None:
            near = distance <= COVARIANCE_UP_TO_PX
            precision = prediction.precision[kept][near]
            covariances += [(float(v), 2) for v in match_errors_squared(away[near], precision)]
        within = [float((distance < t).mean()) if len(distance) else 0.0 for t in (1, 3)]
        covered = coverage(prediction.reference_xy[kept][distance < 1], prediction, valid)
        shares.append([float(len(distance)), *within, covered])
        values: dict[str, float | None] = {
            "matches": float(len(distance)),
            "within_1_px": within[0],
            "covered": covered,
        }
        if prediction.warp_xy is not None:
            flow.append(warp_errors(prediction, truth, valid))
            values["end_point_error_px"] = flow[-1][0]
        if pair.truth.pck:
            pck.append(percentage_of_correct_pixels(prediction, truth, valid))
            values["pck"] = pck[-1]
        status = "failed" if prediction.error or not len(prediction.score) else "scored"
        reason = prediction.error or ("no match" if status == "failed" else "")
        rows.append(PairScore(pair.name, pair.subset, status, 1.0 - covered, reason, values))  # type: ignore[arg-type]
    rows += unusable_pairs(dataset)
    groups: list[FigureGroup] = []
    curves = []
    if shares:
        where = protocol.images.label
        groups.append(_match_group(shares, where))
        groups += _warp_groups(flow, pck, where)
        groups.append(
            purity_group(distances, where, "Distance from the true place. A pair without matches counts as wrong.")
        )
        everything = np.concatenate(distances)
        curves.append(cumulative("matches", everything.tolist(), 5.0))
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
    return EntryScores(entry.name, entry.facts, tuple(groups), (), tuple(rows), tuple(curves), "share not covered")


def match_errors(
    prediction: Prediction, flow: NDArray[np.float32], valid: NDArray[np.bool_]
) -> tuple[Float64, NDArray[np.intp]]:
    """How far the matches lie from the truth, in seen pixels (M, 2), and which matches (M,) could be judged.

    Args:
        prediction: N matches.
        flow: (H, W, 2) in pixels of the original images; read at the nearest pixel.
        valid: (H, W), where it is known.
    """
    back, there = inverse(prediction.seeing[0].pixels()), prediction.seeing[1].pixels()
    xy = map_affine(back, prediction.reference_xy.astype(np.float64))
    column, row = np.round(xy).astype(np.intp).T
    height, width = valid.shape
    inside = np.flatnonzero((column >= 0) & (row >= 0) & (column < width) & (row < height))
    kept = inside[valid[row[inside], column[inside]]]
    expected = map_affine(there, xy[kept] + flow[row[kept], column[kept]])
    return prediction.query_xy[kept].astype(np.float64) - expected, kept


def coverage(good_xy: NDArray[np.float32], prediction: Prediction, valid: NDArray[np.bool_]) -> float:
    """Share of the 16 x 16 cells of the seen reference with known truth that hold a good match (M, 2)."""
    width, height = prediction.seeing[0].size
    shape = height // CELL + 1, width // CELL + 1
    hit, known = np.zeros(shape, np.bool_), np.zeros(shape, np.bool_)
    x, y = np.round(good_xy).astype(np.intp).T // CELL
    hit[y.clip(0, shape[0] - 1), x.clip(0, shape[1] - 1)] = True
    rows, columns = np.nonzero(valid)
    seen = map_affine(prediction.seeing[0].pixels(), np.stack([columns, rows], 1).astype(np.float64))
    x, y = np.round(seen).astype(np.intp).T // CELL
    known[y.clip(0, shape[0] - 1), x.clip(0, shape[1] - 1)] = True
    return float(hit[known].mean()) if known.any() else 0.0


def warp_errors(prediction: Prediction, flow: NDArray[np.float32], valid: NDArray[np.bool_]) -> list[float]:
    """Mean end-point error of the dense warp over all known pixels, in pixels of the original query, and the share of
    outliers as KITTI counts them: beyond 3 px and beyond 5 % of the true displacement."""
    rows, columns = np.nonzero(valid)
    xy = np.stack([columns, rows], 1).astype(np.float64)
    there = warp_at(prediction, map_affine(prediction.seeing[0].pixels(), xy))
    back = map_affine(inverse(prediction.seeing[1].pixels()), there)
    error = np.linalg.norm(back - xy - flow[rows, columns], axis=1)
    length = np.linalg.norm(flow[rows, columns], axis=1)
    return [float(error.mean()), float(((error > 3) & (error > 0.05 * length)).mean())]


def percentage_of_correct_pixels(prediction: Prediction, flow: NDArray[np.float32], valid: NDArray[np.bool_]) -> float:
    """Share of the known pixels that are carried to within `PCK_ALPHA` times the larger side of the query."""
    rows, columns = np.nonzero(valid)
    xy = np.stack([columns, rows], 1).astype(np.float64)
    there = transfer(prediction, map_affine(prediction.seeing[0].pixels(), xy))
    back = map_affine(inverse(prediction.seeing[1].pixels()), there)
    error = np.linalg.norm(back - xy - flow[rows, columns], axis=1)
    size, scale = prediction.seeing[1].size, prediction.seeing[1].scale
    limit = PCK_ALPHA * max(size[0] / scale[0], size[1] / scale[1])
    return float((np.nan_to_num(error, nan=np.inf) <= limit).mean()) if len(error) else 0.0


def _match_group(shares: Sequence[Sequence[float]], where: str) -> FigureGroup:
    values = np.array(shares)
    low, high = bootstrap(len(values), lambda index: np.asarray(values[index].mean(1)))
    names = (
        ("matches", "matches a pair", 0),
        ("within_1_px", "within 1 px", 2),
        ("within_3_px", "within 3 px", 2),
        ("coverage", "cells covered", 2),
    )
    figures = tuple(
        Figure(key, label, float(values[:, i].mean()), digits, "", float(low[i]), float(high[i]))
        for i, (key, label, digits) in enumerate(names)
    )
    note = "Against the true displacement at the nearest pixel. Covered: cells of 16 x 16 px with a match within 1 px."
    return FigureGroup("dense", "Matches against dense truth", where, figures, note)


def _warp_groups(flow: list[list[float]], pck: list[float], where: str) -> list[FigureGroup]:
    groups = []
    if flow:
        error, outliers = np.mean(flow, 0)
        figures = (
            Figure("end_point_error", "end-point error", float(error), 2, "px", better="lower"),
            Figure("fl_all", "outliers (Fl)", 100 * float(outliers), 1, "%", better="lower"),
        )
        note = (
            "Over all known pixels, in pixels of the stored images. Outliers: beyond 3 px and 5 % of the displacement."
        )
        groups.append(FigureGroup("warp", "Dense warp", where, figures, note))
    if pck:
        figure = Figure("pck_0.05", "PCK@0.05", 100 * float(np.mean(pck)), 1, "%")
        groups.append(FigureGroup("pck", "Correct pixels", f"larger side of the query; {RULE}", (figure,)))
    return groups
