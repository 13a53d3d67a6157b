"""Work that is done beside the tracking and waited for where its result is needed.

What is computed does not depend on when: a frame that needs a result waits for it, so that two runs agree.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from typing import Protocol

from ros2_densematch.geometry.correspondences import Correspondences


class Pending(Protocol):
    """Matches that are being made."""

    def result(self) -> Correspondences:
        """The matches, waited for; raises what making them raised."""
        ...

    def done(self) -> bool:
        """Whether `result` need not wait. Two runs may differ in when that is."""
        ...


class Background:
    """One thread for matches that a later frame needs; it starts with the first of them."""

    @cached_property
    def _executor(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(max_workers=1, thread_name_prefix="densematch-check")

    def matches(self, make: Callable[[], Correspondences]) -> Pending:
        """Begins to make matches."""
        return self._executor.submit(make)
