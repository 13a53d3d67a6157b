"""What a replay writes: read back by other programs' libraries, and a known 30 degree yaw in each of them."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mcap.reader import make_reader
from mcap_ros2.decoder import DecoderFactory
from relative_pose_reading import relative_pose_from_message

from ros2_densematch.geometry import poses
from ros2_densematch.geometry.correspondences import Correspondences
from ros2_densematch.geometry.relative_pose import Geometry, RelativePose, Scale, no_pose
from ros2_densematch.geometry.trajectory import Trajectory
from ros2_densematch.io.results.odometry import OdometryChain
from ros2_densematch.io.results.relative_poses import COLUMNS, RelativePosesCsv
from ros2_densematch.io.results.result_bag import TOPICS, ResultBag
from ros2_densematch.io.results.tum import read_tum, write_tum
from ros2_densematch.tracking.tracked_frame import NewKeyframe, Status, TrackedFrame

SECOND = 10**9
YAW_DEG = 30.0
# The camera turns right by 30 degrees (about y, which points down) and moves 0.5 m along the first camera's x axis.
T_KEYFRAME_FROM_FRAME = poses.make_pose(poses.exp_rotation([0, np.radians(YAW_DEG), 0]), [0.5, 0.0, 0.0])


def estimate(n: int = 4) -> RelativePose:
    return RelativePose(
        T_query_from_reference=poses.inverse(T_KEYFRAME_FROM_FRAME),
        geometry=Geometry.CALIBRATED,
        scale=Scale.METRIC,
        scale_std=0.01,
        covariance=np.diag([1.0, 2.0, 3.0, 4.0, 5.0, 6.0]) * 1e-4,
        inliers=np.arange(n) > 0,
        num_matches=n,
        num_inliers=n - 1,
        inlier_ratio=(n - 1) / n,
        median_epipolar_px=0.5,
        median_triangulation_deg=3.0,
        homography_inlier_ratio=0.2,
        status="calibrated",
    )


def made(number: int, index: int, T: np.ndarray[Any, Any]) -> NewKeyframe:
    return NewKeyframe(number, index, SECOND + index * SECOND // 2, (64, 48), T, Scale.METRIC, f"keyframe {number}")


def tracked_frames(scale: Scale = Scale.METRIC) -> list[TrackedFrame]:
    """A first keyframe, a frame that has turned by 30 degrees and becomes a keyframe, and a lost frame."""
    xy = np.random.default_rng(0).uniform(0, 40, (2, 4, 2)).astype(np.float32)
    m = Correspondences(xy[0], xy[1], np.full(4, 0.5, np.float32), 0.9, (64, 48), (64, 48))
    pose = replace(estimate(), scale=scale)
    first = TrackedFrame(
        0, SECOND, Status.INITIALISED, "first frame", 0, 0, SECOND, T_world_from_camera=np.eye(4), scale=scale,
        is_keyframe=True, new_keyframes=(made(0, 0, np.eye(4)),), timings_ms={"encode": 5.0},
    )  # fmt: skip
    second = TrackedFrame(
        1, SECOND + SECOND // 2, Status.NEW_KEYFRAME, "overlap 0.4 is below 0.6", 0, 0, SECOND, m, pose,
        T_KEYFRAME_FROM_FRAME, scale, is_keyframe=True, new_keyframes=(made(1, 1, T_KEYFRAME_FROM_FRAME),),
        num_inliers=3, inliers=pose.inliers,
        timings_ms={"encode": 5.0, "match": 3.0, "pose": 1.0},
    )  # fmt: skip
    third = TrackedFrame(
        2, 2 * SECOND, Status.LOST, "no keyframe fits", 1, 1, SECOND + SECOND // 2, m, no_pose(4, "too few inliers: 2"),
    )  # fmt: skip
    return [first, second, third]


def read_bag(folder: Path) -> dict[str, list[Any]]:
    """Topic -> messages, by mcap and mcap-ros2-support, which know our types from the file alone."""
    found: dict[str, list[Any]] = {}
    with next(folder.glob("*.mcap")).open("rb") as stream:
        reader = make_reader(stream, decoder_factories=[DecoderFactory()])
        for _, channel, message, decoded in reader.iter_decoded_messages():
            stamp = decoded.header.stamp.sec * SECOND + decoded.header.stamp.nanosec
            # a keyframe may be made a frame late
            assert message.log_time == stamp or (channel.topic == "/matcher/keyframe" and message.log_time > stamp)
            found.setdefault(channel.topic, []).append(decoded)
    return found


def rotation_of(q: Any) -> np.ndarray[Any, Any]:
    return poses.matrix_from_quaternion([q.x, q.y, q.z, q.w])


@pytest.fixture
def bag(tmp_path: Path) -> dict[str, list[Any]]:
    with ResultBag(tmp_path / "result", frame_id="cam", matcher="sift", preset="base", device="cpu") as out:
        for frame in tracked_frames():
            out.write(frame, frames_dropped=1)
    return read_bag(tmp_path / "result")


# --- the known yaw ----------------------------------------------------------------------------------------------------


def test_yaw_in_the_relative_pose_message_is_that_of_the_query_camera(bag: dict[str, list[Any]]) -> None:
    pose = bag["/matcher/relative_pose"][0].pose.pose
    T = poses.make_pose(rotation_of(pose.orientation), [pose.position.x, pose.position.y, pose.position.z])
    np.testing.assert_allclose(T, T_KEYFRAME_FROM_FRAME, atol=1e-12)
    np.testing.assert_allclose(np.degrees(poses.log_rotation(T[:3, :3])), [0, YAW_DEG, 0], atol=1e-9)


def test_yaw_in_the_odometry_message(bag: dict[str, list[Any]]) -> None:
    first, second = bag["/matcher/odometry"]
    assert (second.header.frame_id, second.child_frame_id) == ("odom", "cam")
    # odom has x forward, y left, z up: the camera turned right, which is about -z, and moved right, which is -y
    R = rotation_of(first.pose.pose.orientation)
    np.testing.assert_allclose(R, [[0, 0, 1], [-1, 0, 0], [0, -1, 0]], atol=1e-12)
    turn = poses.log_rotation(rotation_of(second.pose.pose.orientation) @ R.T)
    np.testing.assert_allclose(np.degrees(turn), [0, 0, -YAW_DEG], atol=1e-9)
    np.testing.assert_allclose([getattr(second.pose.pose.position, k) for k in "xyz"], [0, -0.5, 0], atol=1e-12)
    np.testing.assert_allclose(np.degrees(second.twist.twist.angular.y), 2 * YAW_DEG)  # in half a second


def test_yaw_in_the_keyframe_message(bag: dict[str, list[Any]]) -> None:
    first, second = (rotation_of(k.pose.orientation) for k in bag["/matcher/keyframe"])
    np.testing.assert_allclose(np.degrees(poses.log_rotation(second @ first.T)), [0, 0, -YAW_DEG], atol=1e-9)


def test_yaw_in_the_tum_trajectory(tmp_path: Path) -> None:
    stamps = np.array([SECOND + 1, 2 * SECOND], np.int64)
    write_tum(tmp_path / "t.tum", Trajectory(stamps, np.stack([np.eye(4), T_KEYFRAME_FROM_FRAME])))
    stamp, *numbers = (tmp_path / "t.tum").read_text().splitlines()[1].split()
    assert stamp == "2.000000000"
    half = np.radians(YAW_DEG) / 2
    np.testing.assert_allclose([float(v) for v in numbers], [0.5, 0, 0, 0, np.sin(half), 0, np.cos(half)], atol=1e-9)
    back = read_tum(tmp_path / "t.tum")
    np.testing.assert_array_equal(back.stamps_ns, stamps)
    np.testing.assert_allclose(back.T_world_from_camera[1], T_KEYFRAME_FROM_FRAME, atol=1e-8)


def test_yaw_in_the_csv_is_that_of_query_from_reference(tmp_path: Path) -> None:
    with RelativePosesCsv(tmp_path / "r.csv") as out:
        for frame in tracked_frames():
            out.write(frame)
    rows = list(csv.DictReader((tmp_path / "r.csv").open(newline="")))
    row = rows[1]
    R = poses.matrix_from_quaternion([float(row[k]) for k in ("qx", "qy", "qz", "qw")])
    np.testing.assert_allclose(np.degrees(poses.log_rotation(R)), [0, -YAW_DEG, 0], atol=1e-6)
    t = [float(row[k]) for k in ("tx", "ty", "tz")]
    np.testing.assert_allclose(t, poses.inverse(T_KEYFRAME_FROM_FRAME)[:3, 3], atol=1e-8)
    assert float(row["cov_00"]) == pytest.approx(1e-4)
    assert float(row["cov_55"]) == pytest.approx(6e-4)
    assert (row["status"], row["scale"], row["keyframe_index"]) == ("NEW_KEYFRAME", "METRIC", "0")
    assert rows[0]["geometry"] == rows[0]["qx"] == ""
    assert (rows[2]["geometry"], rows[2]["qx"]) == ("DEGENERATE", "")
    assert rows[2]["reason"] == "no keyframe fits"


# --- the bag ----------------------------------------------------------------------------------------------------------


def test_the_bag_holds_every_topic_with_what_the_frames_say(bag: dict[str, list[Any]]) -> None:
    assert {topic: len(messages) for topic, messages in bag.items()} == {
        "/matcher/status": 3,
        "/matcher/keyframe": 2,
        "/matcher/correspondences": 2,
        "/matcher/relative_pose": 2,
        "/matcher/odometry": 2,
    }
    m = bag["/matcher/correspondences"][0]
    expected = tracked_frames()[1].correspondences
    assert expected is not None
    np.testing.assert_array_equal(np.reshape(m.query_xy, (-1, 2)), expected.query_xy)
    np.testing.assert_array_equal(np.reshape(m.reference_xy, (-1, 2)), expected.reference_xy)
    assert list(m.inlier) == [0, 1, 1, 1]
    assert m.matcher == "sift"
    assert [k.keyframe_id for k in bag["/matcher/keyframe"]] == [0, 1]
    states = [(s.state, s.num_inliers, s.frames_processed, s.frames_dropped) for s in bag["/matcher/status"]]
    assert states == [(1, 0, 1, 1), (3, 3, 2, 1), (5, 0, 3, 1)]
    assert bag["/matcher/status"][2].reason == "no keyframe fits"


def test_odometry_is_written_only_while_the_scale_is_metric(tmp_path: Path) -> None:
    with ResultBag(tmp_path / "result", frame_id="cam") as out:
        for frame in tracked_frames(Scale.UNIT):
            out.write(frame)
    found = read_bag(tmp_path / "result")
    assert "/matcher/odometry" not in found
    assert len(found["/matcher/relative_pose"]) == 2


def test_the_bag_is_a_bag_for_our_own_reader_too(tmp_path: Path, bag: dict[str, list[Any]]) -> None:
    from ros2_densematch.io.sources.storage import open_records

    records = open_records(tmp_path / "result")
    assert {name: topic.type for name, topic in records.topics.items()} == TOPICS
    message = records.decode(next(records.read(["/matcher/relative_pose"])))
    back = relative_pose_from_message(message)
    np.testing.assert_allclose(back.T_query_from_reference, estimate().T_query_from_reference, atol=1e-12)
    np.testing.assert_allclose(back.covariance, estimate().covariance, atol=1e-12)


def test_a_result_is_replaced_but_nothing_else_is(tmp_path: Path) -> None:
    for _ in range(2):
        with ResultBag(tmp_path / "result", frame_id="cam") as out:
            out.write(tracked_frames()[0])
    assert len(read_bag(tmp_path / "result")["/matcher/status"]) == 1
    assert sorted(p.name for p in tmp_path.iterdir()) == ["result"]
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "metadata.yaml").write_text("somebody's bag")
    with pytest.raises(FileExistsError, match="choose another output folder"):
        ResultBag(tmp_path / "mine", frame_id="cam")


# --- covariance and files ---------------------------------------------------------------------------------------------


def test_a_keyframe_made_a_frame_late_is_in_the_bag_and_marked_in_its_own_line(tmp_path: Path) -> None:
    first, second, third = tracked_frames()
    plain = replace(second, is_keyframe=False, new_keyframes=(), reason="tracked")
    late = replace(third, new_keyframes=(made(1, 1, T_KEYFRAME_FROM_FRAME),))
    with (
        ResultBag(tmp_path / "result", frame_id="cam", scale_sources="depth /depth") as bag,
        RelativePosesCsv(tmp_path / "poses.csv") as table,
    ):
        for frame in (first, plain, late):
            bag.write(frame)
            table.write(frame)
    found = read_bag(tmp_path / "result")
    keyframes = {k.keyframe_id: k for k in found["/matcher/keyframe"]}
    assert {m.reference_keyframe_id for m in found["/matcher/correspondences"]} <= set(keyframes)
    assert (keyframes[1].frame_index, keyframes[1].reason) == (1, "keyframe 1")
    assert keyframes[1].header.stamp.nanosec == SECOND // 2
    assert {s.scale_sources for s in found["/matcher/status"]} == {"depth /depth"}
    with (tmp_path / "poses.csv").open() as file:
        assert [row["is_keyframe"] for row in csv.DictReader(file)] == ["1", "1", "0"]


def test_velocity_is_in_the_axes_of_the_camera() -> None:
    """A camera that flies along its own z axis moves with (0, 0, v), wherever it looks."""
    chain = OdometryChain()
    R = poses.exp_rotation([0.3, 1.2, -0.4])
    base = tracked_frames()[1]
    states = [
        chain.add(
            replace(base, index=i, stamp_ns=i * SECOND // 10, T_world_from_camera=poses.make_pose(R, R[:, 2] * i))
        )
        for i in range(3)
    ]
    assert states[0] is not None
    assert states[2] is not None
    assert states[0].velocity_covariance[0, 0] >= 9999.0  # not known from one frame
    np.testing.assert_allclose(states[2].velocity, [0, 0, 10.0, 0, 0, 0], atol=1e-9)


def test_two_writings_of_the_csv_are_identical(tmp_path: Path) -> None:
    for name in ("a.csv", "b.csv"):
        with RelativePosesCsv(tmp_path / name) as out:
            for frame in tracked_frames():
                # Timings differ from run to run and must not show.
                out.write(replace(frame, timings_ms={"encode": 1.0 if name == "a.csv" else 2.0}))
    assert (tmp_path / "a.csv").read_bytes() == (tmp_path / "b.csv").read_bytes()


@pytest.mark.parametrize("line", ["1.0 0 0 0 0 0 0", "1.0 0 0 0 0 0 0 0", "x 0 0 0 0 0 0 1"])
def test_a_line_that_is_no_pose_is_named(tmp_path: Path, line: str) -> None:
    (tmp_path / "t.tum").write_text(f"# comment\n{line}\n")
    with pytest.raises(ValueError, match="line 2"):
        read_tum(tmp_path / "t.tum")


def test_every_column_is_documented(repository: Path) -> None:
    text = (repository / "docs" / "formats.md").read_text()
    for column in COLUMNS:
        if not column.startswith("cov_"):
            assert f"`{column}`" in text, f"docs/formats.md does not explain {column}"
    for topic in TOPICS:
        assert f"`{topic}`" in text


# --- the whole way, with the real tracker -----------------------------------------------------------------------------


def test_a_replayed_bag_numbers_its_keyframes_as_the_tracker_does_and_repeats_exactly(
    shared_data: Any, tmp_path: Path
) -> None:
    from ros2_densematch.io.sources.opening import open_source
    from ros2_densematch.io.sources.options import SourceOptions
    from ros2_densematch.matchers.registry import load_matcher
    from ros2_densematch.tracking.tracker import Tracker, TrackerConfig

    path = shared_data.need("rosbag/kitti_a_sqlite3")
    for run in ("a", "b"):
        tracker = Tracker(load_matcher("sift"), TrackerConfig(max_matches=300, keyframe_overlap=0.9))
        source = open_source(path, SourceOptions(stop_s=0.5))
        with (
            ResultBag(tmp_path / run, frame_id=source.frame_id) as bag,
            RelativePosesCsv(tmp_path / f"{run}.csv") as table,
        ):
            for whole in source:
                assert whole.camera is not None
                window = np.ascontiguousarray(whole.image[:, 300:800])  # a part of the image: SIFT takes its time
                frame = replace(whole, image=window, camera=whole.camera.cropped(300, 0, 500, 370))
                tracked = tracker.process(frame)
                bag.write(tracked)
                table.write(tracked)
    assert (tmp_path / "a.csv").read_bytes() == (tmp_path / "b.csv").read_bytes()
    found = read_bag(tmp_path / "a")
    assert len(found["/matcher/status"]) == 5
    keyframes = {(k.header.stamp.sec, k.header.stamp.nanosec): k.keyframe_id for k in found["/matcher/keyframe"]}
    assert len(keyframes) > 1
    for m in found["/matcher/correspondences"]:
        assert keyframes[m.reference_stamp.sec, m.reference_stamp.nanosec] == m.reference_keyframe_id
