"""Bags that were cut, not closed, or lost their metadata are read up to the damage."""

from __future__ import annotations

import shutil
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rosbags.rosbag2 import CompressionMode, StoragePlugin, Writer
from rosbags.rosbag2.enums import CompressionFormat

from ros2_densematch.io.sources.opening import open_source
from ros2_densematch.io.sources.records import BagError
from ros2_densematch.io.sources.storage import open_records
from ros2_densematch.messages.typestore import ros1_typestore, ros2_typestore

BAGS = {
    "mcap": ("rosbag/tum_fr1_rpy_mcap/tum_fr1_rpy_mcap.mcap", 150),
    "sqlite3": ("rosbag/kitti_a_sqlite3/kitti_a_sqlite3.db3", 16),
    "ros1": ("rosbag/real_t265_ros1/trimmed_locoffice.bag", 3),
}


def cut(source: Path, target: Path, share: float) -> Path:
    data = source.read_bytes()
    target.write_bytes(data[: int(len(data) * share)])
    return target


@pytest.mark.parametrize("kind", BAGS)
def test_a_bag_cut_in_half_gives_its_first_half_with_a_warning(kind: str, shared_data, tmp_path: Path) -> None:
    path, frames = BAGS[kind]
    whole = shared_data.need(path)
    expected = [frame.stamp_ns for frame in open_source(whole)]
    assert len(expected) == frames
    source = open_source(cut(whole, tmp_path / whole.name, 0.5))
    got = list(source)
    assert 0.3 * frames <= len(got) <= 0.7 * frames
    assert [frame.stamp_ns for frame in got] == expected[: len(got)]
    assert any("damaged" in text and whole.name in text for text in source.warnings)
    assert source.dropped == 0
    assert len(list(source)) == len(got), "a second reading gives the same frames"


@pytest.mark.parametrize("kind", BAGS)
def test_wherever_a_bag_is_cut_there_are_frames_or_one_clear_error(kind: str, shared_data, tmp_path: Path) -> None:
    whole = shared_data.need(BAGS[kind][0])
    counts = []
    for step, share in enumerate((0.0, 0.00001, 0.001, 0.01, 0.2, 0.6, 0.9, 0.999)):
        try:
            records = open_records(cut(whole, tmp_path / f"{step}{whole.suffix}", share))
        except BagError:
            counts.append(0)
            continue
        counts.append(sum(1 for _ in records.read(list(records.topics))))
        assert len(records.warnings) == 1
    assert counts == sorted(counts)
    assert counts[-1] > counts[5] > 0


@pytest.mark.parametrize("kind", ["mcap", "sqlite3"])
def test_a_folder_without_its_metadata_is_read_whole_with_a_warning(kind: str, shared_data, tmp_path: Path) -> None:
    path, frames = BAGS[kind]
    shutil.copy(shared_data.need(path), tmp_path)
    source = open_source(tmp_path)
    assert sum(1 for _ in source) == frames
    assert source.ground_truth is not None
    assert len(source.ground_truth.stamps_ns) == frames
    assert [text for text in source.warnings if "no metadata.yaml" in text]


def test_damaged_metadata_does_not_matter(shared_data, tmp_path: Path) -> None:
    shutil.copy(shared_data.need(BAGS["sqlite3"][0]), tmp_path)
    (tmp_path / "metadata.yaml").write_text("rosbag2_bagfile_information: {version: [")
    source = open_source(tmp_path)
    assert sum(1 for _ in source) == 16
    assert "metadata.yaml" in source.warnings[0]


def test_damage_in_the_middle_of_a_closed_mcap_ends_the_reading_there(shared_data, tmp_path: Path) -> None:
    whole = shared_data.need(BAGS["mcap"][0])
    data = bytearray(whole.read_bytes())
    data[len(data) // 2 : len(data) // 2 + 300_000] = bytes(300_000)
    (tmp_path / "hit.mcap").write_bytes(data)
    source = open_source(tmp_path / "hit.mcap")
    assert 30 <= sum(1 for _ in source) < 150
    assert any("damaged" in text for text in source.warnings)


@pytest.mark.parametrize("mode", [CompressionMode.MESSAGE, CompressionMode.STORAGE])
def test_a_cut_compressed_mcap_still_gives_its_beginning(mode: CompressionMode, tmp_path: Path) -> None:
    import numpy as np

    store = ros2_typestore()
    image, header, time = (
        store.types[f"{name}"]
        for name in ("sensor_msgs/msg/Image", "std_msgs/msg/Header", "builtin_interfaces/msg/Time")
    )
    rng = np.random.default_rng(0)
    writer = Writer(tmp_path / "bag", version=8, storage_plugin=StoragePlugin.MCAP)
    writer.set_compression(mode, CompressionFormat.ZSTD)
    with writer:
        connection = writer.add_connection("/image", "sensor_msgs/msg/Image", typestore=store)
        for i in range(40):
            pixels = rng.integers(0, 255, 160 * 120).astype(np.uint8)
            message = image(header(time(sec=i + 1, nanosec=0), "cam"), 120, 160, "mono8", 0, 160, pixels)
            writer.write(connection, (i + 1) * 10**9, store.serialize_cdr(message, "sensor_msgs/msg/Image"))
    whole = tmp_path / "bag" / "bag.mcap"
    source = open_source(cut(whole, tmp_path / "half.mcap", 0.5))
    frames = list(source)
    assert 10 <= len(frames) < 40
    assert frames[0].image.shape == (120, 160)
    assert source.dropped == 0


def test_what_is_no_bag_is_refused_with_one_clear_error(tmp_path: Path) -> None:
    for suffix in (".mcap", ".db3", ".bag"):
        path = tmp_path / f"text{suffix}"
        path.write_text("this is no bag\n" * 100)
        with pytest.raises(BagError, match=f"text{suffix}"):
            open_records(path)
    (tmp_path / "packed").mkdir()
    (tmp_path / "packed" / "metadata.yaml").write_text("a: 1")
    (tmp_path / "packed" / "a_0.db3.zstd").write_bytes(b"")
    with pytest.raises(BagError, match="zstd -d"):
        open_records(tmp_path / "packed")


# --- properties -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def small_bags(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """Bags of a few messages, of every kind."""
    from rosbags.rosbag1 import Writer as Writer1

    folder = tmp_path_factory.mktemp("small")
    name, values = "geometry_msgs/msg/Point", [(float(i), 0.0, 1.0) for i in range(8)]
    store = ros2_typestore()
    found = {}
    for suffix, plugin in ((".mcap", StoragePlugin.MCAP), (".db3", StoragePlugin.SQLITE3)):
        with Writer(folder / suffix[1:], version=8, storage_plugin=plugin) as writer:
            connection = writer.add_connection("/points", name, typestore=store)
            for i, xyz in enumerate(values):
                writer.write(connection, i * 10**9, store.serialize_cdr(store.types[name](*xyz), name))
        found[suffix] = next((folder / suffix[1:]).glob(f"*{suffix}")).read_bytes()
    store1 = ros1_typestore()
    with Writer1(folder / "a.bag") as writer1:
        connection = writer1.add_connection("/points", name, typestore=store1)
        for i, xyz in enumerate(values):
            writer1.write(connection, i * 10**9, store1.serialize_ros1(store1.types[name](*xyz), name))
    found[".bag"] = (folder / "a.bag").read_bytes()
    return found


@settings(max_examples=120, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    suffix=st.sampled_from([".mcap", ".db3", ".bag"]),
    changes=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), max_size=4),
    keep=st.floats(0.5, 1),
)
def test_any_damage_gives_messages_or_the_one_error(
    small_bags: dict[str, bytes], tmp_path: Path, suffix: str, changes: list[tuple[float, int]], keep: float
) -> None:
    data = bytearray(small_bags[suffix])
    for at, value in changes:
        data[int(at * len(data))] = value
    path = tmp_path / f"a{suffix}"
    path.write_bytes(data[: max(1, int(keep * len(data)))])
    try:
        records = open_records(path)
    except BagError as error:
        assert str(path) in str(error)  # noqa: PT017 - both outcomes are right
        return
    for record in records.read(list(records.topics)):
        with suppress(BagError):
            records.decode(record)


def test_a_whole_small_bag_gives_all_its_messages(small_bags: dict[str, bytes], tmp_path: Path) -> None:
    for suffix, data in small_bags.items():
        (tmp_path / f"a b#{suffix}").write_bytes(data)
        records = open_records(tmp_path / f"a b#{suffix}")
        assert [records.decode(record).x for record in records.read(["/points"])] == list(range(8))
