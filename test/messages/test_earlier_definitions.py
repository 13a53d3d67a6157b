"""Bags recorded earlier: fields are only appended to our messages, and a bag is read by its own definitions.

`earlier/` holds our messages as bags of November 2026 carry them, before `MatcherStatus.scale_sources`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rosbags.rosbag2 import Reader, StoragePlugin, Writer
from rosbags.serde import SerdeError
from rosbags.typesys import Stores, get_types_from_msg, get_typestore
from rosbags.typesys.store import Typestore

from ros2_densematch.geometry.correspondences import Correspondences
from ros2_densematch.geometry.trajectory import Trajectory
from ros2_densematch.io.exports.replay_result import read_frame_results
from ros2_densematch.io.results.relative_poses import RelativePosesCsv
from ros2_densematch.io.results.tum import write_tum
from ros2_densematch.messages.conversions import header_message, time_message
from ros2_densematch.messages.definitions import message_definitions
from ros2_densematch.messages.tracked import status_message
from ros2_densematch.messages.typestore import recorded_typestore, ros2_typestore
from ros2_densematch.tracking.tracked_frame import Status, TrackedFrame

EARLIER = Path(__file__).parent / "earlier"
NAMES = sorted(path.stem for path in EARLIER.glob("*.msg"))
LATER = "float32 added_later                         # of a version to come\n"
STAMP = 1_700_000_000_000_000_000


def store_of(definitions: dict[str, str]) -> Typestore:
    """The common types and ours with these definitions."""
    store = get_typestore(Stores.ROS2_JAZZY)
    for name, text in definitions.items():
        store.register(get_types_from_msg(text, name))
    return store


def without_last_field(text: str) -> str:
    lines = text.rstrip().splitlines()
    while not lines[-1].split("#")[0].strip():
        lines.pop()
    return "\n".join(lines[:-1]) + "\n"


@pytest.mark.parametrize("name", NAMES)
def test_fields_are_only_appended(name: str) -> None:
    kind = f"densematch/msg/{name}"
    earlier = store_of({kind: (EARLIER / f"{name}.msg").read_text("utf-8")}).fielddefs[kind][1]
    assert ros2_typestore().fielddefs[kind][1][: len(earlier)] == earlier


def message_in(store: Typestore, kind: str, today: Any) -> Any:
    """A message of today with the fields that this store knows; 0 in those that are not known today."""
    return store.types[kind](**{name: getattr(today, name, 0.0) for name, _ in store.fielddefs[kind][1]})


def write_bag(folder: Path, store: Typestore, storage: StoragePlugin, messages: dict[str, Any]) -> None:
    """A bag of one message a topic, of its own definitions."""
    with Writer(folder, version=8, storage_plugin=storage) as writer:
        for topic, message in messages.items():
            kind = message.__msgtype__
            connection = writer.add_connection(topic, kind, typestore=store)
            writer.write(connection, STAMP, bytes(store.serialize_cdr(message_in(store, kind, message), kind)))


def matches_message(matches: Correspondences) -> Any:
    none = np.zeros(0, np.float32)
    return ros2_typestore().types["densematch/msg/Correspondences"](
        header=header_message(STAMP, "camera"), reference_stamp=time_message(STAMP - 10**8),
        reference_frame_id="camera", reference_keyframe_id=0, query_width=64, query_height=48, reference_width=64,
        reference_height=48, rectified=True, matcher="sift", query_xy=matches.query_xy.ravel(),
        reference_xy=matches.reference_xy.ravel(), score=matches.score, precision=none,
        track_id=np.zeros(0, np.int32), inlier=np.array([1, 0, 1], np.uint8), overlap=0.5,
    )  # fmt: skip


@pytest.fixture
def matches() -> Correspondences:
    xy = np.arange(6, dtype=np.float32).reshape(3, 2)
    return Correspondences(xy, xy + 1, np.array([0.9, 0.8, 0.7], np.float32), 0.5, (64, 48), (64, 48))


@pytest.mark.parametrize("version", ["earlier", "today", "later"])
def test_a_result_is_read_by_the_definitions_of_its_own_bag(
    tmp_path: Path, matches: Correspondences, version: str
) -> None:
    kind = "densematch/msg/Correspondences"
    today = message_definitions()[kind]
    text = {"earlier": without_last_field(today), "today": today, "later": today + LATER}[version]
    write_bag(
        tmp_path / "bag", store_of({kind: text}), StoragePlugin.MCAP,
        {"/matcher/correspondences": matches_message(matches)},
    )  # fmt: skip
    tracked = TrackedFrame(
        1, STAMP, Status.TRACKED, "tracked", 0, 0, STAMP - 10**8, matches, T_world_from_camera=np.eye(4)
    )
    with RelativePosesCsv(tmp_path / "relative_poses.csv") as table:
        table.write(tracked)
    write_tum(tmp_path / "trajectory.tum", Trajectory(np.array([STAMP]), np.eye(4)[None]))
    (tmp_path / "summary.json").write_text(json.dumps({"command": "replay", "files": ["trajectory.tum"]}))
    (found,) = read_frame_results(tmp_path)
    np.testing.assert_array_equal(found.query_xy, matches.query_xy)
    np.testing.assert_array_equal(found.reference_xy, matches.reference_xy)
    np.testing.assert_array_equal(found.inlier, [True, False, True])


@pytest.mark.parametrize("storage", [StoragePlugin.MCAP, StoragePlugin.SQLITE3])
def test_a_status_of_earlier_is_read_with_the_fields_that_it_has(tmp_path: Path, storage: StoragePlugin) -> None:
    kind = "densematch/msg/MatcherStatus"
    earlier = store_of({kind: (EARLIER / "MatcherStatus.msg").read_text("utf-8")})
    status = status_message(TrackedFrame(7, STAMP, Status.LOST, "too few matches"), frame_id="cam", frames_refused=3)
    write_bag(tmp_path / "bag", earlier, storage, {"/matcher/status": status})
    with Reader(tmp_path / "bag") as reader:
        (connection,) = reader.connections
        ((_, _, data),) = reader.messages()
        carried = connection.msgdef.data
    read = recorded_typestore(((kind, carried),)).deserialize_cdr(data, kind)
    assert (read.reason, read.frame_index, read.frames_refused) == ("too few matches", 7, 3)
    assert not hasattr(read, "scale_sources")
    with pytest.raises(SerdeError, match="buffer"):  # by today's definition the bytes end too early
        ros2_typestore().deserialize_cdr(data, kind)


def test_a_bag_that_carries_no_definition_is_read_by_todays() -> None:
    kind = "densematch/msg/MatcherStatus"
    status = status_message(TrackedFrame(7, STAMP, Status.LOST, "why"), frame_id="cam", scale_sources="depth /d")
    data = ros2_typestore().serialize_cdr(status, kind)
    assert recorded_typestore(((kind, ""),)).deserialize_cdr(data, kind).scale_sources == "depth /d"
