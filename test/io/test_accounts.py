"""Every named input has an account: what was read, what was used, and one true reason where nothing was."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rosbags.rosbag2 import StoragePlugin, Writer

from ros2_densematch.io.sources.opening import open_source
from ros2_densematch.io.sources.options import SourceOptions
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


def bag(folder: Path, offset_s: float, *, topic: str = "/odom", late_s: float = 0.0) -> Path:
    """Images, and messages of a topic whose stamps are off by `offset_s` and which is recorded `late_s` later."""
    make = odometry if topic in ("/odom", "/gt") else lambda stamp: image(stamp, "16UC1")
    with Writer(folder / "bag", version=8, storage_plugin=StoragePlugin.SQLITE3) as writer:
        connections: dict[str, Any] = {}
        rows = []
        for i in range(FRAMES):
            stamp = START + i * SECOND // 10
            rows.append((stamp, "/cam/image_raw", image(stamp)))
            other = stamp + round(late_s * SECOND)
            rows.append((other, topic, make(other + round(offset_s * SECOND))))
        for recorded, name, message in sorted(rows, key=lambda row: row[0]):
            if name not in connections:
                store = conversions.ros2_typestore()
                connections[name] = writer.add_connection(name, message.__msgtype__, typestore=store)
            writer.write(connections[name], recorded, conversions.to_cdr(message))
    return folder / "bag"


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
        "1700000100.000 to 1700000101.100 s) do not meet those of the images (1700000000.000 to 1700000001.100 s)"
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


def test_everything_used_is_nothing_to_say(tmp_path: Path) -> None:
    source = open_source(bag(tmp_path, 0.0), SourceOptions(odometry_topic="/odom"))
    list(source)
    assert not said(source)
    for role in ("images", "odometry"):
        assert (account(source, role)["messages"], account(source, role)["used"]) == (FRAMES, FRAMES)
        assert account(source, role)["unused"] == []
