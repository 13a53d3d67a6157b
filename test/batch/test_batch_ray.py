"""`densematch batch` on Ray: a worker is killed, a recording is damaged, one is too long, and the summary is the
serial one.

Needs Ray: `make test-batch` installs it and runs this folder. About two minutes on two quiet cores.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from ros2_densematch.evaluation.fleet.job import Limits, run_recording
from ros2_densematch.evaluation.fleet.recordings import Recording

pytestmark = [
    pytest.mark.skipif(find_spec("ray") is None, reason="Ray is not installed: make test-batch"),
    pytest.mark.timeout(900),
]
START_S = 150
_TRIAL = """
import ray
ray.init(num_cpus=1, include_dashboard=False, log_to_driver=False, configure_logging=False)
assert ray.get(ray.remote(lambda: 1 + 1).remote()) == 2
"""


@pytest.fixture(scope="module")
def ray_starts() -> None:
    """Some machines refuse what Ray needs (shared memory, local sockets): the test is skipped with Ray's own words."""
    environment = os.environ | {"RAY_USAGE_STATS_ENABLED": "0"}
    try:
        done = subprocess.run(
            [sys.executable, "-c", _TRIAL], capture_output=True, text=True, timeout=START_S, env=environment
        )
    except subprocess.TimeoutExpired:
        pytest.skip(f"Ray is installed, but does not start on this machine within {START_S} s")
    if done.returncode != 0:
        said = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        pytest.skip(f"Ray is installed, but does not start on this machine: {said[-1]}")


@contextmanager
def batch(fleet: Path, out: Path, *words: str) -> Iterator[subprocess.Popen[str]]:
    """`densematch batch` over the fleet; nothing of it is left running."""
    command = [sys.executable, "-m", "ros2_densematch", "batch", str(fleet), "--out", str(out), "--matcher", "sift"]
    process = subprocess.Popen([*command, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


@pytest.fixture(scope="module")
def time_limit(fleet: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Seconds that a whole recording stays far below on this machine, and the endless one does not."""
    begin = time.monotonic()
    outcome = run_recording(
        Recording("bag_00", fleet / "bag_00"), tmp_path_factory.mktemp("one"), ["--matcher", "sift"], Limits()
    )
    assert outcome.done, outcome.reason
    return f"{max(8, 6 * (time.monotonic() - begin)):.0f}"


def kill_a_worker(out: Path, process: subprocess.Popen[str], pause_s: float) -> tuple[str, dict[str, int]]:
    """Kills the worker of a recording that is being replayed; gives that recording and the processes it had."""
    end = time.monotonic() + pause_s
    while time.monotonic() < end:
        assert process.poll() is None, "the batch ended before a worker could be killed"
        for file in (out / "running").glob("bag_*.json"):
            try:
                found = json.loads(file.read_text())
                os.kill(found["worker"], signal.SIGKILL)
            except (OSError, ValueError):  # it ended in this moment
                continue
            return file.stem, found
        time.sleep(0.05)
    raise AssertionError("no recording was begun")


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] not in "ZX"
    except OSError:
        return False


def summary_of(out: Path) -> dict[str, Any]:
    return json.loads((out / "summary.json").read_text())


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_lost_worker_a_damaged_and_an_endless_recording_change_nothing_for_the_rest(
    ray_starts: None, fleet: Path, tmp_path: Path, time_limit: str
) -> None:
    on_ray, serial = tmp_path / "ray", tmp_path / "serial"
    with batch(fleet, on_ray, "--time-limit", time_limit, "--workers", "2") as process:
        killed, processes = kill_a_worker(on_ray, process, START_S)
        _, err = process.communicate(timeout=600)
    assert process.returncode == 2, err
    summary = summary_of(on_ray)
    assert (summary["recordings"], summary["done"], summary["failed"]) == (20, 18, 2)
    reasons = {row["name"]: row["reason"] for row in summary["rows"] if row["status"] == "failed"}
    assert set(reasons) == {"damaged", "endless"}
    assert reasons["endless"] == f"took longer than the limit of {time_limit} s"
    assert reasons["damaged"]
    assert [row["status"] for row in summary["rows"][:2]] == ["failed", "failed"]  # the worst first
    by_name = {row["name"]: row for row in summary["rows"]}
    assert by_name[killed]["status"] == "done"  # begun again on another worker
    assert not alive(processes["worker"])
    assert not alive(processes["replay"]), "the replay of the killed worker went on"

    with batch(fleet, serial, "--time-limit", time_limit, "--serial") as process:
        _, err = process.communicate(timeout=600)
    assert process.returncode == 2, err
    assert (serial / "summary.json").read_bytes() == (on_ray / "summary.json").read_bytes()
