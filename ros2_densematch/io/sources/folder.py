"""Frames out of a folder of images, in the order of their names."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from ros2_densematch.geometry.camera import Camera
from ros2_densematch.io.sources.base import Picture, Source
from ros2_densematch.io.sources.file_stamps import stamps_from_names
from ros2_densematch.io.sources.files import load_camera, read_image
from ros2_densematch.io.sources.options import SourceOptions, refuse_topics

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".pgm", ".ppm", ".tif", ".tiff", ".webp")
_CAMERA_FILES = ("camera.yaml", "camera.yml", "camera_info.yaml", "calibration.yaml")


class FolderSource(Source):
    """Images of a folder (not of its subfolders); see `FrameSource`.

    Time stamps come from the file names where all of them are times (`stamps_from_names`), otherwise from `rate_hz`.
    The calibration is `camera_yaml` or a camera.yaml in the folder.

    Raises:
        ValueError: there is no image in the folder.
    """

    def __init__(self, path: Path, options: SourceOptions):
        super().__init__(path.resolve().name, options)
        files = [f for f in path.iterdir() if f.suffix.lower() in SUFFIXES and f.is_file()]
        self._files = sorted(files, key=lambda f: natural_key(f.name))
        if not self._files:
            raise ValueError(f"{path} holds no image ({', '.join(SUFFIXES)}), no bag and no frames.csv: check the path")
        refuse_topics(options, path)
        self._count = len(self._files)
        named = stamps_from_names([f.stem for f in self._files])
        if named is not None:
            self._stamps, unit = named
            self._log.note(f"time stamps are read from the file names as {unit}")
        else:
            self._stamps = [round(i * 1e9 / options.rate_hz) for i in range(len(self._files))]
            self._log.note(f"the file names are no time stamps: {options.rate_hz:g} images a second are assumed")
        self._calibrate(self._load_camera(path, options))

    def _pictures(self) -> Iterator[Picture]:
        for file, stamp_ns in zip(self._files, self._stamps, strict=True):
            yield Picture(stamp_ns, file.name, partial(read_image, file))

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
