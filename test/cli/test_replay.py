"""`densematch replay`: what it writes, and that nothing of it is lost when a replay ends early."""

from __future__ import annotations

import csv
import json
import re
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ros2_densematch.tracking.tracker import Tracker

FRAMES = 8
FILES = {"bag", "relative_poses.csv", "trajectory.tum", "summary.json", "report.html"}


@pytest.fixture(scope="module")
def result(flight: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The results of one replay of the flight."""
    from ros2_densematch.cli.main import main

    out = tmp_path_factory.mktemp("replay") / "out"
    assert main(["replay", str(flight), "--matcher", "sift", "--out", str(out)]) == 0
    return out


def summary_of(out: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((out / "summary.json").read_text("utf-8"))
    return loaded


def rows_of(out: Path) -> list[dict[str, str]]:
    with (out / "relative_poses.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def messages_in(bag: Path) -> dict[str, int]:
    from rosbags.rosbag2 import Reader

    with Reader(bag) as reader:
        return {topic: info.msgcount for topic, info in reader.topics.items()}


def test_every_file_of_the_contract_is_written_and_nothing_else(result: Path) -> None:
    assert {p.name for p in result.iterdir()} == FILES
    assert set(summary_of(result)["files"]) == FILES


def test_the_summary_counts_every_frame_with_a_reason(result: Path) -> None:
    summary = summary_of(result)
    frames = summary["frames"]
    assert frames["total"] == FRAMES == sum(entry["count"] for entry in frames["status"].values())
    for entry in frames["status"].values():
        assert entry["count"] == sum(reason["count"] for reason in entry["reasons"])
        assert all(reason["reason"] for reason in entry["reasons"])
    assert summary["stopped_early"] is None
    assert summary["estimator"] == {"name": "PoseLib LO-RANSAC", "max_epipolar_error_px": 1.0}
    assert summary["matcher"] == {"name": "sift", "preset": "base", "weights": "none", "device": "cpu"}
    for stage in ("encode", "match", "pose", "total"):
        assert summary["timings_ms"][stage]["p95"] >= summary["timings_ms"][stage]["median"] > 0


def test_the_errors_against_ground_truth_are_small_on_an_easy_flight(result: Path) -> None:
    accuracy = summary_of(result)["accuracy"]
    assert accuracy["poses"] >= FRAMES - 2
    assert accuracy["ate"]["percent_of_path"] < 5.0
    assert accuracy["rpe"]["rotation_rmse_deg"] < 0.3


def test_poses_and_messages_agree_with_the_summary(result: Path) -> None:
    summary = summary_of(result)
    assert len(rows_of(result)) == FRAMES
    poses = (result / "trajectory.tum").read_text("utf-8").splitlines()
    assert len(poses) == summary["trajectory"]["poses"]
    assert all(len(line.split()) == 8 for line in poses)
    counts = messages_in(result / "bag")
    assert counts["/matcher/status"] == FRAMES
    assert counts["/matcher/keyframe"] == summary["frames"]["keyframes"]
    assert counts["/matcher/correspondences"] == FRAMES - 1


def test_two_runs_give_the_same_poses(densematch, flight: Path, result: Path, tmp_path: Path) -> None:
    assert densematch("replay", flight, "--matcher", "sift", "--out", tmp_path).code == 0
    for name in ("relative_poses.csv", "trajectory.tum"):
        assert (tmp_path / name).read_bytes() == (result / name).read_bytes()


def test_the_report_is_one_page_that_needs_no_network(result: Path) -> None:
    page = (result / "report.html").read_text("utf-8")
    loaded = re.findall(r'(?:src|href)="([^"]*)"', page)
    assert loaded
    assert all(link.startswith(("data:", "#")) for link in loaded)
    assert not re.search(r"@import|url\(\s*['\"]?http", page)
    for words in ("PoseLib LO-RANSAC, threshold 1 px", "sift, preset base", "ATE (RMSE)", "rotation RPE", "<svg"):
        assert words in page


def interrupting(monkeypatch: pytest.MonkeyPatch, at: int, act: Callable[[], None]) -> None:
    """Has `act` happen while frame `at` is in work."""
    process = Tracker.process
    seen = iter(range(10_000))

    def processed(self: Tracker, frame: Any) -> Any:
        if next(seen) == at:
            act()
        return process(self, frame)

    monkeypatch.setattr(Tracker, "process", processed)


def failing(error: Exception) -> Callable[[], None]:
    def act() -> None:
        raise error

    return act


@pytest.mark.parametrize(
    ("act", "code", "done", "words"),
    [
        (lambda: signal.raise_signal(signal.SIGINT), 130, 5, "interrupted by Ctrl-C"),
        (lambda: signal.raise_signal(signal.SIGTERM), 130, 5, "terminated"),
        (failing(RuntimeError("the tracker is confused")), 1, 4, "the tracker is confused"),
        (failing(ValueError("frame 4 is damaged")), 2, 4, "frame 4 is damaged"),
    ],
    ids=["ctrl-c", "sigterm", "our fault", "bad input"],
)
def test_what_was_done_before_an_early_end_is_finished(
    densematch,
    monkeypatch: pytest.MonkeyPatch,
    flight: Path,
    tmp_path: Path,
    act: Callable[[], None],
    code: int,
    done: int,
    words: str,
) -> None:
    interrupting(monkeypatch, 4, act)
    before = signal.getsignal(signal.SIGINT)
    outcome = densematch("replay", flight, "--matcher", "sift", "--out", tmp_path)
    assert outcome.code == code, outcome.err
    assert signal.getsignal(signal.SIGINT) is before
    assert {p.name for p in tmp_path.iterdir()} == FILES  # complete, and no temporary file
    summary = summary_of(tmp_path)
    assert (
        summary["frames"]["total"] == done == len(rows_of(tmp_path)) == messages_in(tmp_path / "bag")["/matcher/status"]
    )
    assert words in summary["stopped_early"]
    assert words in (tmp_path / "report.html").read_text("utf-8")


def test_without_calibration_there_are_correspondences_and_the_reason(densematch, flight: Path, tmp_path: Path) -> None:
    images = tmp_path / "images"
    shutil.copytree(flight / "rgb", images)
    out = tmp_path / "out"
    outcome = densematch("replay", images, "--matcher", "sift", "--max-frames", 3, "--out", out)
    assert outcome.code == 0, outcome.err
    summary = summary_of(out)
    assert summary["trajectory"] is None
    assert "calibration" in summary["no_pose_reason"]
    assert "calibration" in outcome.out
    assert messages_in(out / "bag")["/matcher/correspondences"] == 2
    assert "Correspondences only" in (out / "report.html").read_text("utf-8")
    assert not (out / "trajectory.tum").exists()


def test_part_of_a_recording_is_replayed(densematch, flight: Path, tmp_path: Path) -> None:
    words = ("--from", 0.25, "--to", 0.75, "--max-frames", 3)
    assert densematch("replay", flight, "--matcher", "sift", "--out", tmp_path, *words).code == 0
    assert [int(row["stamp_ns"]) // 10**6 for row in rows_of(tmp_path)] == [1300, 1400, 1500]


def test_settings_come_from_the_file_and_the_command_line_overrules_them(
    densematch, flight: Path, tmp_path: Path
) -> None:
    (tmp_path / "p.yaml").write_text("matcher: gcm\ntracker: {pose: {max_epipolar_error_px: 2.0}}\n", "utf-8")
    words = ("--config", tmp_path / "p.yaml", "--matcher", "sift", "--max-frames", 3, "--out", tmp_path / "o")
    assert densematch("replay", flight, *words).code == 0
    summary = summary_of(tmp_path / "o")
    assert summary["matcher"]["name"] == "sift"
    assert summary["estimator"]["max_epipolar_error_px"] == 2.0


def test_input_that_cannot_be_used_is_refused_before_anything_is_written(
    densematch, flight: Path, tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    for words, expected in (
        ((tmp_path / "no.mcap",), "no.mcap"),
        ((tmp_path / "empty",), "empty"),
        ((flight, "--from", 100), "contains no usable frame"),
        ((flight, "--from", 2, "--to", 1), "--to 1 must come after --from 2"),
        ((flight, "--config", tmp_path / "no.yaml"), "no.yaml"),
        ((flight, "--mask", tmp_path / "no.png"), "no.png"),
    ):
        outcome = densematch("replay", *words, "--matcher", "sift", "--out", tmp_path / "o")
        assert outcome.code == 2, outcome.err
        assert expected in outcome.err
        assert not (tmp_path / "o").exists() or not list((tmp_path / "o").iterdir())


def keys(value: Any, prefix: str = "") -> Iterator[str]:
    """Dotted keys of a summary; entries of a list share one name with []."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield from keys(item, f"{prefix}.{key}" if prefix else key)
    elif isinstance(value, list) and value and isinstance(value[0], dict):
        for item in value:
            yield from keys(item, f"{prefix}[]")
    else:
        yield prefix


def documented(repository: Path, command: str) -> set[str]:
    """The keys in the table below the heading of that command's summary.json."""
    text = (repository / "docs" / "formats.md").read_text("utf-8")
    section = re.split(r"^#+ ", text.split(f"summary.json of `{command}`", 1)[1], maxsplit=1, flags=re.MULTILINE)[0]
    keys = set(re.findall(r"^\| `([^`]+)` \|", section, re.MULTILINE))
    assert "matcher.runtime" in keys
    return keys - {"matcher.runtime"}  # only with --backend onnx


def general(key: str) -> str:
    """STATUS and PACKAGE stand for what differs from run to run."""
    key = re.sub(r"^frames\.status\.[A-Z_]+", "frames.status.STATUS", key)
    return re.sub(r"^versions\..*", "versions.PACKAGE", key)


def test_the_keys_of_the_replay_summary_are_the_documented_ones(repository: Path, result: Path) -> None:
    assert {general(key) for key in keys(summary_of(result))} == documented(repository, "replay")


def test_the_keys_of_the_match_summary_are_the_documented_ones(
    densematch, repository: Path, flight: Path, tmp_path: Path
) -> None:
    (tmp_path / "p.txt").write_text("rgb/000000.png rgb/000001.png\none\n", "utf-8")
    densematch("match", "--pairs", tmp_path / "p.txt", "--root", flight, "--matcher", "sift", "--out", tmp_path / "o")
    written = {general(key) for key in keys(summary_of(tmp_path / "o"))}
    wanted = documented(repository, "match")
    assert written == wanted
