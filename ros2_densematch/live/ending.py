"""How a node's process is asked to end: by SIGINT or SIGTERM, which only set a mark."""

from __future__ import annotations

import os
import signal
import sys
from types import FrameType, TracebackType
from typing import Any


class Ending:
    """A context in which both signals ask for the end, which the process then brings about in order.

    An exception instead could strike in the middle of the middleware's own work: it would abort, or fail to take a
    message. A second signal changes nothing, a third ends the process at once. Who was asked goes on ending after the
    context: interpreter and libraries free much, without Python's handlers, and a second signal, as launch sends it
    after five seconds, must not strike there; so both are ignored from then on.
    """

    def __init__(self) -> None:
        self._asked = 0
        self._before: dict[signal.Signals, Any] = {}

    @property
    def asked(self) -> bool:
        """Whether a signal came."""
        return self._asked > 0

    def __enter__(self) -> Ending:
        self._before = {number: signal.signal(number, self._ask) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for number, handler in self._before.items():
            signal.signal(number, signal.SIG_IGN if self.asked else handler)

    def _ask(self, number: int, _frame: FrameType | None) -> None:
        self._asked += 1
        if self._asked == 2:
            print(
                "already shutting down and finishing the current work; press once more to end at once", file=sys.stderr
            )
        if self._asked > 2:
            os._exit(128 + number)
