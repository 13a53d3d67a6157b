"""Whether a video file is complete, by its container's own structure: MP4 and QuickTime, AVI, Matroska and WebM."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

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
