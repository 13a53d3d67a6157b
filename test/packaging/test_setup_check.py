"""`make` names what is missing on the machine, and the package that brings it."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest


def check(repository: Path, python: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["sh", repository / "scripts/check_python.sh", python], capture_output=True, text=True)


def fake_python(folder: Path, version: str, *, venv: bool) -> str:
    """An interpreter that answers the two questions of the script."""
    path = folder / "python"
    path.write_text(f'#!/bin/sh\ncase "$2" in *version_info*) echo {version} ;; *) exit {0 if venv else 1} ;; esac\n')
    path.chmod(0o755)
    return str(path)


def test_this_interpreter_will_do(repository: Path) -> None:
    done = check(repository, sys.executable)
    assert done.returncode == 0
    assert not done.stderr


def test_no_python_at_all(repository: Path) -> None:
    done = check(repository, "no-such-python")
    assert done.returncode == 1
    assert "apt install python3 python3-venv" in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("version", ["3.9", "3.14", "2.7"])
def test_a_python_too_old_or_too_new(repository: Path, tmp_path: Path, version: str) -> None:
    done = check(repository, fake_python(tmp_path, version, venv=True))
    assert done.returncode == 1
    assert f"is Python {version}" in done.stderr
    assert "make PYTHON=" in done.stderr


def test_no_venv_module(repository: Path, tmp_path: Path) -> None:
    done = check(repository, fake_python(tmp_path, "3.12", venv=False))
    assert done.returncode == 1
    assert "apt install python3.12-venv" in done.stderr


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
@pytest.mark.parametrize("target", ["demo", "test"])
def test_everything_is_installed_by_one_pip_call_with_the_constraints(
    repository: Path, tmp_path: Path, target: str
) -> None:
    plan = subprocess.run(
        ["make", "--dry-run", target, f"VENV={tmp_path / 'new'}"],
        cwd=repository,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    installs = [line for line in plan.splitlines() if "pip install" in line]
    assert len(installs) == 1
    assert '-c "constraints.txt"' in installs[0]
