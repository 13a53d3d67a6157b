"""Rescue readers: what can still be read of a bag that was cut, not closed, or lost its index.

Each scans its file from the front (one pass for the topics, one per reading, nothing kept in memory but the record
at hand) and stops at the first damage, with the reason in `problem`.
"""

from __future__ import annotations

import bz2
import copy
import io
import sqlite3
import struct
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import BinaryIO

from ros2_densematch.io.sources.contents import what_it_is
from ros2_densematch.io.sources.records import BagError, Record, Topic, ros2_type


class _Rescue:
    """The common part: `_scan` yields (topic, type, time, data) and sets `_damage` when it stops early."""

    def __init__(self, path: Path, reason: str):
        self._path = path
        self._damage = ""
        self._closed = False  # the file's own end was reached
        self._declared: dict[str, tuple[str, str]] = {}  # topic -> type and encoding
        counts: dict[str, int] = {}
        for record in self._scan(None):
            counts[record.topic] = counts.get(record.topic, 0) + 1
        if not counts and not self._closed:
            raise BagError(
                f"nothing can be read of {path} ({what_it_is(path) or self._damage or reason}): "
                "check that it is a complete download or recording of this kind"
            )
        self.topics = {
            name: Topic(name, kind, counts.get(name, 0), encoding) for name, (kind, encoding) in self._declared.items()
        }
        where = f"; {self._damage}" if self._damage else ""
        if self._closed and not self._damage:
            self.problem = ""  # it lacks nothing but an index
            return
        self.problem = (
            f"{path.name} is damaged or was not closed ({reason}{where}): {sum(counts.values())} messages could be "
            f"read from its start"
        )

    def records(self, topics: Collection[str], start_ns: int | None, stop_ns: int | None) -> Iterator[Record]:
        fresh = copy.copy(self)  # several readings may be under way at once
        fresh._damage = ""
        for record in fresh._scan(frozenset(topics)):
            if (start_ns is None or record.log_time_ns >= start_ns) and (
                stop_ns is None or record.log_time_ns < stop_ns
            ):
                yield record

    def _scan(self, topics: frozenset[str] | None) -> Iterator[Record]:
        raise NotImplementedError


def _cut(have: int, want: int, what: str) -> str:
    return f"the file ends inside {what} ({have} of {want} bytes)"


class McapRescue(_Rescue):
    """MCAP (mcap.dev/spec) without its summary: records in file order; of a cut chunk the messages before the cut.

    The framing (operation code, 64-bit length) is walked here because `mcap`'s StreamReader gives up a cut chunk
    whole; the records themselves are parsed by `mcap`.
    """

    def _scan(self, topics: frozenset[str] | None) -> Iterator[Record]:
        from mcap.opcode import Opcode

        schemas: dict[int, str] = {}
        channels: dict[int, str] = {}
        with self._path.open("rb") as stream:
            if stream.read(8) != b"\x89MCAP0\r\n":
                self._damage = "it does not start like an MCAP file"
                return
            for opcode, body, whole in self._frames(stream):
                if opcode in (Opcode.DATA_END, Opcode.FOOTER):
                    stream.seek(-8, io.SEEK_END)
                    self._closed = stream.read(8) == b"\x89MCAP0\r\n"
                    return
                if opcode == Opcode.CHUNK:
                    inner = self._chunk(body)
                    for code, part, part_whole in self._frames(io.BytesIO(inner)):
                        if part_whole:
                            yield from self._record(code, part, schemas, channels, topics)
                        if self._damage:
                            return
                elif whole:
                    yield from self._record(opcode, body, schemas, channels, topics)
                if self._damage:
                    return

    def _frames(self, stream: BinaryIO) -> Iterator[tuple[int, bytes, bool]]:
        while True:
            head = stream.read(9)
            if len(head) < 9:
                if head:
                    self._damage = self._damage or _cut(len(head), 9, "a record's head")
                return
            opcode, length = struct.unpack("<BQ", head)
            if opcode == 0:
                self._damage = "a record has operation code 0"
                return
            # Read at most what is there: a damaged length must not allocate terabytes.
            here = stream.tell()
            end = stream.seek(0, io.SEEK_END)
            stream.seek(here)
            body = stream.read(min(length, end - here))
            yield opcode, body, len(body) == length
            if len(body) < length:
                self._damage = self._damage or _cut(len(body), length, "a record")
                return

    def _chunk(self, body: bytes) -> bytes:
        """The uncompressed records of a chunk, as far as they are there."""
        if len(body) < 32:
            return b""
        size = struct.unpack_from("<I", body, 28)[0]
        compression = body[32 : 32 + size].decode("ascii", "replace")
        data = body[32 + size + 8 :]
        try:
            return _decompress(data, compression)
        except Exception as error:  # noqa: BLE001 - each codec has errors of its own
            self._damage = self._damage or f"a chunk cannot be decompressed ({error})"
            return b""

    def _record(
        self,
        opcode: int,
        body: bytes,
        schemas: dict[int, str],
        channels: dict[int, str],
        topics: frozenset[str] | None,
    ) -> Iterator[Record]:
        from mcap.data_stream import ReadDataStream
        from mcap.opcode import Opcode
        from mcap.records import Channel, Message, Schema

        if opcode not in (Opcode.SCHEMA, Opcode.CHANNEL, Opcode.MESSAGE):
            return
        stream = ReadDataStream(io.BytesIO(body))
        try:
            if opcode == Opcode.SCHEMA:
                schema = Schema.read(stream)
                schemas[schema.id] = schema.name
            elif opcode == Opcode.CHANNEL:
                channel = Channel.read(stream)
                encoding = channel.message_encoding
                channels[channel.id] = channel.topic
                self._declared[channel.topic] = ros2_type(schemas.get(channel.schema_id, ""), encoding), encoding
            else:
                message = Message.read(stream, len(body))
                name = channels.get(message.channel_id, "")
                if name and (topics is None or name in topics):
                    yield Record(name, self._declared[name][0], message.log_time, message.data)
        except Exception as error:  # noqa: BLE001 - mcap raises struct, Unicode and its own errors
            self._damage = f"a record cannot be parsed ({error})"


def _decompress(data: bytes, compression: str) -> bytes:
    """As much as a cut stream still gives."""
    if compression in ("", "none"):
        return data
    if compression == "zstd":
        import zstandard

        return zstandard.ZstdDecompressor().decompressobj().decompress(data)
    if compression == "lz4":
        import lz4.frame  # type: ignore[import-untyped]  # it has no stubs

        return bytes(lz4.frame.LZ4FrameDecompressor().decompress(data))
    if compression == "bz2":
        return bz2.BZ2Decompressor().decompress(data)
    raise ValueError(f"compression {compression!r} is unknown")


class SqliteRescue(_Rescue):
    """A rosbag2 sqlite3 file with pages missing: rows of `messages` in the order of recording up to the first hole."""

    def _scan(self, topics: frozenset[str] | None) -> Iterator[Record]:
        try:
            connection = sqlite3.connect(f"{self._path.resolve().as_uri()}?mode=ro&immutable=1", uri=True)
        except sqlite3.Error as error:
            self._damage = str(error)
            return
        try:
            # SQLite refuses a file that is shorter than its header says, unless this is set; nothing is written.
            connection.execute("PRAGMA writable_schema=ON")
            rows = connection.execute("SELECT id, name, type FROM topics")
            known = {row[0]: (str(row[1]), ros2_type(str(row[2]))) for row in rows}
            self._declared = {name: (kind, "cdr") for name, kind in known.values()}
            # NOT INDEXED: the index on the time may lie behind the cut.
            rows = connection.execute("SELECT topic_id, timestamp, data FROM messages NOT INDEXED ORDER BY rowid")
            for topic_id, time_ns, data in rows:
                name, kind = known.get(topic_id, ("", ""))
                # A damaged row may hold values of any type.
                if not (isinstance(time_ns, int) and isinstance(data, bytes)):
                    self._damage = "a row holds no message"
                    return
                if name and (topics is None or name in topics):
                    yield Record(name, kind, time_ns, data)
        except sqlite3.Error as error:
            self._damage = str(error)
        finally:
            connection.close()


class Ros1Rescue(_Rescue):
    """A ROS 1 bag (format 2.0) without its index, read chunk by chunk; of a cut chunk the messages before the cut."""

    _MESSAGE, _CHUNK, _CONNECTION = 2, 5, 7

    def _scan(self, topics: frozenset[str] | None) -> Iterator[Record]:
        connections: dict[int, tuple[str, str]] = {}
        with self._path.open("rb") as stream:
            if stream.readline(32) != b"#ROSBAG V2.0\n":
                self._damage = "it does not start like a ROS 1 bag of format 2.0"
                return
            size = stream.seek(0, io.SEEK_END)
            stream.seek(13)
            yield from self._records(stream, size, connections, topics)

    def _records(
        self, stream: BinaryIO, size: int, connections: dict[int, tuple[str, str]], topics: frozenset[str] | None
    ) -> Iterator[Record]:
        from rosbags.typesys.msg import normalize_msgtype

        while stream.tell() < size:
            head, whole = self._sized(stream, size, "a record's header")
            header = self._fields(head) if whole else None
            if header is None:
                return
            code = header.get(b"op", b"\0")[:1]
            data, whole = self._sized(stream, size, "a record")
            if code == bytes([self._CHUNK]):
                # Of a cut chunk the records before the cut are still there.
                try:
                    inner = _decompress(data, header.get(b"compression", b"none").decode("ascii", "replace"))
                except Exception as error:  # noqa: BLE001 - each codec has errors of its own
                    self._damage = self._damage or f"a chunk cannot be decompressed ({error})"
                    return
                yield from self._records(io.BytesIO(inner), len(inner), connections, topics)
                if self._damage:
                    return
            elif whole and code == bytes([self._CONNECTION]) and len(header.get(b"conn", b"")) == 4:
                kind = (self._fields(data) or {}).get(b"type", b"").decode("utf-8", "replace")
                name = header.get(b"topic", b"").decode("utf-8", "replace")
                kind = normalize_msgtype(kind) if kind else ""
                connections[int.from_bytes(header[b"conn"], "little")] = (name, kind)
                self._declared[name] = (kind, "ros1")
            elif whole and code == bytes([self._MESSAGE]) and len(header.get(b"time", b"")) == 8:
                name, kind = connections.get(int.from_bytes(header.get(b"conn", b""), "little"), ("", ""))
                seconds, nanoseconds = struct.unpack("<II", header[b"time"])
                if name and (topics is None or name in topics):
                    yield Record(name, kind, seconds * 10**9 + nanoseconds, data)
            if not whole:
                return

    def _sized(self, stream: BinaryIO, size: int, what: str) -> tuple[bytes, bool]:
        """A 32-bit length and that many bytes, or what is there of them; whether they are all there."""
        head = stream.read(4)
        if len(head) < 4:
            self._damage = self._damage or _cut(len(head), 4, "a length")
            return b"", False
        length = struct.unpack("<I", head)[0]
        data = stream.read(min(length, size - stream.tell()))
        if len(data) < length:
            self._damage = self._damage or _cut(len(data), length, what)
        return data, len(data) == length

    def _fields(self, data: bytes) -> dict[bytes, bytes] | None:
        """The fields of a header, or None where they cannot be parsed."""
        fields: dict[bytes, bytes] = {}
        at = 0
        while at + 4 <= len(data):
            length = struct.unpack_from("<I", data, at)[0]
            name, equals, value = data[at + 4 : at + 4 + length].partition(b"=")
            if not equals or at + 4 + length > len(data):
                self._damage = self._damage or "a record's header cannot be parsed"
                return None
            fields[name] = value
            at += 4 + length
        return fields
