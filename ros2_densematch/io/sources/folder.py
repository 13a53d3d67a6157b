"""Frames out of a folder of images, in the order of their names."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from ros2_densematch.geometry.camera import Camera
from ros2_densematch.io.sources.base import Picture, Source
from ros2_densematch.io.sources.file_stamps import kinds_of_names, stamps_from_names
from ros2_densematch.io.sources.files import load_camera, read_image
from ros2_densematch.io.sources.options import SourceOptions, refuse_topics
from ros2_densematch.io.sources.thinning import usual_period_s

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".pgm", ".ppm", ".tif", ".tiff", ".webp")
# Pictures of other formats, named with the way out.
_OTHERS = (".heic", ".heif", ".avif", ".gif", ".jxl", ".dng", ".cr2", ".cr3", ".nef", ".arw", ".raf", ".raw")
_CAMERA_FILES = ("camera.yaml", "camera.yml", "camera_info.yaml", "calibration.yaml")


class FolderSource(Source):
    """Images of a folder (not of its subfolders); see `FrameSource`.

    Time stamps come from the file names where these are times (`stamps_from_names`), otherwise from `rate_hz`.
    The calibration is `camera_yaml` or a camera.yaml in the folder.

    Raises:
        ValueError: there is no image in the folder.
    """

    def __init__(self, path: Path, options: SourceOptions):
        super().__init__(path.resolve().name, options)
        here = sorted((f for f in path.iterdir() if not f.name.startswith(".")), key=lambda f: natural_key(f.name))
        self._files = [f for f in here if f.suffix.lower() in SUFFIXES and f.is_file()]
        if not self._files:
            raise ValueError(f"{path} holds {_what_else(here)}")
        refuse_topics(options, path)
        others = [f for f in here if f.suffix.lower() in _OTHERS]
        if others:
            self._log.warn(f"{path.name}: {_not_read(others)}")
        self._stamps = self._times(options.rate_hz)
        self._count = len(self._files)
        camera, origin = self._load_camera(path, options)
        self._period_s = usual_period_s(self._stamps)
        self._calibrate(camera, origin=origin)

    def _times(self, rate_hz: float) -> list[int]:
        """The times of the files; files without one are left out of `_files`."""
        stems = [f.stem for f in self._files]
        named = stamps_from_names(stems)
        if named is None:
            kinds = kinds_of_names(stems)
            if len(kinds) > 1:
                raise ValueError(
                    f"the file names in {self.name} have {len(kinds)} patterns with separate times "
                    f"({', '.join(kinds[:4])}): put the images of each camera into their own folder"
                )
            self._log.note(f"the file names are not time stamps: {rate_hz:g} images/s are assumed")
            return [round(i * 1e9 / rate_hz) for i in range(len(stems))]
        self._log.note(f"time stamps are read from the file names as {named.unit}")
        aside = [f.name for f, stamp in zip(self._files, named.stamps_ns, strict=True) if stamp is None]
        if aside:
            self._log.warn(
                f"{len(aside)} images of {self.name} are skipped: their names are not time stamps, unlike the others; "
                f"the first: {aside[0]}"
            )
        dated = [(stamp, f) for f, stamp in zip(self._files, named.stamps_ns, strict=True) if stamp is not None]
        if not named.numbered:  # .5 comes after .25, and microseconds may stand beside nanoseconds
            dated.sort(key=lambda item: item[0])
        self._files = [f for _, f in dated]
        return [stamp for stamp, _ in dated]

    def _pictures(self) -> Iterator[Picture]:
        for file, stamp_ns in zip(self._files, self._stamps, strict=True):
            yield Picture(stamp_ns, file.name, partial(read_image, file))

    def _load_camera(self, path: Path, options: SourceOptions) -> tuple[Camera | None, object]:
        """The camera and the file that it comes from."""
        given = load_camera(options.camera_yaml, options)
        if given is not None:
            return given, options.camera_yaml
        for name in _CAMERA_FILES:
            if (path / name).is_file():
                self._log.note(f"the calibration is read from {name}")
                return Camera.from_yaml(path / name, rectified=options.rectified), path / name
        self._log.warn(
            f"{path.name} has no calibration ({_CAMERA_FILES[0]}): correspondences only, no poses; give a file"
        )
        return None, ""


def _what_else(here: list[Path]) -> str:
    """What a folder without images holds instead, and the way out."""
    others = [f for f in here if f.suffix.lower() in _OTHERS]
    if others:
        return f"no readable image: {_not_read(others)}"
    for folder in (f for f in here if f.is_dir()):
        inside = [f.name for f in folder.iterdir()]
        if "frames.csv" in inside or "metadata.yaml" in inside or any(f.lower().endswith(SUFFIXES) for f in inside):
            return f"no image itself, but its folder {folder.name} does: give {folder}"
    return f"no image ({', '.join(SUFFIXES)}), no bag and no frames.csv: check the path"


def _not_read(others: list[Path]) -> str:
    return (
        f"{len(others)} files such as {others[0].name} are {others[0].suffix.lower()[1:].upper()}, which is not read: "
        "convert them to jpeg or png (heif-convert, ImageMagick or the camera's settings)"
    )


def natural_key(name: str) -> list[Any]:
    """Sort key under which image2 comes before image10."""
    return [(0, int(part), "") if part.isdigit() else (1, 0, part) for part in re.split(r"(\d+)", name) if part]
