"""`densematch batch` without Ray: resuming, limits, lists, refusals."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ros2_densematch.evaluation.fleet.job import Limits, RecordingOutcome, read_outcome, run_recording, write_outcome
from ros2_densematch.evaluation.fleet.recordings import Recording, find_recordings
from ros2_densematch.evaluation.fleet.summary import write_summary

Run = Callable[..., Any]


@pytest.fixture
def recordings(flight: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "recordings"
    folder.mkdir()
    shutil.copytree(flight, folder / "first")
    (folder / "second.mcap").write_bytes(b"no bag")
    (folder / "notes.txt").write_text("not a recording")
    return folder


def test_one_that_fails_is_named_and_the_rest_is_done_and_resumed(
    densematch: Run, recordings: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    words = ("batch", recordings, "--out", out, "--matcher", "sift", "--serial")
    first = densematch(*words)
    assert first.code == 2
    summary = json.loads((out / "summary.json").read_text())
    assert [(row["name"], row["status"]) for row in summary["rows"]] == [("second.mcap", "failed"), ("first", "done")]
    assert "second.mcap" in summary["rows"][0]["reason"]
    assert summary["rows"][1]["frames"] == 8
    assert summary["rows"][1]["ate_rmse_m"] is not None
    assert (out / "recordings" / "first" / "trajectory.tum").is_file()
    again = densematch(*words)
    assert "1 of 2 recordings are already done: running the other 1" in again.err
    other = densematch("batch", recordings, "--out", out, "--matcher", "gcm", "--serial")
    assert other.code == 2
    assert "matcher sift, not gcm" in other.err


def test_a_batch_holds_its_own_recordings_and_no_others(
    densematch: Run, recordings: Path, flight: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    shutil.copytree(flight, recordings / "third")
    (recordings / "second.mcap").unlink()
    words = ("batch", recordings, "--out", out, "--serial")
    assert densematch(*words, "--matcher", "sift").code == 0
    (out / "notes.txt").write_text("mine")

    shutil.rmtree(recordings / "third")
    lines = (recordings / "first" / "frames.csv").read_text().splitlines()
    (recordings / "first" / "frames.csv").write_text("\n".join(lines[:-2]) + "\n")  # another recording of this name
    again = densematch(*words, "--matcher", "sift")
    assert "removing the results of 1 recordings that are no longer listed: third" in again.err
    assert json.loads((out / "summary.json").read_text())["rows"][0]["frames"] == 6
    assert not list(out.rglob("*third*"))

    assert "start again with --no-resume" in densematch(*words, "--matcher", "gcm").err
    assert densematch(*words, "--matcher", "gcm", "--no-resume", "--time-limit", "0.1").code == 2
    assert json.loads((out / "summary.json").read_text())["rows"][0]["status"] == "failed"
    assert (out / "notes.txt").read_text() == "mine"


@pytest.mark.parametrize("name", ["summary.json", "recordings", "outcomes"])
def test_files_that_no_batch_wrote_are_not_replaced(
    densematch: Run, recordings: Path, tmp_path: Path, name: str
) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / name).write_text("mine")
    done = densematch("batch", recordings, "--out", tmp_path / "out", "--matcher", "sift", "--serial", "--no-resume")
    assert (done.code, "was not written by a batch" in done.err) == (2, True)
    assert [path.name for path in (tmp_path / "out").iterdir()] == [name]


@pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")
def test_limits_end_a_recording_with_a_reason_that_does_not_depend_on_the_run(flight: Path, tmp_path: Path) -> None:
    recording = Recording("first", flight)
    slow = run_recording(recording, tmp_path / "time", ["--matcher", "sift"], Limits(seconds=0.3))
    assert not slow.done
    assert slow.reason == "took longer than the limit of 0.3 s"
    large = run_recording(recording, tmp_path / "memory", ["--matcher", "sift"], Limits(memory_mb=5))
    assert large.reason == "took more memory than the limit of 5 MiB"
    assert read_outcome(tmp_path / "memory", recording) == large


def test_what_was_half_done_is_not_taken_for_done(tmp_path: Path) -> None:
    write_outcome(tmp_path, RecordingOutcome("a", True))
    recording = Recording("a", tmp_path / "a.mcap")
    assert read_outcome(tmp_path, recording) is None  # its results are not there
    (tmp_path / "recordings" / "a").mkdir(parents=True)
    (tmp_path / "recordings" / "a" / "summary.json").write_text("{}")
    assert read_outcome(tmp_path, recording) == RecordingOutcome("a", True)
    (tmp_path / "outcomes" / "a.json").write_text('{"half')
    assert read_outcome(tmp_path, recording) is None


def test_lists_and_names(tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text("# two of one name\nx/run.mcap\ny/run.mcap\n")
    assert [r.name for r in find_recordings(tmp_path / "list.txt")] == ["run.mcap", "run.mcap~2"]
    (tmp_path / "list.txt").write_text("x/run.mcap\nx/run.mcap\n")
    with pytest.raises(ValueError, match="twice"):
        find_recordings(tmp_path / "list.txt")
    with pytest.raises(ValueError, match="names no recording"):
        find_recordings(tmp_path)


def test_the_worst_recording_comes_first(tmp_path: Path) -> None:
    recordings = [Recording(name, tmp_path / name) for name in ("good", "lost", "failed", "far", "waiting")]
    for name, with_pose, error in (("good", 10, 1.0), ("lost", 4, 0.5), ("far", 10, 9.0)):
        folder = tmp_path / "recordings" / name
        folder.mkdir(parents=True)
        content = {
            "frames": {"total": 10, "with_pose": with_pose, "keyframes": 1, "segments": 1, "status": {}},
            "matches": {"median_inliers": 50},
            "accuracy": {"ate": {"rmse_m": error, "percent_of_path": error}, "rpe": {}},
            "warnings": [],
        }
        (folder / "summary.json").write_text(json.dumps(content))
    outcomes = [
        RecordingOutcome("good", True),
        RecordingOutcome("lost", True),
        RecordingOutcome("far", True),
        RecordingOutcome("failed", False, "broken"),
    ]
    summary = write_summary(tmp_path, recordings, outcomes, {})
    assert [row["name"] for row in summary["rows"]] == ["failed", "waiting", "lost", "far", "good"]
    assert (summary["done"], summary["failed"], summary["not_run"]) == (3, 1, 1)
    assert "broken" in (tmp_path / "report.html").read_text()
