"""Threads, how they wait, and the priority of the process."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from ros2_densematch import processor

SHOWN = """
import json, os, sys
from ros2_densematch.cli.main import main
main({arguments!r})
import cv2, torch
print(json.dumps([torch.get_num_threads(), cv2.getNumThreads(), os.environ["OMP_WAIT_POLICY"], os.nice(0)]))
"""


def after(arguments: list[str], **environment: str) -> list[object]:
    """Threads of torch and OpenCV, waiting policy and nice level of a process that ran the command."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("OMP_", "MKL_", "OPENBLAS_", "GOMP_"))}
    code = SHOWN.format(arguments=arguments)
    done = subprocess.run(
        [sys.executable, "-c", code], env=clean | environment, capture_output=True, text=True, check=True
    )
    found: list[object] = json.loads(done.stdout.splitlines()[-1])
    return found


def test_the_command_takes_threads_and_a_nice_level_before_the_subcommand() -> None:
    level = os.nice(0)
    assert after(["--threads", "1", "--nice=3", "version"]) == [1, 1, "PASSIVE", level + 3]


def test_idle_threads_sleep_unless_the_user_says_otherwise() -> None:
    assert after(["version"])[2] == "PASSIVE"
    assert after(["version"], OMP_WAIT_POLICY="ACTIVE")[2] == "ACTIVE"


@pytest.mark.parametrize("arguments", [["--threads", "0"], ["--threads=two"], ["--nice", "20"]])
def test_a_wrong_number_is_one_error(arguments: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "ros2_densematch", *arguments, "version"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert arguments[0].partition("=")[0] in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_limits_reach_libraries_that_are_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    import cv2
    import torch

    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OPENCV_FOR_THREADS_NUM"):
        monkeypatch.setenv(name, "1")
    before = torch.get_num_threads(), cv2.getNumThreads()
    try:
        processor.limit_threads(2)
        assert (torch.get_num_threads(), cv2.getNumThreads()) == (2, 2)
    finally:
        torch.set_num_threads(before[0])
        cv2.setNumThreads(before[1])
    with pytest.raises(ValueError, match="at least 1"):
        processor.limit_threads(0)
    with pytest.raises(ValueError, match="between 0 and 19"):
        processor.lower_priority(-1)


def test_a_library_user_is_warned_of_threads_that_spin(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    monkeypatch.delenv("GOMP_SPINCOUNT", raising=False)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    with pytest.warns(RuntimeWarning, match="OMP_WAIT_POLICY=PASSIVE"):
        processor.warn_of_spinning()
    monkeypatch.setenv("OMP_WAIT_POLICY", "passive")
    processor.warn_of_spinning()
