"""A signal asks for the end and does not break off what is being done."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest

from ros2_densematch.live.ending import Ending


@pytest.fixture(autouse=True)
def handlers_as_before() -> Iterator[None]:
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = [signal.getsignal(number) for number in numbers]
    yield
    for number, handler in zip(numbers, before, strict=True):
        signal.signal(number, handler)


def test_nobody_asked_and_the_handlers_are_as_before() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with Ending() as ending:
        assert signal.getsignal(signal.SIGTERM) != before
    assert not ending.asked
    assert signal.getsignal(signal.SIGTERM) == before


def test_a_signal_is_a_mark_a_second_one_too_and_later_ones_are_ignored(capsys: pytest.CaptureFixture[str]) -> None:
    with Ending() as ending:
        os.kill(os.getpid(), signal.SIGTERM)
        assert ending.asked
        assert capsys.readouterr().err == ""
        os.kill(os.getpid(), signal.SIGINT)
        assert "already shutting down" in capsys.readouterr().err
    for number in (signal.SIGINT, signal.SIGTERM):
        assert signal.getsignal(number) is signal.SIG_IGN
        os.kill(os.getpid(), number)  # strikes nobody
