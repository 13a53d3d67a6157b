"""What a file is by its first bytes, where it is not what its name says: in words, with the way out."""

from __future__ import annotations

from pathlib import Path

_LFS = b"version https://git-lfs"
_PAGES = (b"<!doctype", b"<html", b"<?xml")
# First bytes -> what such a file is.
_MAGIC = (
    (b"PK\x03\x04", "a zip archive: unpack it first"),
    (b"\x1f\x8b", "a gzip file: unpack it first"),
    (b"BZh", "a bzip2 file: unpack it first"),
    (b"\xfd7zXZ", "an xz file: unpack it first"),
    (b"\x28\xb5\x2f\xfd", "a zstd file: unpack it first (zstd -d)"),
    (b"\x89MCAP0\r\n", "an MCAP file: name it .mcap"),
    (b"#ROSBAG V2.0", "a ROS 1 bag: name it .bag"),
    (b"SQLite format 3", "an SQLite database: name it .db3 if it is a bag of ROS 2"),
    (b"\x89HDF", "an HDF5 file"),
    (b"%PDF", "a PDF document"),
    (b"\xff\xd8\xff", "a JPEG picture"),
    (b"\x89PNG", "a PNG picture"),
    (b"\x1aE\xdf\xa3", "a Matroska or WebM video: name it .mkv or .webm"),
    (b"RIFF", "an AVI video or a WebP picture"),
)
# What files of these names begin with is no news.
_MP4, _VIDEOS = b"ftyp", (b"\x1aE\xdf\xa3", b"RIFF")
_OWN = {".mcap": b"\x89MCAP0\r\n", ".bag": b"#ROSBAG V2.0", ".active": b"#ROSBAG V2.0", ".db3": b"SQLite format 3"}


def what_it_is(path: Path) -> str:
    """As "it is a zip archive: unpack it first"; "" where the first bytes tell nothing that the name does not."""
    own = _OWN.get(path.suffix.lower())
    usual = (_MP4, *_VIDEOS) if own is None else (own,)
    try:
        with path.open("rb") as stream:
            head = stream.read(256)
    except OSError:
        return ""
    if not head:
        return "it is empty: copy or record it again"
    if head.startswith(_LFS):
        return "it is a Git LFS pointer, the file itself is missing: git lfs pull"
    if head.lstrip().lower().startswith(_PAGES):
        return "it is a web page or XML, perhaps from a failed download: download it again"
    for magic, what in _MAGIC:
        if head.startswith(magic) and magic not in usual:
            return f"it is {what}"
    if head[4:8] == _MP4 and _MP4 not in usual:
        return "it is an MP4 or MOV video: name it .mp4"
    if all(byte in b"\t\n\r" or 32 <= byte < 127 for byte in head):
        return f"it is text that begins with {head[:24].decode('ascii').split(chr(10))[0]!r}"
    return ""
