"""The weight rule and the tolerance rule themselves."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from golden_set import GoldenSet
from weight_rule import fill


@pytest.fixture
def small_set(tmp_path) -> GoldenSet:
    folder = tmp_path / "model"
    folder.mkdir()
    np.savez(folder / "run.npz", a=np.array([1.0, 100.0], np.float32), index=np.array([1, 2], np.int32))
    entries = {"a": {"max_abs": 100.0, "gap_f32_f64_max": 1e-5}, "index": {"note": ""}}
    (folder / "run.json").write_text(json.dumps({"seed_prefix": "p.", "arrays": entries}))
    return GoldenSet(tmp_path, "model", "run", {})


def test_the_prefix_changes_the_weights():
    plain, other = fill("conv.weight", (4, 3, 3, 3), "float32"), fill("conv.weight", (4, 3, 3, 3), "float32", "p.")
    assert not torch.equal(plain, other)
    assert torch.equal(other, fill("p.conv.weight", (4, 3, 3, 3), "float32"))


def test_the_rule_tells_tensors_apart():
    assert fill("bn.num_batches_tracked", (), "int64").item() == 0
    assert (fill("bn.running_var", (50,), "float32") >= 0.8).all()
    assert abs(fill("layer.bn3.weight", (500,), "float32").mean() - 0.5) < 0.02
    assert abs(fill("layer.bn2.weight", (500,), "float32").mean() - 1.0) < 0.02
    scaled, plain = fill("x.out_conv.weight", (3, 24, 1, 1), "float32").std(), 1 / np.sqrt(24)
    assert scaled == pytest.approx(0.3 * plain, rel=0.3)


def test_tolerance_grows_with_the_largest_value_and_the_noise_floor(small_set):
    assert small_set.tolerance("a") == pytest.approx(1e-2)
    small_set.compare("a", np.array([1.009, 100.0]))
    with pytest.raises(AssertionError, match="1 of 2 elements"):
        small_set.compare("a", np.array([1.011, 100.0]))


def test_outliers_integers_and_shapes(small_set):
    small_set.compare("a", np.array([2.0, 100.0]), outliers=0.5)
    with pytest.raises(AssertionError, match="shape"):
        small_set.compare("a", np.zeros((1, 2)))
    with pytest.raises(AssertionError, match="not finite"):
        small_set.compare("a", np.array([np.nan, 100.0]))
    with pytest.raises(AssertionError, match="1 of 2 integers"):
        small_set.compare_integers("index", np.array([1, 3]))
    small_set.compare_integers("index", np.array([1, 3]), skip=np.array([False, True]))


class Reporter:
    """Keeps what the summary writes."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def section(self, title: str) -> None:
        self.lines.append(title)

    def write_line(self, line: str, **_: bool) -> None:
        self.lines.append(line)


def end_of_run(monkeypatch, folder: Path, complete: str) -> tuple[int, str]:
    """Exit status and summary of a run in which every test passed and none compared anything."""
    monkeypatch.setenv("DENSEMATCH_GOLDEN", str(folder))
    monkeypatch.setenv("DENSEMATCH_GOLDEN_COMPLETE", complete)
    spec = importlib.util.spec_from_file_location("fresh_conftest", Path(__file__).with_name("conftest.py"))
    conftest = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(conftest)
    session = SimpleNamespace(exitstatus=0, config=SimpleNamespace(option=SimpleNamespace(collectonly=False)))
    reporter = Reporter()
    conftest.pytest_sessionfinish(session)
    conftest.pytest_terminal_summary(reporter)
    return session.exitstatus, "\n".join(reporter.lines)


def test_a_complete_run_fails_without_the_folder_and_with_an_uncompared_array(monkeypatch, tmp_path):
    status, summary = end_of_run(monkeypatch, tmp_path / "nowhere", "1")
    assert status == 1
    assert "there is no golden folder" in summary
    (tmp_path / "images").mkdir()
    (tmp_path / "model").mkdir()
    np.savez(tmp_path / "model" / "run.npz", a=np.zeros(1), b=np.zeros(1))
    status, summary = end_of_run(monkeypatch, tmp_path, "1")
    assert status == 1
    assert "model: 0 of 2 arrays compared" in summary
    assert "NOT COMPARED model/run/b" in summary
    assert end_of_run(monkeypatch, tmp_path / "nowhere", "0") == (0, "")
