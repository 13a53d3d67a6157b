"""Opening a bag of any kind: a folder or a file, rosbag2 (MCAP, sqlite3) or ROS 1, intact or damaged."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Collection, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import yaml

from ros2_densematch.io.sources import damaged
from ros2_densematch.io.sources.mcap_file import McapFile
from ros2_densematch.io.sources.records import BagError, Record, Records, StorageFile, Topic, ros2_type
from ros2_densematch.io.sources.write_ahead import WholeDatabase, has_log

ROS1_SUFFIXES = (".bag", ".active")
SUFFIXES = (".mcap", ".db3", *ROS1_SUFFIXES)


class IntactFile:
    """A storage file (or rosbag2 folder) that rosbags can open.

    Raises (on construction):
        Exception: whatever rosbags raises; the caller then tries the rescue readers.
    """

    def __init__(self, path: Path):
        self._path = path
        self.problem = ""
        self.keep: object = None  # what must live as long as this
        with self._open() as reader:
            encoding = "ros1" if path.suffix in ROS1_SUFFIXES else "cdr"
            self.topics = {
                name: Topic(name, ros2_type(info.msgtype or info.connections[0].msgtype), info.msgcount, encoding)
                for name, info in reader.topics.items()
            }

    def records(self, topics: Collection[str], start_ns: int | None, stop_ns: int | None) -> Iterator[Record]:
        try:
            with self._open() as reader:
                chosen = [c for c in reader.connections if c.topic in topics]
                if not chosen:
                    return
                for connection, time_ns, data in reader.messages(chosen, start_ns, stop_ns):
                    yield Record(connection.topic, self.topics[connection.topic].type, time_ns, data)
        except Exception as error:  # noqa: BLE001 - storage back ends raise errors of many kinds on damaged files
            self.problem = f"{self._path.name} is damaged ({error}): it was read up to the damage"

    def _open(self) -> Any:
        if self._path.suffix in ROS1_SUFFIXES:
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
        warnings: list[str] = []
        return Records(path, [_open_file(path, warnings)], warnings)
    warnings = []
    files = _storage_files(path)
    ros1 = bool(files) and all(f.suffix in ROS1_SUFFIXES for f in files)
    if not ros1:
        files = [f for f in files if f.suffix in (".mcap", ".db3")]
        problem = metadata_problem(path)
        if not problem and not any(has_log(f) for f in files):
            # It may be of a kind that rosbags does not take although nothing is wrong with it: then file by file.
            with suppress(Exception):
                return Records(path, [IntactFile(path)], [])
        if problem:
            warnings.append(f"{path.name}: {problem}: its storage files are read one by one")
    if not files:
        packed = [f.name for f in sorted(path.iterdir()) if f.suffix == ".zstd"]
        remedy = f"unpack {packed[0]} with `zstd -d` first" if packed else "give the folder or file of a recording"
        raise BagError(f"{path} contains no .mcap, .db3 or .bag file: {remedy}")
    opened: list[StorageFile] = []
    for file in files:
        try:
            opened.append(_open_file(file, warnings))
        except BagError as error:
            if len(files) == 1:
                raise
            warnings.append(f"{error}: this file is skipped")
    if not opened:
        raise BagError(f"no file in {path} can be read: {'; '.join(warnings)}")
    return Records(path, opened, warnings)


def metadata_problem(folder: Path) -> str:
    """What is wrong with the metadata.yaml of a rosbag2 folder; "" for a good one."""
    file = folder / "metadata.yaml"
    if not file.is_file():
        return "it has no metadata.yaml"
    try:
        content = yaml.safe_load(file.read_text("utf-8"))["rosbag2_bagfile_information"]
        named = [str(name) for name in content["relative_file_paths"]]
    except (OSError, UnicodeDecodeError, yaml.YAMLError, KeyError, TypeError) as error:
        return f"its metadata.yaml is damaged ({type(error).__name__}: {' '.join(str(error).split())})"
    lacking = [name for name in named if not (folder / name).is_file()]
    return f"its metadata.yaml names {', '.join(lacking)}, which is missing" if lacking else ""


def _open_file(path: Path, warnings: list[str]) -> StorageFile:
    if path.suffix not in SUFFIXES:
        raise BagError(f"{path} is not a bag: give a .mcap, .db3 or .bag file, or a bag's folder")
    if path.suffix == ".db3" and has_log(path):
        with suppress(sqlite3.Error):
            return _with_log(path, warnings)
    try:
        return IntactFile(path)
    except PermissionError as error:
        raise BagError(f"{path} cannot be opened ({error.strerror}): change its permissions") from None
    except Exception as error:  # noqa: BLE001 - see IntactFile
        reason = str(error) or type(error).__name__
    if path.suffix == ".mcap":
        with suppress(Exception):  # where it is damaged, the rescue reader says so
            return McapFile(path)
    rescue = {".mcap": damaged.McapRescue, ".db3": damaged.SqliteRescue}.get(path.suffix, damaged.Ros1Rescue)
    return rescue(path, reason)


def _with_log(path: Path, warnings: list[str]) -> StorageFile:
    """A database whose newest messages lie in its write-ahead log.

    Raises:
        sqlite3.Error: the two do not fit together.
    """
    whole = WholeDatabase(path)
    bag = IntactFile(whole.path)
    bag.keep = whole
    warnings.append(f"{path.name} was not closed: its write-ahead log ({path.name}-wal) is read as well")
    return bag


def _storage_files(folder: Path) -> list[Path]:
    """In the order of recording: rosbag2 and rosbag number the files of a split bag."""

    def natural(path: Path) -> list[Any]:
        return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", path.name)]

    return sorted((f for f in folder.iterdir() if f.suffix in SUFFIXES and f.is_file()), key=natural)
