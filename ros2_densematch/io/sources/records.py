"""Serialised messages out of a bag of any kind, intact or damaged, one at a time.

`storage.open_records` makes a `Records` of a folder or a file. Whatever cannot be read any more ends the stream with a
warning; what came before it is delivered.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from ros2_densematch.messages.typestore import ros1_typestore, ros2_typestore

_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"


class BagError(ValueError):
    """A bag that cannot be read at all, or lacks what was asked for; the message names the remedy."""


@dataclass(frozen=True)
class Topic:
    """A topic of a bag: ROS 2 type name, number of messages (None = not known before reading), and its serialisation:
    "cdr" (ROS 2), "ros1", or the name of another one."""

    name: str
    type: str
    count: int | None
    encoding: str = "cdr"


def ros2_type(name: str, encoding: str = "cdr") -> str:
    """A message type as ROS 2 writes it: `sensor_msgs/Image` (ROS 1, older tools) is `sensor_msgs/msg/Image`.

    Args:
        name: as the file has it; types of other serialisations stay as they are.
        encoding: of the topic.
    """
    parts = name.split("/")
    return f"{parts[0]}/msg/{parts[1]}" if encoding in ("cdr", "ros1") and len(parts) == 2 else name


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
    """

    def __init__(self, path: Path, files: list[StorageFile], warnings: list[str]):
        self.path = path
        self.warnings = warnings
        self._files = files
        self.topics: dict[str, Topic] = {}
        for file in files:
            for name, topic in file.topics.items():
                known = self.topics.get(name)
                count = topic.count
                if known is not None:
                    count = None if known.count is None or count is None else known.count + count
                self.topics[name] = replace(topic, count=count)
        self._note_problems()

    def read(
        self, topics: Collection[str], start_ns: int | None = None, stop_ns: int | None = None
    ) -> Iterator[Record]:
        """Messages of these topics; reading ends at damage, which is then named in `warnings`."""
        for file in self._files:
            present = [name for name in topics if name in file.topics]
            if present:
                whole = start_ns is None and stop_ns is None
                yield from self._counted(file, present) if whole else file.records(present, start_ns, stop_ns)
                self._note_problems()

    def _counted(self, file: StorageFile, topics: list[str]) -> Iterator[Record]:
        """All messages of these topics; what the file announces is compared with what was there."""
        found = dict.fromkeys(topics, 0)
        for record in file.records(topics, None, None):
            found[record.topic] += 1
            yield record
        if file.problem:
            return
        for name, number in found.items():
            announced = file.topics[name].count
            if announced is not None and announced != number:
                text = f"{name}: {number} messages could be read, but {announced} are announced ({self.path.name})"
                if text not in self.warnings:
                    self.warnings.append(text)

    def first(self, topic: str) -> Record | None:
        """The first message of a topic, or None."""
        return next(self.read([topic]), None)

    def decode(self, record: Record) -> Any:
        """The message object.

        Raises:
            BagError: the bytes are no message of that type.
        """
        data = record.data
        encoding = self.topics[record.topic].encoding
        if encoding not in ("cdr", "ros1"):
            raise BagError(
                f"the messages on {record.topic} ({record.type or 'no type'}) are in {encoding or 'no'} encoding: only "
                "messages of ROS are read"
            )
        try:
            if encoding == "ros1":
                return ros1_typestore().deserialize_ros1(data, record.type)
            if bytes(data[:4]) == _ZSTD_MAGIC:  # compressed message by message; CDR starts with 00
                import zstandard

                data = zstandard.ZstdDecompressor().decompressobj().decompress(data)
            return ros2_typestore().deserialize_cdr(data, record.type)
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
