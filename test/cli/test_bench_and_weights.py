"""`densematch bench` and `densematch weights`."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from pathlib import Path

import pytest
import torch

from ros2_densematch.evaluation.timing import busy
from ros2_densematch.weights import catalogue
from ros2_densematch.weights.catalogue import Weight
from ros2_densematch.weights.key_tables import key_table
from ros2_densematch.weights.official import OFFICIAL


def test_bench_is_a_table_of_stages_with_spread_memory_processor_and_threads(densematch, tmp_path: Path) -> None:
    words = ("--matcher", "sift", "--size", "240x180", "--repeat", 2, "--against", "orb,klt", "--out", tmp_path)
    outcome = densematch("bench", *words)
    assert outcome.code == 0, outcome.err
    result = json.loads((tmp_path / "bench.json").read_text("utf-8"))
    assert [(row["matcher"]["name"], row["mode"], row["size"]) for row in result["runs"]] == [
        ("sift", "full", [240, 180]),
        ("orb", "full", [240, 180]),
        ("klt", "full", [240, 180]),
    ]
    first = result["runs"][0]
    times = first["timings_ms"]
    assert set(times) == {"keyframe", "encode", "match", "pose", "total"}
    assert all(t["lower_quartile"] <= t["median"] <= t["upper_quartile"] for t in times.values())
    assert first["inliers"] > 20
    assert first["frames"] == 2
    assert first["frames_per_second"] == pytest.approx(1000 / times["total"]["median"], rel=0.01)
    assert result["machine"]["processor"]
    assert result["machine"]["opencv_threads"] >= 1
    assert (tmp_path / "bench.md").read_text() == outcome.out
    assert "klt: at most 4096 corners, window 21 x 21" in outcome.out


def test_bench_times_guided_matches_beside_full_ones(densematch, tmp_path: Path) -> None:
    words = ("--size", "160x120", "--repeat", 1, "--against", "none", "--out", tmp_path)
    outcome = densematch("bench", *words)
    assert outcome.code == 0, outcome.err
    rows = json.loads((tmp_path / "bench.json").read_text("utf-8"))["runs"]
    assert [row["mode"] for row in rows] == ["full", "guided"]
    assert rows[1]["timings_ms"]["keyframe"]["median"] is None  # it is the full one's
    assert rows[1]["timings_ms"]["total"]["median"] > 0


def test_busy_processes_end_with_the_bench() -> None:
    with busy(2):
        pass
    assert not [p for p in children() if "while True" in p]


def children() -> list[str]:
    """Command lines of the processes of which this one is the parent (Linux; elsewhere none)."""
    found = []
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            if int(status.read_text().rpartition(") ")[2].split()[1]) == os.getpid():
                found.append((status.parent / "cmdline").read_text().replace("\0", " "))
        except (OSError, ValueError):
            continue
    return found


@pytest.mark.parametrize(
    ("words", "said"), [(("--size", "10x10"), "--size '10x10'"), (("--against", "surf"), "--against 'surf'")]
)
def test_bench_names_a_wrong_option(densematch, words: tuple[str, ...], said: str) -> None:
    outcome = densematch("bench", *words)
    assert outcome.code == 2
    assert said in outcome.err


def test_bench_wants_two_images_or_none(densematch) -> None:
    outcome = densematch("bench", "a.png")
    assert outcome.code == 2
    assert "give two images" in outcome.err


@pytest.fixture
def shipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A catalogue with one weights file of ours."""
    content = b"weights"
    entry = Weight("mine", "mine.safetensors", "gcm", hashlib.sha256(content).hexdigest(), len(content), "CC0-1.0", ())
    monkeypatch.setattr(catalogue, "SHIPPED", {"mine": entry})
    monkeypatch.setattr(catalogue, "_FOLDER", tmp_path)
    monkeypatch.setenv("DENSEMATCH_WEIGHTS", str(tmp_path / "store"))
    (tmp_path / entry.file).write_bytes(content)
    return tmp_path / entry.file


def test_weights_that_are_whole_are_intact(densematch, shipped: Path) -> None:
    outcome = densematch("weights", "verify")
    assert (outcome.code, outcome.out) == (0, "mine: intact (7 bytes)\n")
    listed = densematch("weights", "list").out
    for words in ("mine", "gcm", "CC0-1.0", "shipped", hashlib.sha256(b"weights").hexdigest()):
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


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty store for official checkpoints."""
    monkeypatch.setenv("DENSEMATCH_WEIGHTS", str(tmp_path / "store"))
    monkeypatch.delenv("DENSEMATCH_WEIGHTS_MIRROR", raising=False)
    return tmp_path / "store"


@pytest.fixture
def student(tmp_path: Path) -> Path:
    """A folder with a file of the published form of GCM's descriptor."""
    state = {
        key: torch.zeros(expected.shape, dtype=torch.float32 if expected.floating else torch.int64)
        for key, expected in key_table("dstl_r2d2").items()
    }
    folder = tmp_path / "mirror"
    folder.mkdir()
    torch.save({"net": "Student()", "state_dict": state}, folder / "dstl_r2d2.pt")
    return folder / "dstl_r2d2.pt"


@pytest.fixture
def unpinned(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(OFFICIAL, "gcm_student", dataclasses.replace(OFFICIAL["gcm_student"], sha256="", size=0))


def test_every_official_checkpoint_is_listed_with_its_licence(densematch, store: Path) -> None:
    listed = densematch("weights", "list").out
    for entry in OFFICIAL.values():
        line = next(line for line in listed.splitlines() if line.startswith(f"{entry.name} "))
        assert entry.licence in line
        assert entry.matcher in line
        assert (entry.sha256 or "recorded at first fetch") in line


def test_a_restricted_checkpoint_needs_consent(densematch, store: Path, student: Path, unpinned: None) -> None:
    outcome = densematch("weights", "fetch", "gcm_student", "--from", student.parent)
    assert outcome.code == 2
    assert "non-commercial" in outcome.err
    assert "--accept-license" in outcome.err
    assert not store.exists()
    outcome = densematch("weights", "fetch", "gcm_student", "--from", student.parent, "--accept-license")
    assert outcome.code == 0, outcome.err
    assert hashlib.sha256(student.read_bytes()).hexdigest() in outcome.out
    assert "gcm_student: intact" in densematch("weights", "verify").out


def test_a_checkpoint_is_imported_from_a_file(densematch, store: Path, student: Path, unpinned: None) -> None:
    assert densematch("weights", "import", student, "--as", "gcm_student").code == 0
    assert (store / "gcm_student.safetensors").is_file()
    (store / "gcm_student.safetensors").write_bytes(b"changed")
    outcome = densematch("weights", "verify")
    assert outcome.code == 2
    assert "gcm_student" in outcome.err
    assert "fetch or import again" in outcome.err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("fetch", "nothing"), "no official weights 'nothing'"),
        (("fetch", "dkm_outdoor", "--offline"), "the network may not be used"),
        (("fetch", "sparsencnet_k10"), "no address is published"),
        (("import", "none.pth", "--as", "dkm_outdoor"), "no weights file none.pth"),
    ],
)
def test_what_cannot_be_fetched_is_said_in_one_line(densematch, store: Path, words: tuple[str, ...], said: str) -> None:
    outcome = densematch("weights", *words)
    assert outcome.code == 2
    assert said in outcome.err
    assert outcome.err.count("\n") == 1


def test_what_ships_need_not_be_fetched(densematch, store: Path) -> None:
    outcome = densematch("weights", "fetch", "gcm")
    assert (outcome.code, outcome.out) == (0, "gcm ships with the package: nothing to fetch\n")
