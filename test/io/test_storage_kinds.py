"""Storage as people have it: write-ahead logs, types in the older spelling, counts that do not hold, other images."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rosbags.rosbag2 import StoragePlugin, Writer

from ros2_densematch.io.sources.opening import open_source
from ros2_densematch.io.sources.records import BagError
from ros2_densematch.messages import conversions
from ros2_densematch.messages.typestore import message_class

SECOND = 10**9
IMAGE = "sensor_msgs/msg/Image"


def image(stamp_ns: int) -> Any:
    pixels = np.random.default_rng(stamp_ns).integers(0, 255, 32 * 24).astype(np.uint8)
    return message_class(IMAGE)(conversions.header_message(stamp_ns, "cam"), 24, 32, "mono8", 0, 32, pixels)


def write(folder: Path, count: int = 6, plugin: StoragePlugin = StoragePlugin.SQLITE3) -> Path:
    with Writer(folder, version=8, storage_plugin=plugin) as writer:
        connection = writer.add_connection("/cam/image_raw", IMAGE, typestore=conversions.ros2_typestore())
        for i in range(count):
            stamp = SECOND * (i + 1)
            writer.write(connection, stamp, conversions.to_cdr(image(stamp)))
    return folder


def without_calibration(warnings: list[str]) -> list[str]:
    return [text for text in warnings if "no calibration" not in text]


@pytest.mark.parametrize("metadata", [True, False])
def test_messages_in_the_write_ahead_log_are_read_and_nothing_is_written_beside_them(
    tmp_path: Path, metadata: bool
) -> None:
    bag = write(tmp_path / "bag")
    database = bag / "bag.db3"
    connection = sqlite3.connect(database)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA wal_autocheckpoint=0")
    for i in range(6, 9):
        row = (1, SECOND * (i + 1), bytes(conversions.to_cdr(image(SECOND * (i + 1)))))
        connection.execute("INSERT INTO messages (topic_id, timestamp, data) VALUES (?, ?, ?)", row)
    connection.commit()
    copy = tmp_path / "killed"
    copy.mkdir()
    for name in ("bag.db3", "bag.db3-wal"):  # as a recorder leaves them that was killed
        (copy / name).write_bytes((bag / name).read_bytes())
    connection.close()
    if metadata:
        (copy / "metadata.yaml").write_text((bag / "metadata.yaml").read_text())
    before = sorted((f.name, f.stat().st_mtime_ns) for f in copy.iterdir())
    source = open_source(copy)
    assert [f.stamp_ns for f in source] == [SECOND * (i + 1) for i in range(9)]
    assert any("write-ahead log (bag.db3-wal) is read as well" in text for text in source.warnings)
    assert sorted((f.name, f.stat().st_mtime_ns) for f in copy.iterdir()) == before


def test_types_in_the_older_spelling_are_the_same_types(tmp_path: Path) -> None:
    bag = write(tmp_path / "bag")
    with sqlite3.connect(bag / "bag.db3") as connection:
        connection.execute("UPDATE topics SET type = 'sensor_msgs/Image'")
    text = (bag / "metadata.yaml").read_text()
    (bag / "metadata.yaml").write_text(text.replace("sensor_msgs/msg/Image", "sensor_msgs/Image"))
    source = open_source(bag)
    assert len(list(source)) == 6
    assert not without_calibration(source.warnings)
    assert len(list(open_source(bag / "bag.db3"))) == 6


def test_fewer_messages_than_announced_are_said(tmp_path: Path) -> None:
    bag = write(tmp_path / "bag")
    with sqlite3.connect(bag / "bag.db3") as connection:
        connection.execute("DELETE FROM messages WHERE id > 4")
    source = open_source(bag)
    assert len(list(source)) == 4
    assert any("4 messages could be read, but 6 are announced" in text for text in source.warnings)


@pytest.mark.parametrize("plugin", [StoragePlugin.SQLITE3, StoragePlugin.MCAP])
def test_a_whole_bag_has_no_warning(tmp_path: Path, plugin: StoragePlugin) -> None:
    source = open_source(write(tmp_path / "bag", plugin=plugin))
    assert len(list(source)) == 6
    assert not without_calibration(source.warnings)


def mcap_of(path: Path, schema: str, encoding: str, data: bytes) -> Path:
    from mcap.writer import Writer as McapWriter

    with path.open("wb") as stream:
        writer = McapWriter(stream)
        writer.start(profile="")
        schema_id = writer.register_schema(schema, encoding, b"")
        channel = writer.register_channel("/camera", encoding, schema_id)
        writer.add_message(channel, log_time=SECOND, data=data, publish_time=SECOND)
        writer.finish()
    return path


@pytest.mark.parametrize(
    ("schema", "encoding"),
    [
        ("foxglove.CompressedImage", "protobuf"),
        ("foxglove.CompressedVideo", "protobuf"),
        ("foxglove_msgs/msg/CompressedVideo", "cdr"),
        ("ffmpeg_image_transport_msgs/msg/FFMPEGPacket", "cdr"),
    ],
)
def test_images_that_are_not_of_ros_are_named_with_the_way_out(tmp_path: Path, schema: str, encoding: str) -> None:
    with pytest.raises(BagError) as caught:
        open_source(mcap_of(tmp_path / "a.mcap", schema, encoding, b"123"))
    assert schema in str(caught.value)
    assert "convert them as sensor_msgs/msg/CompressedImage" in str(caught.value)
    assert "damaged" not in str(caught.value)


def test_a_bag_cut_before_its_first_image_says_that_it_is_cut(shared_data, tmp_path: Path) -> None:
    data = shared_data.need("rosbag/real_t265_ros1/trimmed_locoffice.bag").read_bytes()
    (tmp_path / "cut.bag").write_bytes(data[: len(data) // 12])
    with pytest.raises(
        BagError, match=r"the readable part of .*cut.bag contains no image .* damaged or was not closed"
    ):
        open_source(tmp_path / "cut.bag")
