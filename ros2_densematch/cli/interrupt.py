"""Ctrl-C ends a long job after the item at hand, so that what was done is written; a second Ctrl-C ends it at once."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from ros2_densematch.cli.options import say


class StopRequest:
    """Whether somebody asked the job to end, and in which words a report may say so."""

    def __init__(self) -> None:
        self.reason: str | None = None

    def __bool__(self) -> bool:
        return self.reason is not None


@contextmanager
def stop_request() -> Iterator[StopRequest]:
    """A `StopRequest` that SIGINT (Ctrl-C) and SIGTERM set while the context lasts; the old handlers come back after.

    Outside the main thread Python delivers no signals; the request then stays unset.
    """
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return

    def handle(number: int, _frame: FrameType | None) -> None:
        if request.reason is not None:
            raise KeyboardInterrupt
        request.reason = "interrupted by Ctrl-C" if number == signal.SIGINT else "terminated"
        say("stopping after this item and writing the results so far (press Ctrl-C again to discard them)")

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
