"""`densematch doctor`: lists missing components, their effect and remedy, and exits 1 only for required ones."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ros2_densematch.cli import doctor
from ros2_densematch.weights import catalogue


def hide(monkeypatch: pytest.MonkeyPatch, *hidden: str) -> None:
    """Makes modules look as if they were not installed."""
    real = importlib.util.find_spec

    def find_spec(name: str, package: str | None = None) -> Any:
        return None if name in hidden else real(name, package)

    monkeypatch.setattr(doctor.importlib.util, "find_spec", find_spec)


def test_a_complete_installation_exits_0_and_lists_versions(capsys: pytest.CaptureFixture[str]) -> None:
    import numpy as np

    assert doctor.command() == 0
    printed = capsys.readouterr().out
    assert np.__version__ in printed
    assert "all required components are installed" in printed


def test_a_needed_package_that_is_missing_exits_1_with_the_command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    hide(monkeypatch, "poselib")
    monkeypatch.setattr(doctor, "weights", list)  # whether these are intact is not the question here
    assert doctor.command() == 1
    printed = capsys.readouterr().out
    assert "pip install poselib" in printed
    assert "required but missing: poselib" in printed


def test_missing_ros_costs_the_live_node_only(monkeypatch: pytest.MonkeyPatch) -> None:
    hide(monkeypatch, "rclpy", "densematch.msg")
    rows = doctor.ros()
    assert [r.state for r in rows] == ["optional", "optional"]
    assert all("bags work without" in r.cost and r.remedy for r in rows)


def test_a_cpu_build_of_torch_is_named_as_such(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.setattr(torch.version, "cuda", None)
    (row,) = doctor.gpu()
    assert row.state == "optional"
    assert "CPU build" in row.found


def test_a_gpu_that_cannot_compute_is_not_called_usable(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("CUDA error: no kernel image is available")

    monkeypatch.setattr(torch.version, "cuda", "12.6")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch, "zeros", fail)
    (row,) = doctor.gpu()
    assert row.state == "optional"
    assert "no kernel image" in row.found


def test_damaged_or_missing_weights_are_needed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import hashlib

    file = tmp_path / "gcm.safetensors"
    entry = SimpleNamespace(matcher="gcm", sha256=hashlib.sha256(b"weights").hexdigest(), licence="Apache-2.0", size=7)

    def path_of(name: str) -> Path:
        if not file.is_file():
            raise FileNotFoundError(f"{file.name} is missing")
        return file

    monkeypatch.setattr(catalogue, "SHIPPED", {"gcm": entry})
    monkeypatch.setattr(catalogue, "path_of", path_of)
    for content, state, found in ((b"weights", "ok", "verified"), (b"weightz", "MISSING", "expected")):
        file.write_bytes(content)
        (row,) = doctor.weights()
        assert row.state == state
        assert found in row.found
    file.unlink()
    (row,) = doctor.weights()
    assert row.state == "MISSING"
    assert "is missing" in row.found
    assert row.remedy
