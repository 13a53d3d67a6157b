"""Serialised messages out of a bag of any kind, intact or damaged, one at a time.

A folder or a file, rosbag2 (MCAP, sqlite3) or ROS 1: `open_records` gives a `Records`. Whatever cannot be read any
more ends the stream with a warning; what came before it is delivered.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from ros2_densematch.messages.typestore import ros1_typestore, ros2_typestore

SUFFIXES = (".mcap", ".db3", ".bag", ".active")
_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"


class BagError(ValueError):
    """A bag that cannot be read at all, or lacks what was asked for; the message names the remedy."""


@dataclass(frozen=True)
class Topic:
    """A topic of a bag: ROS 2 type name, number of messages (None = not known before reading)."""

    name: str
    type: str
    count: int | None


class Record(NamedTuple):
    """One serialised message: topic, ROS 2 type name, time of recording in nanoseconds, bytes."""

    topic: str
    type: str
    log_time_ns: int
    data: bytes


class StorageFile(Protocol):
    """One storage file of a bag (or a rosbag2 folder with its metadata)."""

    topics: dict[str, Topic]
    problem: str  # why it is read in rescue mode, or why reading ended; empty = nothing

    def records(self, topics: Collection[str], start_ns: int | None, stop_ns: int | None) -> Iterator[Record]:
        """Messages of these topics in the order of recording, from `start_ns` on and before `stop_ns`."""
        ...


class Records:
    """The messages of a bag.

    Attributes:
        topics: all topics, by name.
        warnings: what is wrong with the bag, one sentence each, no sentence twice.
        ros1: whether messages are serialised as in ROS 1.
    """

    def __init__(self, path: Path, files: list[StorageFile], warnings: list[str], *, ros1: bool):
        self.path = path
        self.ros1 = ros1
        self.warnings = warnings
        self._files = files
        self._store = ros1_typestore() if ros1 else ros2_typestore()
        self.topics: dict[str, Topic] = {}
        for file in files:
            for name, topic in file.topics.items():
                known = self.topics.get(name)
                count = topic.count
                if known is not None:
                    count = None if known.count is None or count is None else known.count + count
                self.topics[name] = Topic(name, topic.type, count)
        self._note_problems()

    def read(
        self, topics: Collection[str], start_ns: int | None = None, stop_ns: int | None = None
    ) -> Iterator[Record]:
        """Messages of these topics; reading ends at damage, which is then named in `warnings`."""
        for file in self._files:
            present = [name for name in topics if name in file.topics]
            if present:
                yield from file.records(present, start_ns, stop_ns)
                self._note_problems()

    def first(self, topic: str) -> Record | None:
        """The first message of a topic, or None."""
        return next(self.read([topic]), None)

    def decode(self, record: Record) -> Any:
        """The message object.

        Raises:
            BagError: the bytes are no message of that type.
        """
        data = record.data
        try:
            if self.ros1:
                return self._store.deserialize_ros1(data, record.type)
            if bytes(data[:4]) == _ZSTD_MAGIC:  # compressed message by message; CDR starts with 00
                import zstandard

                data = zstandard.ZstdDecompressor().decompressobj().decompress(data)
            return self._store.deserialize_cdr(data, record.type)
        except Exception as error:  # noqa: BLE001 - damaged bytes make the parser fail in any way
            raise BagError(
                f"a message on {record.topic} at {record.log_time_ns / 1e9:.3f} s is no {record.type} "
                f"({type(error).__name__}: {error})"
            ) from None

    def describe_topics(self) -> str:
        """`/a (type), /b (type)`: for error messages."""
        return ", ".join(f"{t.name} ({t.type})" for _, t in sorted(self.topics.items())) or "none"

    def _note_problems(self) -> None:
        for file in self._files:
            if file.problem and file.problem not in self.warnings:
                self.warnings.append(file.problem)


class IntactFile:
    """A storage file (or rosbag2 folder) that rosbags can open.

    Raises (on construction):
        Exception: whatever rosbags raises; the caller then tries the rescue readers.
    """

    def __init__(self, path: Path):
        self._path = path
        self.problem = ""
        with self._open() as reader:
            self.topics = {
                name: Topic(name, info.msgtype or info.connections[0].msgtype, info.msgcount)
                for name, info in reader.topics.items()
            }

    def records(self, topics: Collection[str], start_ns: int | None, stop_ns: int | None) -> Iterator[Record]:
        try:
            with self._open() as reader:
                chosen = [c for c in reader.connections if c.topic in topics]
                if not chosen:
                    return
                for connection, time_ns, data in reader.messages(chosen, start_ns, stop_ns):
                    yield Record(connection.topic, connection.msgtype, time_ns, data)
        except Exception as error:  # noqa: BLE001 - storage back ends raise errors of many kinds on damaged files
            self.problem = f"{self._path.name} is damaged ({error}): it was read up to there"

    def _open(self) -> Any:
        if self._path.suffix in (".bag", ".active"):
            from rosbags.rosbag1 import Reader as Reader1

            return Reader1(self._path)
        from rosbags.rosbag2 import Reader as Reader2

        return Reader2(self._path)


def is_bag(path: Path) -> bool:
    """Whether the path looks like a bag: a storage file, or a folder with one or with metadata.yaml."""
    if path.is_dir():
        return bool(_storage_files(path)) or (path / "metadata.yaml").is_file()
    return path.suffix in SUFFIXES


def open_records(path: Path) -> Records:
    """Open a rosbag2 folder, a folder with ROS 1 bags, or a single .mcap, .db3 or .bag file.

    Raises:
        BagError: nothing can be read of it.
        FileNotFoundError: there is no such path.
    """
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist: check the path of the bag")
    if path.is_file():
        return Records(path, [_open_file(path)], [], ros1=path.suffix in (".bag", ".active"))
    warnings: list[str] = []
    files = _storage_files(path)
    ros1 = bool(files) and all(f.suffix in (".bag", ".active") for f in files)
    if not ros1:
        reason = "it has no metadata.yaml"
        if (path / "metadata.yaml").is_file():
            try:
                return Records(path, [IntactFile(path)], [], ros1=False)
            except Exception as error:  # noqa: BLE001 - a damaged folder can fail in many ways; the files come next
                reason = f"rosbags cannot open the folder ({error})"
        warnings.append(f"{path.name}: {reason}: its storage files are read one by one")
        files = [f for f in files if f.suffix in (".mcap", ".db3")]
    if not files:
        packed = [f.name for f in sorted(path.iterdir()) if f.suffix == ".zstd"]
        remedy = f"unpack {packed[0]} with `zstd -d` first" if packed else "give the folder or file of a recording"
        raise BagError(f"{path} holds no .mcap, .db3 or .bag file: {remedy}")
    opened: list[StorageFile] = []
    for file in files:
        try:
            opened.append(_open_file(file))
        except BagError as error:
            if len(files) == 1:
                raise
            warnings.append(f"{error}: this file is left out")
    if not opened:
        raise BagError(f"no file in {path} can be read: {'; '.join(warnings)}")
    return Records(path, opened, warnings, ros1=ros1)


def _open_file(path: Path) -> StorageFile:
    from ros2_densematch.io import damaged

    if path.suffix not in SUFFIXES:
        raise BagError(f"{path} is no bag: give a .mcap, .db3 or .bag file, or a bag's folder")
    try:
        return IntactFile(path)
    except PermissionError as error:
        raise BagError(f"{path} cannot be opened ({error.strerror}): change its permissions") from None
    except Exception as error:  # noqa: BLE001 - see IntactFile
        reason = str(error) or type(error).__name__
    rescue = {".mcap": damaged.McapRescue, ".db3": damaged.SqliteRescue}.get(path.suffix, damaged.Ros1Rescue)
    return rescue(path, reason)


def _storage_files(folder: Path) -> list[Path]:
    """In the order of recording: rosbag2 and rosbag number the files of a split bag."""

    def natural(path: Path) -> list[Any]:
        return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", path.name)]

    return sorted((f for f in folder.iterdir() if f.suffix in SUFFIXES and f.is_file()), key=natural)
