"""Every named input has an account: what was read, what was used, and one true reason where nothing was."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rosbags.rosbag2 import StoragePlugin, Writer

from ros2_densematch.geometry.trajectory import Trajectory
from ros2_densematch.io.sources.opening import open_source
from ros2_densematch.io.sources.options import SourceOptions
from ros2_densematch.io.sources.pose_topics import PoseTrack
from ros2_densematch.messages import conversions
from ros2_densematch.messages.typestore import message_class

SECOND = 10**9
START = 1_700_000_000 * SECOND
FRAMES = 12


def image(stamp_ns: int, encoding: str = "mono8") -> Any:
    step = 32 * (2 if encoding == "16UC1" else 1)
    data = np.full(step * 24, 7, np.uint8)
    return message_class("sensor_msgs/msg/Image")(
        conversions.header_message(stamp_ns, "cam"), 24, 32, encoding, 0, step, data
    )


def odometry(stamp_ns: int) -> Any:
    zeros, eye = np.zeros(6), np.eye(6)
    return conversions.odometry_message(
        np.eye(4), eye, zeros, eye, stamp_ns=stamp_ns, world_frame_id="odom", frame_id="cam"
    )


def info(stamp_ns: int, focal: float = 30.0, frame: str = "cam") -> Any:
    K = np.array([focal, 0, 15.5, 0, focal, 11.5, 0, 0, 1.0])
    P = np.array([focal, 0, 15.5, 0, 0, focal, 11.5, 0, 0, 0, 1.0, 0])
    whole = message_class("sensor_msgs/msg/RegionOfInterest")(0, 0, 0, 0, False)
    return message_class("sensor_msgs/msg/CameraInfo")(
        conversions.header_message(stamp_ns, frame),
        24, 32, "plumb_bob", np.zeros(5), K, np.eye(3).ravel(), P, 0, 0, whole,
    )  # fmt: skip


def write(folder: Path, rows: list[tuple[int, str, Any]]) -> Path:
    """A bag of (time of recording, topic, message)."""
    with Writer(folder / "bag", version=8, storage_plugin=StoragePlugin.SQLITE3) as writer:
        connections: dict[str, Any] = {}
        for recorded, name, message in sorted(rows, key=lambda row: row[0]):
            if name not in connections:
                store = conversions.ros2_typestore()
                connections[name] = writer.add_connection(name, message.__msgtype__, typestore=store)
            writer.write(connections[name], recorded, conversions.to_cdr(message))
    return folder / "bag"


def bag(folder: Path, offset_s: float, *, topic: str = "/odom", late_s: float = 0.0) -> Path:
    """Images, and messages of a topic whose stamps are off by `offset_s` and which is recorded `late_s` later."""
    make = odometry if topic in ("/odom", "/gt") else lambda stamp: image(stamp, "16UC1")
    rows = []
    for i in range(FRAMES):
        stamp = START + i * SECOND // 10
        rows.append((stamp, "/cam/image_raw", image(stamp)))
        other = stamp + round(late_s * SECOND)
        rows.append((other, topic, make(other + round(offset_s * SECOND))))
    return write(folder, rows)


def account(source: Any, role: str) -> dict[str, Any]:
    return next(row for row in source.inputs if row["role"] == role)


def said(source: Any) -> list[str]:
    return [text for text in source.warnings if "no calibration" not in text]


@pytest.mark.parametrize("offset_s", [3.0, -3600.0])
def test_poses_of_another_clock_are_refused_with_the_offset_and_taken_with_the_option(
    tmp_path: Path, offset_s: float
) -> None:
    path = bag(tmp_path, offset_s)
    source = open_source(path, SourceOptions(odometry_topic="/odom"))
    assert all(frame.odometry is None for frame in source)
    side = "ahead of" if offset_s > 0 else "behind"
    (text,) = said(source)
    assert f"{abs(offset_s):.3f} s {side} those of the images" in text
    assert f"--odometry-time-offset {-offset_s:.3f}" in text
    source = open_source(path, SourceOptions(odometry_topic="/odom", odometry_time_offset_s=-offset_s))
    assert all(frame.odometry is not None for frame in source)
    assert not said(source)
    assert account(source, "odometry")["used"] == FRAMES


def test_poses_that_were_recorded_at_another_time_are_answered_with_both_ranges(tmp_path: Path) -> None:
    source = open_source(bag(tmp_path, 0.0, late_s=100.0), SourceOptions(odometry_topic="/odom"))
    assert all(frame.odometry is None for frame in source)
    (text,) = said(source)
    assert (
        "1700000100.000 to 1700000101.100 s) do not overlap those of the images (1700000000.000 to 1700000001.100 s)"
        in text
    )
    assert (account(source, "odometry")["messages"], account(source, "odometry")["used"]) == (FRAMES, 0)


def test_depth_of_another_clock_is_refused_although_its_stamps_fit_other_images(tmp_path: Path) -> None:
    path = bag(tmp_path, 0.4, topic="/depth")  # 4 images ahead: each stamp is that of another image
    source = open_source(path, SourceOptions(depth_topic="/depth"))
    assert all(frame.depth is None for frame in source)
    assert "--depth-time-offset -0.400" in said(source)[0]
    source = open_source(path, SourceOptions(depth_topic="/depth", depth_time_offset_s=-0.4))
    assert all(frame.depth is not None for frame in source)


def test_ground_truth_of_another_clock_is_refused_too(tmp_path: Path) -> None:
    source = open_source(bag(tmp_path, 50.0, topic="/gt"))
    list(source)
    assert source.ground_truth is None
    (text,) = said(source)
    assert text.startswith("ground truth: the stamps of /gt are 50.000 s ahead")


@pytest.mark.parametrize(("topic", "option"), [("/odom", "odometry_topic"), ("/depth", "depth_topic")])
def test_a_small_offset_is_named_and_the_messages_are_used(tmp_path: Path, topic: str, option: str) -> None:
    path = bag(tmp_path, 0.2, topic=topic)
    source = open_source(path, SourceOptions(**{option: topic}))  # type: ignore[arg-type]
    list(source)
    (text,) = said(source)
    assert f"the stamps of {topic} are 0.200 s ahead of those of the images" in text
    assert "-time-offset -0.200" in text
    assert account(source, "odometry" if topic == "/odom" else "depth")["used"] > 0


def test_a_topic_cannot_be_two_inputs(tmp_path: Path) -> None:
    path = bag(tmp_path, 0.0)
    with pytest.raises(ValueError, match="--depth-topic /cam/image_raw is the topic of the images"):
        open_source(path, SourceOptions(image_topic="/cam/image_raw", depth_topic="/cam/image_raw"))


def test_messages_that_were_used_have_no_reason_not_to_be(tmp_path: Path) -> None:
    source = open_source(bag(tmp_path, 0.0, topic="/depth"), SourceOptions(depth_topic="/depth"))
    list(source)
    assert account(source, "depth")["used"] == FRAMES
    assert account(source, "depth")["unused"] == []


def test_a_recording_without_stamps_is_read_by_its_own_clock_and_that_is_said(tmp_path: Path) -> None:
    rows = [(START + i * SECOND // 10, "/cam/image_raw", image(0)) for i in range(FRAMES)]
    rows += [(START + i * SECOND // 10, "/odom", odometry(0)) for i in range(FRAMES)]
    source = open_source(write(tmp_path, rows), SourceOptions(odometry_topic="/odom"))
    assert [f.stamp_ns for f in source] == [START + i * SECOND // 10 for i in range(FRAMES)]
    for role in ("images", "odometry"):
        assert any(f"{role}: {FRAMES} of {FRAMES} messages" in text and "no stamp" in text for text in source.notes)


def test_a_right_camera_without_a_baseline_gives_no_scale_and_that_is_said(tmp_path: Path) -> None:
    times = [START + i * SECOND // 10 for i in range(FRAMES)]
    rows = [(t, topic, image(t)) for t in times for topic in ("/cam/image_raw", "/right/image_raw")]
    rows += [(t, topic, info(t)) for t in times for topic in ("/cam/camera_info", "/right/camera_info")]
    source = open_source(
        write(tmp_path, rows), SourceOptions(image_topic="/cam/image_raw", right_image_topic="/right/image_raw")
    )
    assert all(frame.right_image is None for frame in source)
    (text,) = said(source)
    assert "contains no baseline" in text
    assert account(source, "right images")["messages"] == FRAMES


@pytest.mark.parametrize("delay_s", [0.02, 0.6])
def test_an_image_gets_the_calibration_of_its_stamp_however_late_that_is_recorded(
    tmp_path: Path, delay_s: float
) -> None:
    times = [START + i * SECOND // 30 for i in range(40)]
    rows = [(t, "/cam/image_raw", image(t)) for t in times]
    rows += [(t + round(delay_s * SECOND), "/cam/camera_info", info(t, 20.0 + i)) for i, t in enumerate(times)]
    frames = list(open_source(write(tmp_path, rows)))
    assert [f.camera.focal for f in frames if f.camera is not None] == [20.0 + i for i in range(40)]


def test_a_calibration_that_cannot_be_used_midway_is_counted(tmp_path: Path) -> None:
    times = [START + i * SECOND // 10 for i in range(FRAMES)]
    rows = [(t, "/cam/image_raw", image(t)) for t in times]
    rows += [(t, "/cam/camera_info", info(t, 0.0 if i in (5, 6) else 30.0)) for i, t in enumerate(times)]
    source = open_source(write(tmp_path, rows))
    assert all(f.camera is not None for f in source)
    assert any(text.startswith("2 CameraInfo on /cam/camera_info cannot be used") for text in source.warnings)


def test_a_camera_info_of_another_frame_is_named_not_denied(tmp_path: Path) -> None:
    rows = [(START, "/cam/image_raw", image(START)), (START, "/other/info", info(START, frame="lidar"))]
    (text,) = open_source(write(tmp_path, rows)).warnings
    assert "/other/info of frame 'lidar'" in text
    assert "no CameraInfo in the bag" not in text


def test_a_bag_with_depth_alone_is_said_to_have_no_pictures(tmp_path: Path) -> None:
    rows = [(START + i * SECOND, "/depth", image(START + i * SECOND, "16UC1")) for i in range(3)]
    with pytest.raises(ValueError, match="no image topic: /depth contains depth images"):
        open_source(write(tmp_path, rows))


def test_a_track_covers_the_times_at_which_it_has_a_pose() -> None:
    stamps = np.cumsum(np.random.default_rng(0).choice([10**8, 4 * 10**8], 30)).astype(np.int64)
    track = PoseTrack((Trajectory(stamps, np.tile(np.eye(4), (30, 1, 1))),), ((0, 1),))
    for stamp in range(-(10**9), int(stamps[-1]) + 10**9, 3 * 10**7):
        assert track.covers(stamp) == (track.at(stamp) is not None)


def test_everything_used_is_nothing_to_say(tmp_path: Path) -> None:
    source = open_source(bag(tmp_path, 0.0), SourceOptions(odometry_topic="/odom"))
    list(source)
    assert not said(source)
    for role in ("images", "odometry"):
        assert (account(source, role)["messages"], account(source, role)["used"]) == (FRAMES, FRAMES)
        assert account(source, role)["unused"] == []
