"""Percentage of correct key points (PCK) on category-level sets, with each paper's own normalisation."""

from __future__ import annotations

import numpy as np

from ros2_densematch.arrays import Float64
from ros2_densematch.evaluation.datasets.base import Dataset, KeypointTruth
from ros2_densematch.evaluation.predictions.entries import Entry
from ros2_densematch.evaluation.predictions.store import PredictionStore
from ros2_densematch.evaluation.protocols import Protocol
from ros2_densematch.evaluation.scores.figures import EntryScores, Figure, FigureGroup, PairScore, bootstrap, cumulative
from ros2_densematch.evaluation.scores.judging import Cost, predictions_of, unusable_pairs
from ros2_densematch.evaluation.scores.pixels import inverse, map_affine
from ros2_densematch.evaluation.scores.transfer import RULE, transfer

ALPHAS = (0.05, 0.1, 0.15)


def score_keypoints(dataset: Dataset, store: PredictionStore, entry: Entry, protocol: Protocol) -> EntryScores:
    """All figures of one entry; the same predictions, truth and protocol give the same result."""
    cost = Cost.empty()
    shares: list[list[float]] = []
    errors: list[Float64] = []
    rows: list[PairScore] = []
    kept: list[str] = []
    rule = ""
    for item in predictions_of(dataset, store):
        pair, prediction, truth = item.pair, item.prediction, item.pair.truth
        assert isinstance(truth, KeypointTruth)
        if prediction is None:
            rows.append(PairScore(pair.name, pair.subset, "missing", None, item.reason))
            continue
        cost.add(prediction)
        rule = truth.rule
        there = transfer(prediction, map_affine(prediction.seeing[0].pixels(), truth.reference_xy))
        found = map_affine(inverse(prediction.seeing[1].pixels()), there)
        relative = np.linalg.norm(found - truth.query_xy, axis=1) / truth.length_px
        relative = np.nan_to_num(relative, nan=np.inf)
        errors.append(relative)
        shares.append([float((relative <= alpha).mean()) for alpha in ALPHAS])
        kept.append(pair.subset)
        failed = prediction.error or not len(prediction.score)
        status, reason = ("failed", prediction.error or "no match") if failed else ("scored", "")
        values = {f"pck_{a:g}": s for a, s in zip(ALPHAS, shares[-1], strict=True)}
        rows.append(PairScore(pair.name, pair.subset, status, 1.0 - shares[-1][1], reason, values))  # type: ignore[arg-type]
    rows += unusable_pairs(dataset)
    groups: list[FigureGroup] = []
    by_subset = []
    curves = []
    if shares:
        setting = f"alpha times the {rule}; {protocol.images.label}"
        values_of = np.array(shares)
        groups = [_pck(values_of, setting), cost.group(store)]
        names = sorted(set(kept))
        if len(names) > 1:
            by_subset = [(n, (_pck(values_of[np.array([s == n for s in kept])], setting),)) for n in names]
        curves = [cumulative("key points, error relative to that length", np.concatenate(errors).tolist(), 0.3)]
    return EntryScores(
        entry.name, entry.facts, tuple(groups), tuple(by_subset), tuple(rows), tuple(curves), "share wrong"
    )


def _pck(shares: Float64, setting: str) -> FigureGroup:
    values = 100 * shares.mean(0)
    low, high = bootstrap(len(shares), lambda index: np.asarray(100 * shares[index].mean(1)))
    figures = tuple(
        Figure(f"pck_{alpha:g}", f"PCK@{alpha:g}", float(v), 1, "%", float(a), float(b))
        for alpha, v, a, b in zip(ALPHAS, values, low, high, strict=True)
    )
    return FigureGroup("pck", "Correct key points", setting, figures, f"Mean over the pairs; {RULE}.")
