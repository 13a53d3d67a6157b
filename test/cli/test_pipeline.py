"""Reading ahead and writing behind: order, errors in their place, nothing left running; and what replay makes of it."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ros2_densematch.cli import replay
from ros2_densematch.cli.pipeline import ReadAhead, WriteBehind
from ros2_densematch.io.sources.opening import open_source
from ros2_densematch.io.sources.options import SourceOptions
from ros2_densematch.io.sources.thinning import Thinning

Run = Callable[..., Any]


def test_items_come_in_order_and_at_most_so_many_are_read_ahead() -> None:
    read: list[int] = []

    def items() -> Iterator[int]:
        for i in range(50):
            read.append(i)
            yield i

    with ReadAhead(items(), depth=3) as given:
        assert next(given) == 0
        time.sleep(0.1)
        assert len(read) <= 1 + 3 + 1  # given, waiting, and one in the thread's hand
        assert list(given) == list(range(1, 50))


def test_an_error_of_reading_comes_after_the_items_before_it() -> None:
    def items() -> Iterator[int]:
        yield from range(3)
        raise ValueError("damaged")

    got = []

    def read() -> None:
        with ReadAhead(items()) as given:
            for item in given:
                got.append(item)

    with pytest.raises(ValueError, match="damaged"):
        read()
    assert got == [0, 1, 2]


def test_reading_that_is_not_wanted_any_more_ends_and_closes_its_source() -> None:
    closed = threading.Event()

    def items() -> Iterator[int]:
        try:
            i = 0
            while True:
                yield i
                i += 1
        finally:
            closed.set()

    with ReadAhead(items()) as given:
        assert next(given) == 0
    assert closed.is_set()
    assert not [t for t in threading.enumerate() if t.name == "read ahead"]


def test_everything_is_written_in_order_before_the_context_ends() -> None:
    written: list[int] = []

    def write(item: int) -> None:
        time.sleep(0.001)
        written.append(item)

    with WriteBehind(write, depth=2) as behind:
        for i in range(30):
            behind.put(i)
    assert written == list(range(30))


def test_after_an_error_of_writing_nothing_more_is_written_and_it_is_raised() -> None:
    written: list[int] = []

    def write(item: int) -> None:
        if item == 3:
            raise OSError("disk full")
        written.append(item)

    def loop() -> None:
        with WriteBehind(write, depth=2) as behind:
            for i in range(30):
                behind.put(i)

    with pytest.raises(OSError, match="disk full"):
        loop()
    assert written == [0, 1, 2]


def test_what_was_read_before_a_fault_is_written_all_the_same() -> None:
    written: list[int] = []

    def loop() -> None:
        with WriteBehind(written.append) as behind:
            for i in range(5):
                behind.put(i)
            raise ValueError("damaged")

    with pytest.raises(ValueError, match="damaged"):
        loop()
    assert written == list(range(5))


# ---- replay


class Beside:
    """The same without threads: what replay was before."""

    def __init__(self, what: Any):
        self._what = what

    def __enter__(self) -> Any:
        return self if callable(self._what) else iter(self._what)

    def __exit__(self, *_: object) -> None:
        return None

    def put(self, item: Any) -> None:
        self._what(item)


def results(out: Path) -> tuple[Any, ...]:
    summary = json.loads((out / "summary.json").read_text())
    for key in ("timings_ms", "elapsed_s", "frames_per_second"):
        del summary[key]
    return summary, (out / "relative_poses.csv").read_text(), (out / "trajectory.tum").read_text()


def test_a_replay_gives_the_same_as_without_the_queues(
    densematch: Run, flight: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ("replay", flight, "--matcher", "sift", "--max-frames", 6, "--out")
    assert densematch(*words, tmp_path / "a").code == 0
    monkeypatch.setattr(replay, "ReadAhead", Beside)
    monkeypatch.setattr(replay, "WriteBehind", Beside)
    assert densematch(*words, tmp_path / "b").code == 0
    assert results(tmp_path / "a") == results(tmp_path / "b")


def test_a_disk_that_fills_up_ends_it_with_what_was_written(
    densematch: Run, flight: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ros2_densematch.cli.result_files import ResultFiles

    write = ResultFiles.write
    calls: list[int] = []

    def full(self: ResultFiles, *args: Any, **more: Any) -> None:
        calls.append(1)
        if len(calls) == 4:
            raise OSError(28, "No space left on device", "bag")
        write(self, *args, **more)

    monkeypatch.setattr(ResultFiles, "write", full)
    done = densematch("replay", flight, "--matcher", "sift", "--out", tmp_path)
    assert done.code == 2
    assert "No space left" in done.err
    assert json.loads((tmp_path / "summary.json").read_text())["frames"]["total"] == 3


def test_every_second_frame_keeps_its_number_in_the_recording(densematch: Run, flight: Path, tmp_path: Path) -> None:
    assert densematch("replay", flight, "--matcher", "sift", "--every", 3, "--out", tmp_path).code == 0
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["frames"]["total"] == 3
    assert summary["input"]["dropped_frames"] == 0
    assert "5 skipped by --every or --rate" in summary["inputs"][0]["unused"]
    rows = (tmp_path / "relative_poses.csv").read_text().splitlines()
    column = rows[0].split(",").index("index")
    assert [row.split(",")[column] for row in rows[1:]] == ["0", "3", "6"]


def test_at_most_so_many_frames_a_second() -> None:
    thinning = Thinning(at_most_hz=10)
    stamps = [round(i * 1e9 / 30) for i in range(90)]  # 30 frames a second
    assert sum(thinning.keep(s) for s in stamps) == 30
    assert Thinning(at_most_hz=10).expected(90, 1 / 30) == 30
    slow = Thinning(at_most_hz=10)
    assert all(slow.keep(i * 10**9) for i in range(5))  # slower than the limit: all


@pytest.mark.parametrize(
    ("options", "count"),
    [
        ({}, 8),
        ({"start_s": 0.2}, 6),
        ({"start_s": 0.2, "stop_s": 0.5}, 3),
        ({"every": 3}, 3),
        ({"at_most_hz": 5.0, "start_s": 0.2}, 3),
    ],
)
def test_how_many_frames_are_to_come_is_known_for_parts_too(flight: Path, options: dict[str, Any], count: int) -> None:
    source = open_source(flight, SourceOptions(**options))
    assert source.expected == count
    assert len(list(source)) == count


def test_wrong_rates_are_refused(densematch: Run, flight: Path, tmp_path: Path) -> None:
    done = densematch("replay", flight, "--rate", 0, "--out", tmp_path)
    assert done.code == 2
    assert "--rate must be above 0" in done.err
