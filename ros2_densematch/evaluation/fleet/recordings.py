"""Which recordings a folder or a list names."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from ros2_densematch.io.sources.storage import SUFFIXES, is_bag
from ros2_densematch.io.sources.video import SUFFIXES as VIDEO_SUFFIXES


@dataclass(frozen=True)
class Recording:
    """A recording and its name, which is unique in the fleet and fit for a folder."""

    name: str
    path: Path

    def state(self) -> str:
        """Size and time of change, by which a recording that was replaced is told; "" where there is none."""
        try:
            files = [self.path] if self.path.is_file() else [f for f in self.path.rglob("*") if f.is_file()]
            found = [file.stat() for file in files]
        except OSError:
            return ""
        size, changed = sum(f.st_size for f in found), max((f.st_mtime_ns for f in found), default=0)
        return f"{len(found)} files, {size} bytes, {changed}" if found else ""


def find_recordings(source: Path) -> list[Recording]:
    """The recordings in a folder (bags, videos, sequence folders; sorted by name), or those that a text file lists.

    Args:
        source: a folder, or a file with one path a line; relative ones start at the file's folder, # begins a comment.

    Raises:
        FileNotFoundError: there is no such path.
        ValueError: it names no recording, or one twice.
    """
    if not source.exists():
        raise FileNotFoundError(f"{source} does not exist: give a folder of recordings, or a file that lists them")
    if source.is_file():
        lines = [line.strip() for line in source.read_text("utf-8").splitlines()]
        paths = [source.parent / line for line in lines if line and not line.startswith("#")]
    else:
        paths = sorted(path for path in source.iterdir() if _may_be_recording(path))
    if not paths:
        raise ValueError(f"{source} names no recording: give bags, videos, or folders with frames.csv")
    twice = sorted({str(p) for p in paths if paths.count(p) > 1})
    if twice:
        raise ValueError(f"{source} names {twice[0]} twice: remove one")
    return _named(paths)


def _may_be_recording(path: Path) -> bool:
    """Judged by names only: a damaged recording is one, and fails by name."""
    if path.is_dir():
        return is_bag(path) or any(
            (path / name).exists() for name in ("metadata.yaml", "frames.csv", "rgb.txt", "mav0")
        )
    return path.suffix.lower() in (*SUFFIXES, *VIDEO_SUFFIXES)


def _named(paths: list[Path]) -> list[Recording]:
    names: dict[str, int] = {}
    found = []
    for path in paths:
        base = re.sub(r"[^\w.-]", "_", path.name) or "recording"
        names[base] = names.get(base, 0) + 1
        found.append(Recording(base if names[base] == 1 else f"{base}~{names[base]}", path))
    return found
