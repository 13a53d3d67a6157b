"""Every Nth frame, or at most so many a second."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

_SLACK = 0.1  # of a period: stamps jitter


class Thinning:
    """Which frames of a sequence are used.

    Args:
        every: one of so many.
        at_most_hz: frames a second at most, by their stamps; None = no limit.
    """

    def __init__(self, every: int = 1, at_most_hz: float | None = None):
        self._every = every
        self._period_ns = 0 if at_most_hz is None else round(1e9 / at_most_hz)
        self.restart()

    @property
    def keeps_all(self) -> bool:
        """Whether no frame is left out."""
        return self._every == 1 and self._period_ns == 0

    def restart(self) -> None:
        """The next frame is the first one."""
        self._seen = 0
        self._due_ns: int | None = None

    def keep(self, stamp_ns: int) -> bool:
        """Whether the next frame is used."""
        self._seen += 1
        if (self._seen - 1) % self._every:
            return False
        if self._period_ns == 0:
            return True
        if self._due_ns is None:
            self._due_ns = stamp_ns
        if stamp_ns < self._due_ns - _SLACK * self._period_ns:
            return False
        # on a grid from the first frame on, so that the mean rate is the wanted one; after a gap the grid restarts
        self._due_ns += self._period_ns
        if self._due_ns <= stamp_ns:
            self._due_ns = stamp_ns + self._period_ns
        return True

    def expected(self, count: int, period_s: float) -> int:
        """About so many of `count` frames, `period_s` apart, are used."""
        kept = math.ceil(count / self._every)
        return kept if self._period_ns == 0 else min(kept, math.ceil(count * period_s * 1e9 / self._period_ns - 1e-6))


def usual_period_s(stamps_ns: Sequence[int]) -> float | None:
    """Median time between neighbouring stamps in seconds; None of fewer than two, or where they do not differ."""
    steps = np.diff(np.asarray(stamps_ns, np.int64))
    period = float(np.median(steps)) * 1e-9 if len(steps) else 0.0
    return period if period > 0 else None
