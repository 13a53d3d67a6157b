"""Label transfer on Caltech-101: label-transfer accuracy and intersection over union of the carried object mask.

Kim et al., "Deformable spatial pyramid matching for fast dense correspondences", CVPR 2013, section 4.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ros2_densematch.evaluation.datasets.base import Dataset, DatasetError, LabelTruth
from ros2_densematch.evaluation.predictions.entries import Entry
from ros2_densematch.evaluation.predictions.store import Prediction, PredictionStore
from ros2_densematch.evaluation.protocols import Protocol
from ros2_densematch.evaluation.scores.figures import EntryScores, Figure, FigureGroup, PairScore, bootstrap
from ros2_densematch.evaluation.scores.judging import Cost, predictions_of, unusable_pairs
from ros2_densematch.evaluation.scores.pixels import inverse, map_affine
from ros2_densematch.evaluation.scores.transfer import RULE, transfer


def score_labels(dataset: Dataset, store: PredictionStore, entry: Entry, protocol: Protocol) -> EntryScores:
    """All figures of one entry; the same predictions, truth and protocol give the same result."""
    cost = Cost.empty()
    found: list[tuple[float, float]] = []
    rows: list[PairScore] = []
    for item in predictions_of(dataset, store):
        pair, prediction, truth = item.pair, item.prediction, item.pair.truth
        assert isinstance(truth, LabelTruth)
        if prediction is None:
            rows.append(PairScore(pair.name, pair.subset, "missing", None, item.reason))
            continue
        try:
            reference, query = truth.read()
        except (DatasetError, OSError) as error:
            rows.append(PairScore(pair.name, pair.subset, "missing", None, str(error)))
            continue
        cost.add(prediction)
        accuracy, union = label_transfer(prediction, reference, query)
        found.append((accuracy, union))
        failed = prediction.error or not len(prediction.score)
        status, reason = ("failed", prediction.error or "no match") if failed else ("scored", "")
        values: dict[str, float | None] = {"lt_acc": accuracy, "iou": union}
        rows.append(PairScore(pair.name, pair.subset, status, 1.0 - union, reason, values))  # type: ignore[arg-type]
    rows += unusable_pairs(dataset)
    groups: list[FigureGroup] = []
    if found:
        values_of = np.array(found)
        low, high = bootstrap(len(found), lambda index: np.asarray(values_of[index].mean(1)))
        names = (("lt_acc", "label-transfer accuracy"), ("iou", "intersection over union"))
        figures = tuple(
            Figure(key, label, float(values_of[:, i].mean()), 3, "", float(low[i]), float(high[i]))
            for i, (key, label) in enumerate(names)
        )
        note = f"The query's object mask is carried into the reference; {RULE}."
        groups = [FigureGroup("labels", "Label transfer", protocol.images.label, figures, note), cost.group(store)]
    return EntryScores(entry.name, entry.facts, tuple(groups), (), tuple(rows), (), "1 - IoU")


def label_transfer(
    prediction: Prediction, reference: NDArray[np.bool_], query: NDArray[np.bool_]
) -> tuple[float, float]:
    """Share of the reference's pixels whose label, read in the query where they are carried to, is right, and the
    intersection over union of the carried object; pixels that are carried out of the query are background.

    Args:
        prediction: matches or warp.
        reference, query: masks of the object in the original images, (H0, W0) and (H1, W1).
    """
    rows, columns = np.mgrid[: reference.shape[0], : reference.shape[1]]
    xy = np.stack([columns.ravel(), rows.ravel()], 1).astype(np.float64)
    there = transfer(prediction, map_affine(prediction.seeing[0].pixels(), xy))
    back = np.nan_to_num(map_affine(inverse(prediction.seeing[1].pixels()), there), nan=-1e6)
    x, y = np.round(np.clip(back, -1e6, 1e6)).astype(np.intp).T
    inside = (x >= 0) & (y >= 0) & (x < query.shape[1]) & (y < query.shape[0])
    carried = np.zeros(len(xy), np.bool_)
    carried[inside] = query[y[inside], x[inside]]
    true = reference.ravel()
    union = (carried | true).sum()
    return float((carried == true).mean()), float((carried & true).sum() / union) if union else 1.0
