"""The worker thread: the newest job wins, every dropped one is named, nothing ends it but `stop`."""

from __future__ import annotations

import threading
import time
from concurrent.futures import CancelledError
from typing import Any

import pytest

from ros2_densematch.live.worker import Worker


class Slow:
    """A job takes as long as the test wants."""

    def __init__(self) -> None:
        self.done: list[Any] = []
        self.failures: list[tuple[Any, str]] = []
        self.begun = threading.Semaphore(0)
        self.go = threading.Semaphore(0)
        self.worker: Worker[Any] = Worker(self.process, lambda job, error: self.failures.append((job, str(error))))
        self.worker.start()

    def process(self, job: Any) -> None:
        self.begun.release()
        assert self.go.acquire(timeout=10)
        if job == "bad":
            raise ValueError("no good")
        self.done.append(job)

    def end(self) -> None:
        self.go.release(100)
        assert self.worker.stop(10)


@pytest.fixture
def slow() -> Any:
    made = Slow()
    yield made
    made.end()


def until(condition: Any) -> None:
    end = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.001)


def test_of_the_jobs_that_come_during_one_only_the_newest_runs(slow: Slow) -> None:
    assert slow.worker.submit(0) is None
    assert slow.begun.acquire(timeout=10)
    assert [slow.worker.submit(i) for i in range(1, 6)] == [None, 1, 2, 3, 4]
    slow.go.release(2)
    until(lambda: slow.done == [0, 5])


def test_a_job_that_fails_does_not_end_the_thread(slow: Slow) -> None:
    slow.worker.submit("bad")
    slow.go.release()
    until(lambda: slow.failures == [("bad", "no good")])
    slow.worker.submit("good")
    slow.go.release()
    until(lambda: slow.done == ["good"])


def test_a_call_runs_before_the_waiting_job(slow: Slow) -> None:
    slow.worker.submit(0)
    assert slow.begun.acquire(timeout=10)
    slow.worker.submit(1)
    called = slow.worker.call(lambda: list(slow.done))
    slow.go.release(2)
    assert called.result(10) == [0]
    with pytest.raises(ZeroDivisionError):
        slow.worker.call(lambda: 1 // 0).result(10)


def test_stopped_it_takes_no_jobs_cancels_calls_and_answers_calls_at_once(slow: Slow) -> None:
    slow.worker.submit(0)
    assert slow.begun.acquire(timeout=10)
    waiting = slow.worker.call(lambda: None)
    assert not slow.worker.stop(0.01)  # the job in work has not ended
    with pytest.raises(CancelledError):
        waiting.result(10)
    assert slow.worker.submit(7) == 7
    assert slow.worker.call(lambda: "at once").result(0) == "at once"
