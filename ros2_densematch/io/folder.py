"""Frames out of a folder of images, in the order of their names."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ros2_densematch.geometry.camera import Camera
from ros2_densematch.geometry.trajectory import Trajectory
from ros2_densematch.io.assemble import MAX_STAMP_NS, FrameAssembler, SourceLog, load_camera, read_image
from ros2_densematch.io.source import SourceOptions
from ros2_densematch.messages.image import ImageDecodeError
from ros2_densematch.tracking.frame import Frame

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".pgm", ".ppm", ".tif", ".tiff", ".webp")
_CAMERA_FILES = ("camera.yaml", "camera.yml", "camera_info.yaml", "calibration.yaml")
_NANOSECONDS = re.compile(r"\d{16,19}")
_SECONDS = re.compile(r"(\d{9,10})\.(\d{1,9})")


class FolderSource:
    """Images of a folder (not of its subfolders); see `FrameSource`.

    Time stamps come from the file names where all of them are nanoseconds (EuRoC) or seconds with decimals (TUM),
    otherwise from `rate_hz`. The calibration is `camera_yaml` or a camera.yaml in the folder.

    Raises:
        ValueError: there is no image in the folder.
    """

    ground_truth: Trajectory | None = None
    frame_id = "camera"

    def __init__(self, path: Path, options: SourceOptions):
        self.name = path.resolve().name
        self._log = SourceLog()
        files = [f for f in path.iterdir() if f.suffix.lower() in SUFFIXES and f.is_file()]
        self._files = sorted(files, key=lambda f: natural_key(f.name))
        if not self._files:
            raise ValueError(f"{path} holds no image ({', '.join(SUFFIXES)}), no bag and no frames.csv: check the path")
        refuse_topics(options, path)
        stamps = [name_stamp_ns(f) for f in self._files]
        if all(s is not None for s in stamps):
            self._stamps = [s for s in stamps if s is not None]
            self._log.note("time stamps are read from the file names")
        else:
            self._stamps = [round(i * 1e9 / options.rate_hz) for i in range(len(self._files))]
            self._log.note(f"the file names are no time stamps: {options.rate_hz:g} images a second are assumed")
        camera = self._load_camera(path, options)
        if camera is not None and camera.frame_id:
            self.frame_id = camera.frame_id
        self._assembler = FrameAssembler(options, self._log, camera)
        self._cut = options.start_s is not None or options.stop_s is not None

    @property
    def length(self) -> int | None:
        return None if self._cut else len(self._files)

    @property
    def warnings(self) -> list[str]:
        return self._log.warnings

    @property
    def notes(self) -> list[str]:
        return self._log.notes

    @property
    def dropped(self) -> int:
        return self._log.frames_dropped

    def __iter__(self) -> Iterator[Frame]:
        self._assembler.restart()
        for file, stamp_ns in zip(self._files, self._stamps, strict=True):
            if not self._assembler.wanted(stamp_ns):
                continue
            index = self._assembler.number()
            try:
                image = read_image(file)
            except ImageDecodeError as error:
                self._log.drop_frame("frames could not be decoded and are left out", f"frame {index}, {error}")
                continue
            frame = self._assembler.frame(image, stamp_ns, index, file.name)
            if frame is not None:
                yield frame

    def _load_camera(self, path: Path, options: SourceOptions) -> Camera | None:
        given = load_camera(options.camera_yaml, options)
        if given is not None:
            return given
        for name in _CAMERA_FILES:
            if (path / name).is_file():
                self._log.note(f"the calibration is read from {name}")
                return Camera.from_yaml(path / name, rectified=options.rectified)
        self._log.warn(
            f"{path.name} has no calibration ({_CAMERA_FILES[0]}): correspondences only, no poses; give a file"
        )
        return None


def natural_key(name: str) -> list[Any]:
    """Sort key under which image2 comes before image10."""
    return [(0, int(part), "") if part.isdigit() else (1, 0, part) for part in re.split(r"(\d+)", name) if part]


def name_stamp_ns(file: Path) -> int | None:
    """Nanoseconds from a name like 1403636579763555584.png or 1305031102.175304.png, else None."""
    if _NANOSECONDS.fullmatch(file.stem):
        return int(file.stem) if int(file.stem) < MAX_STAMP_NS else None
    seconds = _SECONDS.fullmatch(file.stem)
    return int(seconds[1]) * 10**9 + int(seconds[2].ljust(9, "0")) if seconds else None


def refuse_topics(options: SourceOptions, path: Path) -> None:
    """Topics are named for bags only.

    Raises:
        ValueError: the options name a topic.
    """
    for field in ("image", "camera_info", "depth", "right_image", "odometry", "ground_truth"):
        name = getattr(options, f"{field}_topic")
        if name is not None:
            raise ValueError(f"{path} is no bag and has no topic {name}: leave --{field.replace('_', '-')}-topic out")
