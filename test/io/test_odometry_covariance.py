"""The covariance of metric odometry is about as large as its errors, on rendered flights."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.slow
@pytest.mark.exhaustive  # the model has tests of its own beside it
def test_errors_of_rendered_flights_are_as_large_as_their_covariance_says(repository: Path, tmp_path: Path) -> None:
    """Eight flights: the twist over 800 frames is held to the limits of docs/ros.md, the few poses to wider ones."""
    command = [sys.executable, repository / "benchmarks/odometry_covariance.py", "--out", tmp_path, "--flights", "8"]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("| ")]
    found = {row[0]: [float(cell) for cell in row[1:]] for row in rows if row[0] not in ("what", "---")}
    assert set(found) == {"twist", "pose after 5", "pose after 20", "pose after 100"}
    windows, mean, _, percentile, limit = found["twist"]
    assert windows > 500
    assert 0.4 < mean < 2.0
    assert percentile < 2 * limit
    for name in ("pose after 5", "pose after 20", "pose after 100"):
        assert 0.2 < found[name][1] < 2.5, name
