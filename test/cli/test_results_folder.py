"""An output folder belongs to one run; a full disk is the user's; a pair without matches is no success."""

from __future__ import annotations

import errno
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from ros2_densematch.cli.errors import exit_code_of
from ros2_densematch.files.results_folder import ForeignFileError, ResultsFolder, make_room


def run(folder: Path, *names: str, finish: bool = True) -> None:
    """A command that writes these files."""
    results = ResultsFolder(folder, names)
    results.begin()
    for name in names:
        (folder / name).write_text("new")
    if finish:
        summary = {"command": "match", "versions": {"densematch": "1"}, "files": [*names, "summary.json"]}
        (folder / "summary.json").write_text(json.dumps(summary))
        results.finish()


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_the_results_of_the_run_before_are_replaced_whole_and_foreign_files_stay(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    run(tmp_path, "000000.npz", "000001.npz")
    run(tmp_path, "000000.npz")
    assert names(tmp_path) == {"notes.txt", "000000.npz", "summary.json"}


def test_what_a_killed_run_left_is_removed_by_the_next_one(tmp_path: Path) -> None:
    run(tmp_path, "bag", "trajectory.tum", finish=False)
    (tmp_path / ".bag.abc123").mkdir()
    (tmp_path / ".trajectory.tum.0a1b2c3d.part").write_text("half")
    run(tmp_path, "relative_poses.csv")
    assert names(tmp_path) == {"relative_poses.csv", "summary.json"}


@pytest.mark.parametrize("name", ["summary.json", "trajectory.tum"])
def test_a_foreign_file_of_the_name_of_a_result_is_not_overwritten(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("{}")
    with pytest.raises(ForeignFileError, match=f"{name} exists and is not a result of densematch"):
        run(tmp_path, "trajectory.tum")
    assert names(tmp_path) == {name}


def test_a_summary_cannot_name_files_outside_of_the_folder(tmp_path: Path) -> None:
    (tmp_path / "outside").write_text("mine")
    folder = tmp_path / "out"
    folder.mkdir()
    files = ["../outside", str(tmp_path / "outside"), "..", ""]
    (folder / "summary.json").write_text(json.dumps({"command": "x", "versions": {"densematch": "1"}, "files": files}))
    run(folder, "a")
    assert (tmp_path / "outside").read_text() == "mine"


def test_a_killed_run_is_known_by_all_its_segments(tmp_path: Path) -> None:
    results = ResultsFolder(tmp_path, ["trajectory_segment_*.tum"])
    results.begin()
    for name in ("trajectory_segment_1.tum", "trajectory_segment_12.tum", "trajectory.txt"):
        (tmp_path / name).write_text("new")
    run(tmp_path, "a")
    assert names(tmp_path) == {"trajectory.txt", "a", "summary.json"}
    (tmp_path / "trajectory_segment_3.tum").write_text("mine")
    with pytest.raises(ForeignFileError, match="trajectory_segment_3"):
        ResultsFolder(tmp_path, ["trajectory_segment_*.tum"]).begin()


def test_what_is_read_is_not_replaced(tmp_path: Path) -> None:
    run(tmp_path, "flight", "bag")
    for read in (tmp_path / "flight", tmp_path / "bag" / "part.mcap"):
        with pytest.raises(ForeignFileError, match="is an input"):
            ResultsFolder(tmp_path, ["bag"], [read]).begin()
    assert names(tmp_path) == {"flight", "bag", "summary.json"}


@pytest.mark.parametrize(
    ("name", "content", "what"),
    [
        ("evaluation.json", {"entries": {}, "data": {}, "export": {}}, "an evaluation"),
        ("batch.json", {"version": "1", "configuration": "", "matcher": ""}, "a batch"),
        ("manifest.json", {"recipe": {}, "densematch": "1"}, "a training run"),
    ],
)
def test_hours_of_work_are_no_other_commands_to_replace(
    tmp_path: Path, name: str, content: dict[str, Any], what: str
) -> None:
    (tmp_path / name).write_text(json.dumps(content))
    with pytest.raises(ForeignFileError, match=f"contains {what}"):
        ResultsFolder(tmp_path, ["a"]).begin()
    (tmp_path / name).write_text("{}")  # of another program
    ResultsFolder(tmp_path, ["a"]).begin()


def test_files_that_are_written_together_are_replaced_together_and_only_ones_own(tmp_path: Path) -> None:
    for name in ("first", "second"):
        (tmp_path / name).write_text("old")
    with pytest.raises(ForeignFileError, match="first"):
        make_room(tmp_path, ["first", "second"], ours=False)
    assert names(tmp_path) == {"first", "second"}
    make_room(tmp_path, ["first", "second"], ours=True)
    assert names(tmp_path) == set()


def test_a_full_disk_is_one_line_and_bad_input(capsys: pytest.CaptureFixture[str]) -> None:
    def fill() -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    assert exit_code_of(fill) == 2
    text = capsys.readouterr().err
    assert text.count("\n") == 1
    assert "No space left on device" in text
    assert "--out" in text


def test_a_replay_onto_a_full_disk_ends_with_one_line(flight: Path, tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=300k", "tmpfs", small], capture_output=True)
    if mounted.returncode:
        pytest.skip("only root can mount a small disk")
    try:
        arguments = ["-m", "ros2_densematch", "replay", flight, "--matcher", "sift", "--out", small]
        done = subprocess.run([sys.executable, *map(str, arguments)], capture_output=True, text=True)
        parts = [path.name for path in small.iterdir() if ".part" in path.name or path.name.startswith(".bag")]
    finally:
        subprocess.run(["umount", small], check=True)
    assert done.returncode == 2
    assert "No space left on device" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
    assert not parts


def test_results_of_a_killed_run_are_not_handed_on(densematch: Any, tmp_path: Path) -> None:
    run(tmp_path, "bag", "trajectory.tum", finish=False)
    for command in ("gtsam", "hloc"):
        done = densematch("export", command, tmp_path, "--out", tmp_path / "out")
        assert (done.code, "was killed or is still writing" in done.err) == (2, True)


@pytest.mark.slow
def test_a_replay_killed_at_any_second_leaves_whole_files_and_the_next_one_a_clean_folder(
    flight: Path, tmp_path: Path
) -> None:
    import random

    rng, out = random.Random(0), tmp_path / "out"
    command = [sys.executable, "-m", "ros2_densematch", "replay", str(flight), "--matcher", "sift", "--out", str(out)]
    for _ in range(12):
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            process.wait(rng.uniform(0.3, 8.0))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        for path in out.iterdir() if out.is_dir() else ():
            if path.name == "summary.json":
                assert set(json.loads(path.read_text())["files"]) <= names(out), "the files of a summary are there"
            if path.suffix == ".csv":
                assert path.read_text().endswith("\n")
    subprocess.run(command, check=True, capture_output=True)
    assert names(out) == set(json.loads((out / "summary.json").read_text())["files"])


@pytest.mark.parametrize("flag", [True, False])
def test_a_pair_without_matches_is_counted_as_failed(densematch: Any, tmp_path: Path, flag: bool) -> None:
    cv2.imwrite(str(tmp_path / "blank.png"), np.full((120, 160, 3), 127, np.uint8))
    cv2.imwrite(str(tmp_path / "noise.png"), np.random.default_rng(0).integers(0, 255, (120, 160, 3)).astype(np.uint8))
    extra = ["--fail-on-empty"] if flag else []
    done = densematch(
        "match", tmp_path / "blank.png", tmp_path / "noise.png", "--matcher", "sift", "--out", tmp_path / "out", *extra
    )
    assert done.code == (3 if flag else 0)
    assert "0 of 1 pairs matched, 1 failed" in done.out
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert (summary["matched"], summary["weak"], summary["failed"]) == (0, 0, 1)
