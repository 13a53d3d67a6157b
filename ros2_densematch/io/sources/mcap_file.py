"""Intact MCAP files that rosbags does not take: of ROS 1, or with channels of other kinds beside those of ROS 2."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path
from typing import IO

from ros2_densematch.io.sources.records import Record, Topic, ros2_type


class McapFile:
    """An MCAP file with its summary (mcap.dev/spec), read by `mcap`.

    Raises (on construction):
        Exception: whatever `mcap` raises, and ValueError where the file has no summary; rescue readers come next.
    """

    def __init__(self, path: Path):
        from mcap.reader import SeekingReader

        self._path = path
        self.problem = ""
        with path.open("rb") as stream:
            self._check_end(stream)
            summary = SeekingReader(stream).get_summary()
        if summary is None or summary.statistics is None or (summary.statistics.message_count and not summary.channels):
            raise ValueError("it has no summary")
        counts = summary.statistics.channel_message_counts
        self.topics: dict[str, Topic] = {}
        for channel in summary.channels.values():
            schema = summary.schemas.get(channel.schema_id)
            known = self.topics.get(channel.topic)
            count = counts.get(channel.id, 0) + (known.count or 0 if known is not None else 0)
            kind = ros2_type("" if schema is None else schema.name, channel.message_encoding)
            self.topics[channel.topic] = Topic(channel.topic, kind, count, channel.message_encoding)

    def records(self, topics: Collection[str], start_ns: int | None, stop_ns: int | None) -> Iterator[Record]:
        from mcap.reader import SeekingReader

        try:
            with self._path.open("rb") as stream:
                reader = SeekingReader(stream)
                for _, channel, message in reader.iter_messages(list(topics), start_ns, stop_ns):
                    kind = self.topics[channel.topic].type
                    yield Record(channel.topic, kind, message.log_time, message.data)
        except Exception as error:  # noqa: BLE001 - mcap raises struct, Unicode, codec and its own errors
            self.problem = f"{self._path.name} is damaged ({error}): it was read up to the damage"

    @staticmethod
    def _check_end(stream: IO[bytes]) -> None:
        magic = b"\x89MCAP0\r\n"
        if stream.read(8) != magic:
            raise ValueError("it does not start like an MCAP file")
        stream.seek(-8, 2)
        if stream.read(8) != magic:
            raise ValueError("it does not end like an MCAP file")
        stream.seek(0)
