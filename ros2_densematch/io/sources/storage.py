"""Opening a bag of any kind: a folder or a file, rosbag2 (MCAP, sqlite3) or ROS 1, intact or damaged."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from ros2_densematch.io.sources import damaged
from ros2_densematch.io.sources.records import BagError, Record, Records, StorageFile, Topic

SUFFIXES = (".mcap", ".db3", ".bag", ".active")


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
