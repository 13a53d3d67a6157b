"""One thread, one waiting place: the newest job wins."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, Generic, TypeVar

Job = TypeVar("Job")
Answer = TypeVar("Answer")


class Worker(Generic[Job]):
    """Runs `process` on jobs in a thread of its own.

    While one job is in work at most one other waits; a newer one takes its place. So memory stays flat and a result is
    never older than one job's time, however fast jobs come.

    Args:
        process: called in the thread with each job; an exception goes to `failed`.
        failed: called in the thread with (job, exception).
    """

    def __init__(self, process: Callable[[Job], None], failed: Callable[[Job, Exception], None]) -> None:
        self._process, self._failed = process, failed
        self._changed = threading.Condition()
        self._waiting: Job | None = None
        self._calls: deque[tuple[Callable[[], Any], Future[Any]]] = deque()
        self._running = False
        self._thread: threading.Thread | None = None

    @property
    def running(self) -> bool:
        """Whether the thread takes jobs."""
        return self._running

    def start(self) -> None:
        """Starts the thread; nothing happens when it runs already."""
        if self._thread is not None:
            return
        self._running = True
        self._thread = threading.Thread(target=self._run, name="matcher", daemon=True)
        self._thread.start()

    def stop(self, timeout_s: float | None = None) -> bool:
        """Ends the thread after the job in work; the waiting job is dropped, outstanding calls are cancelled.

        Returns:
            False when the job in work did not end in time.
        """
        with self._changed:
            self._running, self._waiting = False, None
            calls = list(self._calls)
            self._calls.clear()
            self._changed.notify_all()
        for _, future in calls:
            future.cancel()
        thread, self._thread = self._thread, None
        if thread is None:
            return True
        thread.join(timeout_s)
        return not thread.is_alive()

    def submit(self, job: Job) -> Job | None:
        """Leaves a job; returns the one that had waited and is now dropped, or this one when the thread is stopped."""
        with self._changed:
            if not self._running:
                return job
            replaced, self._waiting = self._waiting, job
            self._changed.notify_all()
        return replaced

    def call(self, function: Callable[[], Answer]) -> Future[Answer]:
        """Runs a function between two jobs, before the one that waits; at once where the thread is stopped."""
        future: Future[Answer] = Future()
        with self._changed:
            if self._running:
                self._calls.append((function, future))
                self._changed.notify_all()
                return future
        _finish(function, future)
        return future

    def _run(self) -> None:
        while True:
            with self._changed:
                while self._running and self._waiting is None and not self._calls:
                    self._changed.wait()
                if not self._running:
                    return
                call = self._calls.popleft() if self._calls else None
                job = None
                if call is None:
                    job, self._waiting = self._waiting, None
            if call is not None:
                _finish(*call)
            elif job is not None:
                try:
                    self._process(job)
                except Exception as error:  # noqa: BLE001 - one frame must not end the node; it is counted and named
                    self._failed(job, error)


def _finish(function: Callable[[], Answer], future: Future[Answer]) -> None:
    if not future.set_running_or_notify_cancel():
        return
    try:
        future.set_result(function())
    except Exception as error:  # noqa: BLE001 - the caller gets it
        future.set_exception(error)
