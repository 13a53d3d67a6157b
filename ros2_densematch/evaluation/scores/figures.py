"""The form in which every score leaves stage 2: figures in groups, one row a pair, curves. Reports know only this."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ros2_densematch.arrays import Float64

Status = Literal["scored", "failed", "missing"]

RESAMPLES = 1000
MISSING_LIMIT = 0.01  # a larger share of missing pairs makes a result incomplete


@dataclass(frozen=True)
class Figure:
    """One number of a result.

    Attributes:
        key: stable name in JSON.
        label: heading of its column.
        value: None where it could not be computed.
        digits: decimals shown.
        unit: "%", "px", "ms", ... or "".
        low, high: 95 % bootstrap interval over the pairs, or None.
        std: standard deviation over repeated runs of the estimator, or None.
        better: "higher", "lower", or "" where neither is better in itself.
    """

    key: str
    label: str
    value: float | None
    digits: int = 1
    unit: str = ""
    low: float | None = None
    high: float | None = None
    std: float | None = None
    better: Literal["higher", "lower", ""] = "higher"


@dataclass(frozen=True)
class FigureGroup:
    """Figures that were measured in one way.

    Attributes:
        key: stable name in JSON.
        title: heading.
        setting: estimator, threshold and image size: what stands beside every figure.
        figures: the numbers.
        note: what a reader must know, or "".
        sweep: figures for every threshold tried, where the threshold was chosen on the test data.
    """

    key: str
    title: str
    setting: str
    figures: tuple[Figure, ...]
    note: str = ""
    sweep: tuple[tuple[float, tuple[Figure, ...]], ...] = ()


@dataclass(frozen=True)
class PairScore:
    """What became of one pair.

    Attributes:
        name, subset: of the pair.
        status: scored; failed (the matcher or the estimator gave nothing: counted with the failure value); missing
            (image or truth not readable, or not matched yet: left out and counted).
        error: the main error, by which pairs are ranked (larger is worse); None for missing.
        reason: why it failed or is missing.
        values: more numbers of the pair.
    """

    name: str
    subset: str
    status: Status
    error: float | None = None
    reason: str = ""
    values: dict[str, float | None] = field(default_factory=dict)


@dataclass(frozen=True)
class Curve:
    """A line to draw: x and y of equal length.

    Attributes:
        key: "cumulative" (error, share of pairs) or "reliability" (score, share right).
        label: of the line.
        x, y: values.
    """

    key: str
    label: str
    x: tuple[float, ...]
    y: tuple[float, ...]


@dataclass(frozen=True)
class EntryScores:
    """All scores of one entry.

    Attributes:
        name: of the entry.
        facts: matcher, preset, weights.
        groups: figures over all pairs.
        subsets: the first group again, for each subset, where there are several.
        pairs: one row a pair.
        curves: lines to draw.
        error_unit: unit of `PairScore.error`.
    """

    name: str
    facts: dict[str, Any]
    groups: tuple[FigureGroup, ...]
    subsets: tuple[tuple[str, tuple[FigureGroup, ...]], ...]
    pairs: tuple[PairScore, ...]
    curves: tuple[Curve, ...]
    error_unit: str

    def count(self, status: Status) -> int:
        """How many pairs have a status."""
        return sum(p.status == status for p in self.pairs)

    @property
    def incomplete(self) -> bool:
        """Whether so many pairs are missing that the figures do not stand for the data set."""
        return self.count("missing") > MISSING_LIMIT * len(self.pairs)


def bootstrap(
    count: int, statistic: Callable[[NDArray[np.intp]], Float64], *, resamples: int = RESAMPLES
) -> tuple[Float64, Float64]:
    """95 % intervals of statistics over pairs: percentiles over resampled sets of pairs, with a fixed seed.

    Efron and Tibshirani, "An introduction to the bootstrap", 1993, chapter 13.

    Args:
        count: number of pairs, at least 1.
        statistic: gives (R, K) numbers from indices (R, count) of pairs, drawn with replacement.
        resamples: sets drawn.

    Returns:
        Lower and upper ends (K,).
    """
    rng = np.random.default_rng(0)
    # in parts: with many pairs all sets at once would take gigabytes
    sizes = [min(100, resamples - k) for k in range(0, resamples, 100)]
    drawn = np.concatenate([statistic(rng.integers(0, count, (size, count))) for size in sizes])
    low, high = np.percentile(drawn, (2.5, 97.5), axis=0)
    return np.asarray(low, np.float64), np.asarray(high, np.float64)


def cumulative(label: str, errors: Sequence[float], limit: float, points: int = 200) -> Curve:
    """The share of pairs below each error up to a limit; pairs that failed are never below it."""
    x = np.linspace(0, limit, points)
    ordered = np.sort(np.asarray(errors, np.float64))
    share = np.searchsorted(ordered, x, side="right") / max(len(ordered), 1)
    return Curve("cumulative", label, tuple(np.round(x, 4).tolist()), tuple(np.round(share, 5).tolist()))


def mean_or_none(values: Sequence[float]) -> float | None:
    """The mean; None of nothing."""
    return float(np.mean(values)) if len(values) else None
