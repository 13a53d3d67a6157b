"""`densematch bench` and `densematch weights`."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from ros2_densematch.weights import catalogue
from ros2_densematch.weights.catalogue import Weight


def test_bench_times_every_stage_beside_sift(densematch, tmp_path: Path) -> None:
    words = ("--matcher", "sift", "--width", 320, "--height", 240, "--repeat", 1, "--out", tmp_path)
    outcome = densematch("bench", *words)
    assert outcome.code == 0, outcome.err
    assert "sift (base, cpu)" in outcome.out
    result = json.loads((tmp_path / "bench.json").read_text("utf-8"))
    times = result["runs"][0]["timings_ms"]
    parts = sum(times[stage]["median"] for stage in ("encode", "match", "pose"))
    assert times["total"]["median"] == pytest.approx(parts, abs=0.01)
    assert result["runs"][0]["inliers"] > 20
    assert result["total_ratio_to_baseline"] == 1.0


def test_bench_wants_two_images_or_none(densematch) -> None:
    outcome = densematch("bench", "a.png")
    assert outcome.code == 2
    assert "name two images" in outcome.err


@pytest.fixture
def shipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A catalogue with one weights file of ours."""
    content = b"weights"
    entry = Weight("mine", "mine.safetensors", "gcm", hashlib.sha256(content).hexdigest(), len(content), "CC0-1.0", ())
    monkeypatch.setattr(catalogue, "SHIPPED", {"mine": entry})
    monkeypatch.setattr(catalogue, "_FOLDER", tmp_path)
    (tmp_path / entry.file).write_bytes(content)
    return tmp_path / entry.file


def test_weights_that_are_whole_are_intact(densematch, shipped: Path) -> None:
    outcome = densematch("weights", "verify")
    assert (outcome.code, outcome.out) == (0, "mine: intact (7 bytes)\n")
    listed = densematch("weights", "list").out
    for words in ("mine", "gcm", "CC0-1.0", "yes", hashlib.sha256(b"weights").hexdigest()):
        assert words in listed


def test_weights_that_were_changed_or_are_missing_are_named(densematch, shipped: Path) -> None:
    shipped.write_bytes(b"weightz")
    outcome = densematch("weights", "verify")
    assert outcome.code == 2
    assert "mine" in outcome.err
    assert "SHA-256" in outcome.err
    shipped.unlink()
    outcome = densematch("weights", "verify")
    assert outcome.code == 2
    assert "mine.safetensors is missing" in outcome.err
    assert "MISSING" in densematch("weights", "list").out
