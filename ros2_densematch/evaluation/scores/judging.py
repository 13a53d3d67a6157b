"""What the scores of all tasks share: which pairs have a prediction, and the groups of cost and calibration."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ros2_densematch.evaluation.datasets.base import Dataset, Pair
from ros2_densematch.evaluation.predictions.store import Prediction, PredictionStore
from ros2_densematch.evaluation.scores.calibration import calibration
from ros2_densematch.evaluation.scores.figures import Curve, Figure, FigureGroup, PairScore, mean_or_none


@dataclass(frozen=True, eq=False)
class Judgeable:
    """A pair with its prediction, or the reason why there is none."""

    pair: Pair
    prediction: Prediction | None
    reason: str = ""


def predictions_of(dataset: Dataset, store: PredictionStore) -> Iterator[Judgeable]:
    """All pairs in order, one prediction in memory at a time."""
    for index, pair in enumerate(dataset.pairs):
        prediction = store.read(index, pair.name)
        yield Judgeable(pair, prediction, "" if prediction is not None else store.missing_reason(index))


def unusable_pairs(dataset: Dataset) -> list[PairScore]:
    """Entries of the data set whose truth cannot be read: missing."""
    return [PairScore(name, "", "missing", None, reason) for name, reason in dataset.unusable]


@dataclass
class Cost:
    """Collects what the stages took."""

    encode: list[float]
    match: list[float]
    matches: list[int]

    @staticmethod
    def empty() -> Cost:
        """Nothing collected yet."""
        return Cost([], [], [])

    def add(self, prediction: Prediction) -> None:
        """Takes note of a prediction."""
        times = prediction.timings_ms
        if times.get("images"):
            self.encode.append(times["encode"] / times["images"])
        if "match" in times:
            self.match.append(times["match"])
        self.matches.append(len(prediction.score))

    def group(self, store: PredictionStore) -> FigureGroup:
        """Medians over the pairs, and the peak memory."""
        encode, match = (float(np.median(v)) if v else None for v in (self.encode, self.match))
        pair = None if encode is None or match is None else 2 * encode + match
        cost = store.read_cost()
        figures = (
            Figure("encode_ms", "encode an image", encode, 0, "ms", better="lower"),
            Figure("match_ms", "match", match, 0, "ms", better="lower"),
            Figure("pair_ms", "a pair", pair, 0, "ms", better="lower"),
            Figure("peak_memory_mb", "peak memory", cost.get("peak_memory_mb"), 0, "MiB", better="lower"),
            Figure("matches", "matches a pair", float(np.median(self.matches)) if self.matches else None, 0, better=""),
        )
        note = "Medians over the pairs, on the machine and under the load of that run; compare within one run only."
        return FigureGroup("cost", "Cost", f"device {cost.get('device', 'not recorded')}", figures, note)


@dataclass
class ScoreJudgement:
    """Collects scores and whether each match is right."""

    score: list[NDArray[np.float32]]
    right: list[NDArray[np.bool_]]

    @staticmethod
    def empty() -> ScoreJudgement:
        """Nothing collected yet."""
        return ScoreJudgement([], [])

    def add(self, score: NDArray[np.float32], right: NDArray[np.bool_]) -> None:
        """Takes note of the matches of a pair, (N,) each."""
        self.score.append(score)
        self.right.append(right)

    def group(self, label: str, setting: str, note: str) -> tuple[list[FigureGroup], list[Curve]]:
        """Calibration figures and the reliability curve; nothing where no match was judged."""
        score = np.concatenate([np.zeros(0, np.float32), *self.score]).astype(np.float64)
        right = np.concatenate([np.zeros(0, np.bool_), *self.right])
        if not len(score) or not np.isfinite(score).all() or score.min() < 0 or score.max() > 1:
            return [], []
        found = calibration(score, right)
        figures = (
            Figure("ece", "expected calibration error", found.expected_error, 3, better="lower"),
            Figure("brier", "Brier score", found.brier, 3, better="lower"),
            Figure("average_precision", "average precision", none_if_nan(found.average_precision), 3),
            Figure("judged_matches", "matches judged", float(found.count), 0, better=""),
        )
        curve = Curve(
            "reliability",
            label,
            tuple(round(b.score, 5) for b in found.curve),
            tuple(round(b.share_right, 5) for b in found.curve),
        )
        return [FigureGroup("calibration", "Calibration of the score", setting, figures, note)], [curve]


def purity_group(errors: Sequence[NDArray[np.float64]], setting: str, note: str) -> FigureGroup:
    """Share of matches beyond 1 and 3 px, mean over pairs; a pair without matches counts as wholly wrong.

    Args:
        errors: distances from the truth in pixels, (N_i,), of each pair.
        setting: image size and what the distance is.
        note: for the reader.
    """
    beyond = np.array([purity(e) for e in errors]).reshape(-1, 2)
    worst = np.sort(beyond[:, 1])[::-1][: max(1, len(beyond) // 4)]
    good = [float((e <= 1).sum()) for e in errors]
    figures = (
        Figure("beyond_1_px", "beyond 1 px", percent(beyond[:, 0]), 1, "%", better="lower"),
        Figure("beyond_3_px", "beyond 3 px", percent(beyond[:, 1]), 1, "%", better="lower"),
        Figure("beyond_3_px_worst_quarter", "beyond 3 px, worst quarter", percent(worst), 1, "%", better="lower"),
        Figure("within_1_px", "good matches a pair", mean_or_none(good), 0),
    )
    return FigureGroup("purity", "Purity of the matches", setting, figures, note)


def purity(errors: NDArray[np.float64]) -> tuple[float, float]:
    """Shares of matches beyond 1 and 3 px; both 1 without matches, so that purity cannot be had by giving up."""
    if not len(errors):
        return 1.0, 1.0
    return float((errors > 1).mean()), float((errors > 3).mean())


def percent(values: NDArray[np.float64] | Sequence[float]) -> float | None:
    """Mean in per cent; None of nothing."""
    return 100 * float(np.mean(values)) if len(values) else None


def none_if_nan(value: float) -> float | None:
    """JSON has no NaN."""
    return float(value) if np.isfinite(value) else None
