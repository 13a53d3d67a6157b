"""A progress bar on stderr with frames per second; one plain line every few seconds where stderr is not a terminal."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text

PLAIN_INTERVAL_S = 10.0


class _Rate(ProgressColumn):
    """Frames per second of the last stretch, the mean once the job is done."""

    def __init__(self, unit: str):
        self._unit = unit
        super().__init__()

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text("" if speed is None else f"{speed:.1f} {self._unit}/s", style="progress.data.speed")


def _spoken(seconds: float) -> str:
    """m:ss, or h:mm:ss."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


class Counter:
    """Counts finished items; `note` shows beside the bar."""

    def __init__(self, progress: Progress | None, total: int | None, label: str, unit: str):
        self.done = self._before = 0
        self._progress, self._total, self._label, self._unit = progress, total, label, unit
        self._task = None if progress is None else progress.add_task(label, total=total, note="")
        self._start = self._last_line = time.monotonic()

    def start_at(self, done: int) -> None:
        """So many items were finished by an earlier run: they count as done, but not for the rate."""
        self.done = self._before = done
        self._start = self._last_line = time.monotonic()
        if self._progress is not None and self._task is not None:
            self._progress.reset(self._task, completed=done)

    def advance(self, note: str = "") -> None:
        """One item is finished."""
        self.done += 1
        if self._progress is not None and self._task is not None:
            self._progress.update(self._task, advance=1, note=note)
        elif time.monotonic() - self._last_line > PLAIN_INTERVAL_S:
            self._last_line = time.monotonic()
            rate = (self.done - self._before) / (self._last_line - self._start)
            of_total, left = "", ""
            if self._total is not None:
                of_total = f" of {self._total}"
                left = f", {_spoken(max(self._total - self.done, 0) / rate)} left" if rate > 0 else ""
            line = f"{self._label}: {self.done}{of_total} {self._unit}s, {rate:.1f} {self._unit}s/s{left} {note}"
            print(line, file=sys.stderr)


@contextmanager
def progress_counter(label: str, total: int | None, unit: str = "frame") -> Iterator[Counter]:
    """A `Counter` whose bar is drawn while the context lasts.

    Args:
        label: what is going on.
        total: number of items, or None when it is not known.
        unit: name of one item.
    """
    console = Console(stderr=True)
    if not console.is_terminal:
        yield Counter(None, total, label, unit)
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=30),
        MofNCompleteColumn(),
        _Rate(unit + "s"),
        TimeRemainingColumn(),
        TextColumn("[dim]{task.fields[note]}"),
    )
    with Progress(*columns, console=console, transient=False) as progress:
        yield Counter(progress, total, label, unit)
