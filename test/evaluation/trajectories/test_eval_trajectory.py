"""`densematch eval trajectory`: what is stored, resumed, refused; the figures against evo; relocalisation."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from ros2_densematch.cli.main import main
from ros2_densematch.evaluation.predictions import entries
from ros2_densematch.evaluation.summary import FrameRecord
from ros2_densematch.evaluation.trajectories import tracking
from ros2_densematch.evaluation.trajectories.scores import found_after_interruptions, judge, recovered_losses
from ros2_densematch.evaluation.trajectories.tracking import covered_stretches
from ros2_densematch.evaluation.trajectories.tracks import Track
from ros2_densematch.geometry import poses
from ros2_densematch.geometry.trajectory import Trajectory
from ros2_densematch.simulation.bag import write_flight_bag
from ros2_densematch.simulation.flight import demo_camera, demo_flight
from ros2_densematch.simulation.renderer import render
from ros2_densematch.simulation.sensor import Sensor
from ros2_densematch.simulation.worlds import workshop

Run = Callable[..., tuple[int, str, str]]
FRAMES = 11


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    def command(*words: object) -> tuple[int, str, str]:
        capsys.readouterr()
        code = main(["eval", *(str(word) for word in words)])
        text = capsys.readouterr()
        return code, text.out, text.err

    return command


@pytest.fixture(scope="module")
def sequence(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A rendered flight as a folder with frames.csv."""
    folder = tmp_path_factory.mktemp("sequences") / "rendered"
    folder.mkdir()
    scene, camera, flight = workshop(), demo_camera(240, 180), demo_flight()
    lines = ["index,timestamp_ns,image,depth,tx,ty,tz,qx,qy,qz,qw"]
    for i in range(FRAMES):
        T = flight.T_world_from_camera[3 * i]
        cv2.imwrite(str(folder / f"{i}.png"), render(scene, camera, T).image[..., ::-1])
        numbers = (*T[:3, 3], *poses.quaternion_from_matrix(T))
        lines.append(f"{i},{10**9 + i * 10**8},{i}.png,," + ",".join(f"{v:.9f}" for v in numbers))
    (folder / "frames.csv").write_text("\n".join(lines) + "\n")
    calibration = {"width": 240, "height": 180, "K": camera.K.ravel().tolist(), "distortion_model": "none", "D": []}
    (folder / "camera.json").write_text(json.dumps(calibration))
    return folder


@pytest.fixture(scope="module")
def finished(sequence: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("finished") / "out"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tracking, "SETTLING_FRAMES", 2)
        patch.setattr(tracking, "COVERED_FRAMES", 1)
        words = ["eval", "trajectory", str(sequence), "--matcher", "sift", "--interruptions", "1", "--out", str(out)]
        assert main(words) == 0
    return out


@pytest.fixture
def copy(finished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "out"))


def figures(out: Path, group: str) -> dict[str, Any]:
    entry = json.loads((out / "scores.json").read_text())["entries"][0]
    return {key: figure["value"] for key, figure in entry["groups"][group]["figures"].items()}


def test_the_figures_of_a_rendered_flight(finished: Path) -> None:
    found = figures(finished, "trajectory")
    assert found["coverage"] == 100
    assert found["recall_1"] > 20
    assert found["ate_percent"] < 4
    assert found["rpe_rotation_deg"] < 0.5
    assert found["drift_rotation_deg"] < 1.0
    assert figures(finished, "robustness")["relocalisation_recall"] == 100
    cost = figures(finished, "cost")
    assert cost["frame_ms"] > cost["encode_ms"] > 0
    assert cost["frames_per_second"] > 0


def test_the_page_and_the_report_say_how_it_was_measured(finished: Path) -> None:
    for text in ((finished / "report.html").read_text(), (finished / "report.md").read_text()):
        assert "depth where the data has it, PoseLib 1 px" in text
        assert "1 sequence" in text
        assert "1 sequences" not in text
    page = (finished / "report.html").read_text()
    assert "Trajectories: rendered" in page
    assert "data:image/svg+xml;base64," in page
    assert len(page) < 5_000_000


def test_ate_and_rpe_are_those_of_evo(finished: Path) -> None:
    metrics = pytest.importorskip("evo.core.metrics", reason="evo is not installed")
    from evo.core import sync
    from evo.tools import file_interface

    truth = file_interface.read_tum_trajectory_file(finished / "trajectories/ground_truth/rendered.tum")
    estimated = file_interface.read_tum_trajectory_file(finished / "trajectories/sift/rendered.tum")
    truth, estimated = sync.associate_trajectories(truth, estimated)
    assert estimated.num_poses == FRAMES
    estimated.align(truth, correct_scale=True)
    found, rmse = figures(finished, "trajectory"), metrics.StatisticsType.rmse
    ape = metrics.APE(metrics.PoseRelation.translation_part)
    ape.process_data((truth, estimated))
    assert found["ate_m"] == pytest.approx(ape.get_statistic(rmse), rel=1e-4)
    relations = metrics.PoseRelation
    for name, relation, delta in (
        ("rpe_rotation_deg", relations.rotation_angle_deg, 1),
        ("rpe_translation_m", relations.translation_part, 1),
        ("drift_rotation_deg", relations.rotation_angle_deg, 10),
        ("drift_translation_m", relations.translation_part, 10),
    ):
        rpe = metrics.RPE(relation, delta=delta, delta_unit=metrics.Unit.frames, all_pairs=True)
        rpe.process_data((truth, estimated))
        assert found[name] == pytest.approx(rpe.get_statistic(rmse), rel=1e-3)


def test_kitti_rows_are_written_beside_tum_lines(finished: Path) -> None:
    rows = np.loadtxt(finished / "trajectories/sift/rendered.kitti")
    assert rows.shape == (FRAMES, 12)


def test_scoring_again_runs_no_matcher_and_gives_the_same_bytes(
    copy: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("no matcher may be loaded")

    monkeypatch.setattr(entries, "load_matcher", refuse)
    before = (copy / "scores.json").read_bytes()
    (copy / "scores.json").unlink()
    assert run("score", copy)[0] == 0
    assert (copy / "scores.json").read_bytes() == before
    code, _, err = run("score", copy, "--estimator", "magsac")
    assert code == 2
    assert "which has its own estimator" in err


def test_a_damaged_track_is_made_again_and_the_others_are_kept(
    copy: Path, sequence: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tracking, "SETTLING_FRAMES", 2)
    monkeypatch.setattr(tracking, "COVERED_FRAMES", 1)
    (copy / "predictions/sift/000000.npz").write_bytes(b"half a file")
    code, _, err = run("trajectory", sequence, "--matcher", "sift", "--interruptions", 1, "--out", copy)
    assert code == 0
    assert "1 damaged predictions were made again" in err
    assert "1 stored predictions used, 1 sequences matched now" in err


@pytest.mark.parametrize(
    "words", [["--mono", "--interruptions", "1"], ["--interruptions", "1", "--set", "tracker.min_inliers=30"], []]
)
def test_two_settings_in_one_folder_are_refused(copy: Path, sequence: Path, run: Run, words: list[str]) -> None:
    code, _, err = run("trajectory", sequence, "--matcher", "sift", "--out", copy, *words)
    assert code == 2
    assert "other settings" in err


def test_several_sequences_one_of_them_without_truth_are_incomplete(sequence: Path, run: Run, tmp_path: Path) -> None:
    folder = tmp_path / "data"
    shutil.copytree(sequence, folder / "a")
    shutil.copytree(sequence, folder / "b")
    rows = (folder / "b/frames.csv").read_text().splitlines()
    (folder / "b/frames.csv").write_text(
        "\n".join([rows[0], *(",".join(r.split(",")[:4]) + ",,,,,,," for r in rows[1:])])
    )
    code, out, err = run("trajectory", folder, "--matcher", "sift", "--max-frames", 4, "--out", tmp_path / "out")
    assert code == 2
    assert "b is skipped: it has no ground truth" in err
    assert "INCOMPLETE" in out


def test_matchers_side_by_side_on_a_bag(run: Run, tmp_path: Path) -> None:
    flight = demo_flight()
    part = replace(flight, stamps_ns=flight.stamps_ns[:4], T_world_from_camera=flight.T_world_from_camera[:4])
    write_flight_bag(tmp_path / "bag", workshop(), demo_camera(160, 120), part, Sensor())
    out = tmp_path / "out"
    code, text, _ = run(
        "compare",
        "sift",
        "opencv-orb",
        "--on",
        tmp_path / "bag",
        "--task",
        "trajectory",
        "--peers",
        "none",
        "--out",
        out,
    )
    assert code == 0, text
    content = json.loads((out / "scores.json").read_text())
    assert [entry["name"] for entry in content["entries"]] == ["sift", "opencv-orb"]
    assert all(entry["pairs"]["scored"] == 1 for entry in content["entries"])


# ---- relocalisation


def record(i: int, x: float | None, *, segment: int = 0) -> FrameRecord:
    T = None
    if x is not None:
        T = np.eye(4)
        T[0, 3] = x
        T[1, 3] = 0.1 * np.sin(x)  # not on a line
    status = "LOST" if x is None else "TRACKED"
    return FrameRecord(i, 10**8 * i, status, "", segment=segment, T_world_from_camera=T)


def straight(count: int) -> Trajectory:
    T = [record(i, 0.2 * i).T_world_from_camera for i in range(count)]
    return Trajectory(np.arange(count, dtype=np.int64) * 10**8, np.stack(T))  # type: ignore[arg-type]


def test_a_loss_is_found_again_in_its_own_segment_only() -> None:
    lost = [record(0, 0.0), record(1, None), record(2, 0.4), record(3, None), record(4, 0.8, segment=1)]
    assert recovered_losses(lost) == [True, False]
    assert recovered_losses([record(0, None), record(1, 0.0), record(2, 0.2)]) == []  # never had it


def test_interruptions_count_as_found_only_where_the_pose_is_right() -> None:
    count = 60
    rows = [record(i, None if i in (20, 21, 40, 41) else 0.2 * i) for i in range(count)]
    wrong = [record(i, 0.2 * i + 3.0) if 42 <= i < 52 else rows[i] for i in range(count)]
    track = Track("a", wrong, covered=((20, 21), (40, 41)))
    assert found_after_interruptions(track, judge(wrong, straight(count))) == [True, False]
    fine = Track("a", rows, covered=track.covered)
    judged = judge(rows, straight(count))
    assert found_after_interruptions(fine, judged) == [True, True]
    assert np.isinf(judged.position_m[20])  # a frame without a pose is never near


def test_interruptions_leave_the_tracker_time_to_settle() -> None:
    assert covered_stretches(20, 3) == ()
    found = covered_stretches(200, 3)
    assert len(found) == 3
    assert found[0][0] >= tracking.SETTLING_FRAMES
    assert all(b[0] - a[1] > tracking.SETTLING_FRAMES for a, b in pairwise(found))
    assert found[-1][1] < 200 - tracking.SETTLING_FRAMES
