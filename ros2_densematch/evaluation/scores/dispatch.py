"""Which score belongs to which truth."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module

from ros2_densematch.evaluation.datasets import base
from ros2_densematch.evaluation.datasets.base import Dataset, DatasetError
from ros2_densematch.evaluation.predictions.entries import Entry
from ros2_densematch.evaluation.predictions.store import PredictionStore
from ros2_densematch.evaluation.protocols import Protocol
from ros2_densematch.evaluation.scores.figures import EntryScores

Score = Callable[[Dataset, PredictionStore, Entry, Protocol], EntryScores]

_SCORES: dict[type, tuple[str, str]] = {
    base.PoseTruth: ("pose", "score_pose"),
    base.HomographyTruth: ("homography", "score_homography"),
    base.FlowTruth: ("dense", "score_dense"),
    base.KeypointTruth: ("keypoints", "score_keypoints"),
    base.LabelTruth: ("labels", "score_labels"),
    base.EpipolarTruth: ("two_view_points", "score_two_view_points"),
}


def score_of(dataset: Dataset) -> Score:
    """The function that scores a data set.

    Raises:
        DatasetError: the data set has no usable pair, or pairs of several kinds of truth.
    """
    kinds = {type(pair.truth) for pair in dataset.pairs}
    if len(kinds) != 1:
        why = "; ".join(reason for _, reason in dataset.unusable[:3]) or "it is empty"
        raise DatasetError(f"{dataset.folder} has no pair that can be scored: {why}")
    module, function = _SCORES[kinds.pop()]
    found: Score = getattr(import_module(f"ros2_densematch.evaluation.scores.{module}"), function)
    return found
