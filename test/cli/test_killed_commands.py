"""A command that is killed at any point leaves the old run, or one that is known to be half done; the next is whole."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from ros2_densematch.files.results_folder import SUMMARY, is_half_done

SCRIPT = Path(__file__).parent / "killed_command.py"
# How often each happens in a replay of the flight: frames, places taken, results of the run before removed.
FRAMES, PLACES, RESULTS = 8, 6, 5


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize(
    "points",
    [
        ["frame:3", "before:0", "after:2", "remove:1"],
        pytest.param(
            [f"frame:{n}" for n in range(FRAMES)]
            + [f"{at}:{n}" for n in range(PLACES) for at in ("before", "after")]
            + [f"remove:{n}" for n in range(RESULTS)],
            marks=[pytest.mark.slow, pytest.mark.exhaustive],
        ),
    ],
    ids=["four", "all"],
)
def test_a_replay_is_the_old_one_or_half_done_and_the_next_is_whole(
    flight: Path, tmp_path: Path, points: list[str]
) -> None:
    environment = {**os.environ, "PYTHONPATH": str(SCRIPT.parents[2]), "OMP_NUM_THREADS": "1"}
    words = [sys.executable, str(SCRIPT), str(tmp_path), *points, "--", "replay", str(flight), "--matcher", "sift"]
    done = subprocess.run(words, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.splitlines() == [f"{point} killed" for point in points], "every point was reached"
    whole = {path.name for path in (tmp_path / "first").iterdir()} | {"notes.txt"}
    for point in points:
        killed, again = tmp_path / f"{point}.killed", tmp_path / point
        # a file that was being written when the process died has a hidden name of its own; the next run removes it
        there = {path.name for path in killed.iterdir() if not re.fullmatch(r"\..+\.[0-9a-f]{8}\.part", path.name)}
        assert is_half_done(killed) or there == whole, point
        if (killed / SUMMARY).is_file():
            named = json.loads((killed / SUMMARY).read_text())["files"]
            assert all((killed / name).exists() for name in named), f"{point}: a summary has its files"
        table = killed / "relative_poses.csv"
        assert not table.exists() or table.read_text().endswith("\n"), point
        assert {path.name for path in again.iterdir()} == whole, point
        assert (again / "notes.txt").read_text() == "mine"
