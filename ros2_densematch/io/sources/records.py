"""Serialised messages out of a bag of any kind, intact or damaged, one at a time.

`storage.open_records` makes a `Records` of a folder or a file. Whatever cannot be read any more ends the stream with a
warning; what came before it is delivered.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from ros2_densematch.messages.typestore import ros1_typestore, ros2_typestore

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
