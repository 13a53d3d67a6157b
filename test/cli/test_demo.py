"""`densematch demo`: what it judges, and that it leaves a bag that replays and a report."""

from __future__ import annotations

from pathlib import Path

import pytest

from ros2_densematch.cli.demo import FrameRow, judge
from ros2_densematch.simulation.flight import demo_flight

FLIGHT = demo_flight(240)
BLANK = range(FLIGHT.stretch.index("blank wall"), 166)


def rows(*, lost: range = BLANK, segment_after: int = 0, reason: str = "too few matches") -> list[FrameRow]:
    return [
        FrameRow(
            i, "LOST" if i in lost else "TRACKED", segment_after if i >= lost.stop else 0, reason if i in lost else ""
        )
        for i in range(240)
    ]


def summary(percent: float = 0.4, rotation: float = 0.05) -> dict[str, object]:
    ate = {"percent_of_path": percent, "rmse_m": percent / 100 * FLIGHT.path_length}
    return {"accuracy": {"ate": ate, "rpe": {"rotation_rmse_deg": rotation}}}


def test_a_good_replay_passes_everything() -> None:
    verdicts = judge(summary(), rows(), FLIGHT)
    assert [v.name for v in verdicts if not v.ok] == []
    assert len(verdicts) == 5


@pytest.mark.parametrize(
    ("replayed", "frames", "failing"),
    [
        (summary(percent=1.01), rows(), "ATE"),
        (summary(percent=float("nan")), rows(), "ATE"),
        (summary(rotation=0.31), rows(), "rotation RPE"),
        (summary(), rows(lost=range(150, 166), reason=""), "frames accounted for"),
        (summary(), rows()[:200], "frames accounted for"),
        (summary(), rows(lost=range(0)), "lost at the blank wall"),
        (summary(), rows(segment_after=1), "found again"),
        (summary(), rows(lost=range(150, 240)), "found again"),
    ],
    ids=["ate", "ate-nan", "rpe", "no-reason", "frames-missing", "never-lost", "new-scale", "never-found"],
)
def test_each_limit_fails_by_itself(replayed: dict[str, object], frames: list[FrameRow], failing: str) -> None:
    failed = [v.name for v in judge(replayed, frames, FLIGHT) if not v.ok]
    assert len(failed) == 1
    assert failed[0].startswith(failing)


def test_a_replay_without_poses_fails_with_a_word_about_it() -> None:
    failed = [v for v in judge({"accuracy": None}, rows(), FLIGHT) if not v.ok]
    assert {v.measured for v in failed} == {"no trajectory"}


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, int, str]:
    """A short flight with SIFT: (folder, exit code, stdout)."""
    import contextlib
    import io

    from ros2_densematch.cli.main import main

    folder = tmp_path_factory.mktemp("demo") / "out"
    stdout = io.StringIO()
    with contextlib.redirect_stdout(stdout):
        code = main(["demo", "--out", str(folder), "--matcher", "sift", "--frames", "20"])
    return folder, code, stdout.getvalue()


def test_the_demo_leaves_bag_report_and_results(demo: tuple[Path, int, str]) -> None:
    folder, code, stdout = demo
    for name in ("flight/metadata.yaml", "flight.jpg", "report.html", "summary.json", "relative_poses.csv"):
        assert (folder / name).stat().st_size > 0
    assert str((folder / "report.html").resolve()) in stdout
    assert "rotation RPE" in stdout
    assert code == int("BEYOND" in stdout)


def test_the_bag_holds_the_flight_as_any_tool_reads_it(demo: tuple[Path, int, str]) -> None:
    import numpy as np
    from rosbags.highlevel import AnyReader

    from ros2_densematch.geometry.poses import pose_from_quaternion

    flight = demo_flight(20)
    with AnyReader([demo[0] / "flight"]) as reader:
        assert {c.topic: c.msgcount for c in reader.connections} == {
            "/camera/image_raw/compressed": 20,
            "/camera/camera_info": 20,
            "/ground_truth/pose": 20,
        }
        truth = [c for c in reader.connections if c.topic == "/ground_truth/pose"]
        for i, (connection, stamp, data) in enumerate(reader.messages(truth)):
            message = reader.deserialize(data, connection.msgtype)
            p, q = message.pose.position, message.pose.orientation
            pose = pose_from_quaternion([p.x, p.y, p.z], [q.x, q.y, q.z, q.w])
            np.testing.assert_allclose(pose, flight.T_world_from_camera[i], atol=1e-12)
            assert stamp == flight.stamps_ns[i] == message.header.stamp.sec * 10**9 + message.header.stamp.nanosec


def test_the_bag_replays_as_frames_with_calibration_and_ground_truth(demo: tuple[Path, int, str]) -> None:
    import numpy as np

    from ros2_densematch.io.sources.opening import open_source
    from ros2_densematch.simulation.flight import DEMO_SIZE, demo_camera

    source = open_source(demo[0] / "flight")
    frames = list(source)
    assert len(frames) == 20
    assert source.warnings == []
    assert frames[0].image.shape == (DEMO_SIZE[1], DEMO_SIZE[0], 3)
    assert frames[0].camera is not None
    np.testing.assert_allclose(frames[0].camera.K, demo_camera(*DEMO_SIZE).K)
    assert source.ground_truth is not None
    np.testing.assert_allclose(source.ground_truth.T_world_from_camera, demo_flight(20).T_world_from_camera, atol=1e-12)


def test_a_folder_that_is_no_bag_is_not_overwritten(tmp_path: Path) -> None:
    from ros2_densematch.cli.main import main

    (tmp_path / "flight").mkdir()
    (tmp_path / "flight" / "mine.txt").write_text("keep me")
    assert main(["demo", "--out", str(tmp_path), "--matcher", "sift", "--frames", "20"]) == 2
    assert (tmp_path / "flight" / "mine.txt").read_text() == "keep me"


def test_the_flight_is_a_result_and_is_not_replaced_while_it_is_read(
    demo: tuple[Path, int, str], flight: Path, tmp_path: Path
) -> None:
    import json
    import shutil

    from ros2_densematch.cli.main import main

    folder = Path(shutil.copytree(demo[0], tmp_path / "out"))
    (folder / "notes.txt").write_text("keep me")
    named = set(json.loads((folder / "summary.json").read_text())["files"])
    assert {path.name for path in folder.iterdir()} == named | {"notes.txt"}
    assert main(["replay", str(folder / "flight"), "--out", str(folder), "--matcher", "sift"]) == 2
    assert {path.name for path in folder.iterdir()} == named | {"notes.txt"}
    assert main(["replay", str(flight), "--out", str(folder), "--matcher", "sift"]) == 0
    left = {path.name for path in folder.iterdir()}
    assert left == {*json.loads((folder / "summary.json").read_text())["files"], "notes.txt"}
    assert "flight" not in left
