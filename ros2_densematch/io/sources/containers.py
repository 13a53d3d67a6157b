"""Whether a video file is complete, by its container's own structure: MP4 and QuickTime, AVI, Matroska and WebM."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

_EBML, _SEGMENT = 0x1A45DFA3, 0x18538067


def cut_short(path: Path) -> str:
    """What is missing of a video, in words with the numbers; "" where nothing is, or the container does not tell."""
    size = path.stat().st_size
    with path.open("rb") as stream:
        head = stream.read(12)
        stream.seek(0)
        if head[4:8] in (b"ftyp", b"moov", b"mdat", b"wide", b"free"):
            parts = _boxes(stream, size)
        elif head[:4] == b"RIFF":
            parts = _riffs(stream, size)
        elif head[:4] == b"\x1a\x45\xdf\xa3":
            parts = _elements(stream, size)
        else:
            return ""
        for name, end in parts:
            if end > size:
                return f"the file ends inside {name}, {end - size} bytes are missing"
    return ""


def is_trimmed(path: Path) -> bool:
    """Whether an MP4 or QuickTime file shows a part of its frames only, by its edit list (ISO 14496-12, 8.6.6)."""
    size = path.stat().st_size
    with path.open("rb") as stream:
        try:
            for track in _inside(stream, 0, size, b"moov", b"trak"):
                times = [_duration_s(stream, *box) for box in _inside(stream, *track, b"mdia", b"mdhd")]
                movie = [_timescale(stream, *box) for box in _inside(stream, 0, size, b"moov", b"mvhd")]
                edits = [_edits(stream, *box) for box in _inside(stream, *track, b"edts", b"elst")]
                kinds = [_at(stream, at + 8, ">4s")[0] for at, _ in _inside(stream, *track, b"mdia", b"hdlr")]
                if kinds[:1] == [b"vide"] and times and movie and edits:
                    shown = sum(length for length, start in edits[0] if start >= 0) / movie[0]
                    return bool(shown < 0.99 * times[0] and shown > 0)
        except (struct.error, ZeroDivisionError):
            return False
    return False


def _inside(stream: BinaryIO, begin: int, end: int, *names: bytes) -> Iterator[tuple[int, int]]:
    """(begin, end) of the contents of the boxes on this path of names."""
    at = begin
    while at + 8 <= end:
        length, kind = _at(stream, at, ">I4s")
        head = 8
        if length == 1:
            (length,), head = _at(stream, at + 8, ">Q"), 16
        stop = end if length == 0 else min(at + max(length, 8), end)
        if kind == names[0]:
            if len(names) == 1:
                yield at + head, stop
            else:
                yield from _inside(stream, at + head, stop, *names[1:])
        at = stop


def _at(stream: BinaryIO, at: int, form: str) -> tuple[Any, ...]:
    stream.seek(at)
    return struct.unpack(form, stream.read(struct.calcsize(form)))


def _timescale(stream: BinaryIO, at: int, _end: int) -> int:
    return int(_at(stream, at, ">B3xQQI" if _at(stream, at, ">B")[0] == 1 else ">B3xIII")[-1])


def _duration_s(stream: BinaryIO, at: int, _end: int) -> float:
    *_, scale, duration = _at(stream, at, ">B3xQQIQ" if _at(stream, at, ">B")[0] == 1 else ">B3xIIII")
    return float(duration) / float(scale)


def _edits(stream: BinaryIO, at: int, end: int) -> list[tuple[int, int]]:
    """(duration, first time of the media; -1 = nothing is shown) of each edit."""
    version, count = _at(stream, at, ">B3xI")
    form = ">QqHH" if version == 1 else ">IiHH"
    size = struct.calcsize(form)
    count = min(count, (end - at - 8) // size)
    found = [_at(stream, at + 8 + i * size, form) for i in range(count)]
    return [(length, start) for length, start, *_ in found]


def _boxes(stream: BinaryIO, size: int) -> Iterator[tuple[str, int]]:
    """Boxes of the top level (ISO 14496-12, 4.2) with the place where they end."""
    at = 0
    while at + 8 <= size:
        stream.seek(at)
        length, kind = struct.unpack(">I4s", stream.read(8))
        if length == 1:
            extended = stream.read(8)
            length = struct.unpack(">Q", extended)[0] if len(extended) == 8 else 16
        if length == 0:  # to the end of the file
            return
        at += max(length, 8)
        yield f"the box {kind.decode('ascii', 'replace')!r}", at


def _riffs(stream: BinaryIO, size: int) -> Iterator[tuple[str, int]]:
    """RIFF lists of the top level; long AVI files have several."""
    at = 0
    while at + 8 <= size:
        stream.seek(at)
        name, length = struct.unpack("<4sI", stream.read(8))
        if name != b"RIFF":
            return
        at += 8 + length + length % 2
        yield "the RIFF list", at - length % 2


def _elements(stream: BinaryIO, size: int) -> Iterator[tuple[str, int]]:
    """Elements of the top level (RFC 8794): the header and the segment; one of unknown size tells nothing."""
    at = 0
    while at < size:
        stream.seek(at)
        kind, _ = _number(stream, keep_marker=True)
        length, unknown = _number(stream, keep_marker=False)
        if kind not in (_EBML, _SEGMENT) or unknown:
            return
        at = stream.tell() + length
        yield "the segment" if kind == _SEGMENT else "the header", at


def _number(stream: BinaryIO, *, keep_marker: bool) -> tuple[int, bool]:
    """An EBML variable-size number, and whether all its bits are set (an unknown size)."""
    first = stream.read(1)
    if not first or first[0] == 0:
        return 0, True
    extra = 8 - first[0].bit_length()
    value = first[0] if keep_marker else first[0] & ((1 << (7 - extra)) - 1)
    for byte in stream.read(extra):
        value = value << 8 | byte
    return value, value == (1 << (7 * (extra + 1))) - 1
