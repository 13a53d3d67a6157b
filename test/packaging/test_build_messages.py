"""`make messages`, also as part of `make test`: one line for what is missing, one distribution of our name."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

import ros2_densematch


def build(repository: Path, venv: Path, *options: str, path: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["/bin/sh", repository / "scripts/build_messages.sh", *options, venv],
        capture_output=True,
        text=True,
        env=os.environ | ({"PATH": path} if path else {}),
    )


@pytest.fixture
def machine(tmp_path: Path) -> Path:
    """A folder for PATH with the tools of a bare x86-64 machine: no cmake, no compiler."""
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "uname").write_text('#!/bin/sh\n[ "$1" = -m ] && echo x86_64 || echo Linux\n')
    (folder / "uname").chmod(0o755)
    (folder / "dirname").symlink_to("/usr/bin/dirname")
    return folder


def test_a_machine_without_cmake_gets_one_line(repository: Path, machine: Path, tmp_path: Path) -> None:
    done = build(repository, tmp_path / "venv", path=str(machine))
    assert done.returncode == 2
    assert done.stderr.startswith("cmake was not found: install it")
    assert done.stderr.count("\n") == 1


def test_before_the_tests_the_same_is_no_error(repository: Path, machine: Path, tmp_path: Path) -> None:
    done = build(repository, tmp_path / "venv", "--optional", path=str(machine))
    assert done.returncode == 0
    assert "cmake was not found" in done.stderr
    assert "the tests that need them are skipped" in done.stderr
    assert done.stderr.count("\n") == 1


def test_other_processors_are_sent_to_a_distribution(repository: Path, machine: Path, tmp_path: Path) -> None:
    (machine / "uname").write_text('#!/bin/sh\n[ "$1" = -m ] && echo aarch64 || echo Linux\n')
    done = build(repository, tmp_path / "venv", "--optional", path=str(machine))
    assert done.returncode == 0
    assert "no rclpy wheels for Linux aarch64" in done.stderr


def test_the_messages_leave_our_distribution_alone() -> None:
    """rosidl's metadata of the generated package would make pip remove one for the other."""
    if importlib.util.find_spec("densematch") is None or importlib.util.find_spec("densematch.msg") is None:
        pytest.skip("densematch.msg is not built (make messages)")
    folders = [Path(entry) for entry in sys.path if entry.startswith(sys.prefix)]
    assert not [path for folder in folders for path in folder.glob("densematch-*.egg-info")]
    assert importlib.metadata.version("densematch") == ros2_densematch.__version__
