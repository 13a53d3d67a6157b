"""Runs a command in children that kill themselves, for test_killed_commands.py: killed_command.py OUT POINT... -- WORDS

A POINT is `frame:N` (before the results of frame N are written), `before:N` or `after:N` (the N-th time that a file or
folder takes its place) or `remove:N` (before the N-th result of an earlier run is removed). The folder OUT/POINT holds
a finished run at first; WORDS with --out OUT/POINT are then run, killed at the point, and what is there is copied to
OUT/POINT.killed; then they are run again, to their end. A line `POINT killed` or `POINT finished` says how it went.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
from pathlib import Path
from typing import Any

import cv2

from ros2_densematch.cli.main import main as densematch
from ros2_densematch.cli.result_files import ResultFiles
from ros2_densematch.files import results_folder


def die_at(number: int, before: Any, after: bool = False) -> Any:
    """The function, which kills this process at its so many-th call."""
    calls = iter(range(1_000_000))

    def dying(*arguments: Any, **named: Any) -> Any:
        here = next(calls) == number
        if here and not after:
            os.kill(os.getpid(), signal.SIGKILL)
        result = before(*arguments, **named)
        if here:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    return dying


def arm(point: str) -> None:
    kind, _, number = point.partition(":")
    if kind == "frame":
        ResultFiles.write = die_at(int(number), ResultFiles.write)  # type: ignore[method-assign]
    elif kind == "remove":
        results_folder.remove = die_at(int(number), results_folder.remove)
    else:
        os.replace = die_at(int(number), os.replace, kind == "after")


def run(words: list[str], log: Path, point: str = "") -> bool:
    """Runs the command in a child; whether it ended by itself."""
    child = os.fork()
    if child == 0:
        stream = os.open(log, os.O_CREAT | os.O_WRONLY | os.O_APPEND)
        os.dup2(stream, 1)
        os.dup2(stream, 2)
        if point:
            arm(point)
        os._exit(densematch(words))
    status = os.waitpid(child, 0)[1]
    if os.WIFSIGNALED(status):
        return False
    assert os.WEXITSTATUS(status) == 0, log.read_text()[-2000:]
    return True


def main() -> None:
    cut = sys.argv.index("--")
    out, points, words = Path(sys.argv[1]), sys.argv[2:cut], sys.argv[cut + 1 :]
    cv2.setNumThreads(1)  # a fork does not take threads along
    first = out / "first"
    assert run([*words, "--out", str(first)], out / "log")
    for point in points:
        folder = out / point
        shutil.copytree(first, folder)
        (folder / "notes.txt").write_text("mine")
        ended = run([*words, "--out", str(folder)], out / "log", point)
        print(point, "finished" if ended else "killed", flush=True)
        shutil.copytree(folder, out / f"{point}.killed")
        assert run([*words, "--out", str(folder)], out / "log")


if __name__ == "__main__":
    main()
