"""Whether a score is a probability: reliability curve, expected calibration error, Brier score, average precision.

Guo et al., "On calibration of modern neural networks", ICML 2017, section 2, with bins of equal count in place of bins
of equal width (Nguyen and O'Connor, "Posterior calibration and exploratory analysis for NLP models", EMNLP 2015,
section 3): where most scores lie close together, bins of equal width leave nearly all of them in one.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from ros2_densematch.arrays import Float64

BINS = 15


@dataclass(frozen=True)
class ReliabilityBin:
    """One bin of the reliability curve.

    Attributes:
        score: mean score of its members, in [0, 1].
        share_right: share of its members that are right, in [0, 1].
        count: number of its members.
    """

    score: float
    share_right: float
    count: int


@dataclass(frozen=True)
class Calibration:
    """How well scores predict the share of right matches.

    Attributes:
        count: number of judged matches.
        expected_error: expected calibration error in [0, 1]: mean over all matches of the distance between the mean
            score and the share of right ones in their bin.
        brier: mean squared distance between score and outcome (0 or 1), in [0, 1]; smaller is better.
        average_precision: area under precision over recall when matches are ranked by score, in [0, 1]; NaN where no
            match is right.
        curve: the bins, by increasing score.
    """

    count: int
    expected_error: float
    brier: float
    average_precision: float
    curve: tuple[ReliabilityBin, ...]


def calibration(score: ArrayLike, right: ArrayLike, *, bins: int = BINS) -> Calibration:
    """Calibration of scores (N,) in [0, 1] against outcomes (N,), True for a right match.

    Equal scores fall into one bin, so the result does not depend on the order of the matches; there may be fewer bins
    than asked for.

    Raises:
        ValueError: there is no score, lengths differ, a score lies outside [0, 1], or there is no bin.
    """
    p, hit = np.asarray(score, np.float64).ravel(), np.asarray(right, np.bool_).ravel()
    if len(p) == 0 or len(p) != len(hit):
        raise ValueError(f"calibration needs one outcome for each of at least one score, got {len(p)} and {len(hit)}")
    if not ((p >= 0) & (p <= 1)).all():
        raise ValueError(f"scores must lie in [0, 1] to be compared with shares, got {p.min():g} to {p.max():g}")
    if bins < 1:
        raise ValueError(f"calibration needs at least one bin, got {bins}")
    # right matches first within equal scores: the sums in each bin do not depend on the order given
    order = np.lexsort((~hit, p))
    p, hit = p[order], hit[order]
    curve = tuple(
        ReliabilityBin(float(p[a:b].mean()), float(hit[a:b].mean()), int(b - a)) for a, b in _equal_counts(p, bins)
    )
    error = sum(b.count * abs(b.score - b.share_right) for b in curve) / len(p)
    return Calibration(len(p), float(error), float(np.mean((p - hit) ** 2)), average_precision(p, hit), curve)


def _equal_counts(ascending: Float64, bins: int) -> list[tuple[int, int]]:
    """Ranges of ascending scores with about equal counts; a border inside equal scores moves behind them."""
    wanted = np.round(np.arange(1, bins + 1) * len(ascending) / bins).astype(np.intp)
    behind = np.searchsorted(ascending, ascending[np.maximum(wanted, 1) - 1], side="right")
    borders = np.unique(np.concatenate([[0], behind]))
    return list(zip(borders[:-1].tolist(), borders[1:].tolist(), strict=True))


def average_precision(score: ArrayLike, right: ArrayLike) -> float:
    """Area under precision over recall of matches ranked by score (N,), best first; equal scores count as one rank.

    Returns:
        In [0, 1]; NaN where no match is right.
    """
    p, hit = np.asarray(score, np.float64).ravel(), np.asarray(right, np.bool_).ravel()
    if not hit.any():
        return float("nan")
    order = np.argsort(-p, kind="stable")
    p, hit = p[order], hit[order]
    last = np.flatnonzero(np.append(np.diff(p) != 0, True))  # the end of each group of equal scores
    found, taken = np.cumsum(hit)[last], last + 1.0
    gained = np.diff(np.concatenate([[0], found])) / found[-1]
    return float(np.sum(gained * found / taken))
