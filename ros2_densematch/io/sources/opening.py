"""One entry point for everything that frames can be read from."""

from __future__ import annotations

from pathlib import Path

from ros2_densematch.files.shipped import sample_file
from ros2_densematch.io.sources import folder, storage, video
from ros2_densematch.io.sources.bag import BagSource
from ros2_densematch.io.sources.base import FrameSource
from ros2_densematch.io.sources.contents import what_it_is
from ros2_densematch.io.sources.listed import ListedSource, is_benchmark_folder
from ros2_densematch.io.sources.options import SourceOptions
from ros2_densematch.io.sources.sequence import SequenceSource

_PACKED = (".zip", ".gz", ".tgz", ".tar", ".bz2", ".xz", ".zst", ".zstd", ".lz4", ".7z", ".rar")


def open_source(path: str | Path, options: SourceOptions | None = None) -> FrameSource:
    """Open a recording as a source of frames.

    Args:
        path: a bag (folder, .mcap, .db3 or .bag), a video file, a folder of images, a folder with frames.csv, or a
            sequence of TUM RGB-D, EuRoC or KITTI odometry. "sample/flight" is a bag that ships with the package.
        options: topics, calibration, frame range and the like; None for the defaults.

    Raises:
        FileNotFoundError: the path does not exist.
        ValueError: the path is none of these, or it lacks what the options ask for; the message names the remedy.
    """
    path = sample_file(Path(path))
    options = options or SourceOptions()
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist: give a bag, a video file or a folder of images")
    if path.is_dir() and (path / "frames.csv").is_file():
        return SequenceSource(path, options)
    if storage.is_bag(path):
        return BagSource(path, options)
    if is_benchmark_folder(path):
        return ListedSource(path, options)
    if path.is_dir():
        return folder.FolderSource(path, options)
    if path.suffix.lower() in video.SUFFIXES:
        return video.VideoSource(path, options)
    if path.suffix.lower() in _PACKED:
        raise ValueError(f"{path} is an archive ({path.suffix}): unpack it and give its content")
    other = what_it_is(path)
    raise ValueError(
        f"{path} is not a source of frames{f' ({other})' if other else ''}: give a bag "
        f"({', '.join(storage.SUFFIXES)} or its folder), a video ({', '.join(video.SUFFIXES)}), a folder of images, or "
        "a folder with frames.csv"
    )
