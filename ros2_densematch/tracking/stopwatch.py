"""Time of the stages of a frame: what was worked for it, whether it was used in the end or not."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager


class Stopwatch:
    """Milliseconds by stage of one frame: encode, match, and pose for everything else."""

    def __init__(self) -> None:
        self._begin = time.perf_counter()
        self._spent = {"encode": 0.0, "match": 0.0}

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Counts what is done inside for one stage."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self._spent[name] += 1000.0 * (time.perf_counter() - start)

    def milliseconds(self) -> dict[str, float]:
        """By stage, from the making of the stopwatch until now."""
        total = 1000.0 * (time.perf_counter() - self._begin)
        return {**self._spent, "pose": total - sum(self._spent.values())}
