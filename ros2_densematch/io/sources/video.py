"""Frames out of a video file (OpenCV)."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import cv2
import numpy as np

from ros2_densematch.io.sources.base import Picture, Source
from ros2_densematch.io.sources.containers import cut_short, is_trimmed
from ros2_densematch.io.sources.contents import what_it_is
from ros2_densematch.io.sources.files import load_camera
from ros2_densematch.io.sources.options import SourceOptions, refuse_topics
from ros2_densematch.messages.image import uint8_rgb

# Containers that FFmpeg reads without following references to other files or addresses (no playlists).
SUFFIXES = (".mp4", ".avi", ".mkv", ".mov", ".webm", ".m4v", ".mpg", ".mpeg", ".ogv", ".wmv")
# Their frame count is that of a table of frames; other containers give a duration, from which OpenCV guesses one.
_WITH_FRAME_TABLE = (".mp4", ".mov", ".m4v")
_LEEWAY = 2  # frames that a decoder keeps back at the end of an intact file


class VideoSource(Source):
    """A video file; time begins at 0; see `FrameSource`.

    Raises:
        ValueError: OpenCV cannot open or decode the file.
    """

    def __init__(self, path: Path, options: SourceOptions):
        super().__init__(path.stem, options)
        self._path = path
        refuse_topics(options, path)
        capture = self._open()
        self._rate = float(capture.get(cv2.CAP_PROP_FPS))
        count = int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
        self._count = count if count > 0 else None
        self._exact_count = path.suffix.lower() in _WITH_FRAME_TABLE
        rotation = round(float(capture.get(cv2.CAP_PROP_ORIENTATION_META))) % 360
        if rotation:
            self._log.note(
                f"{path.name} has a display rotation of {rotation} degrees: the pixels are used as stored, as in the "
                "calibration, and all coordinates refer to the stored pixels"
            )
        readable, _ = capture.read()
        capture.release()
        if not readable:
            raise ValueError(f"{path}: OpenCV cannot decode any frame of this video: convert it to H.264 in mp4")
        if not (np.isfinite(self._rate) and 0 < self._rate <= 10_000):
            self._rate = options.rate_hz
            self._log.note(f"the video states no frame rate: {self._rate:g} frames/s are assumed")
        self._period_s = 1.0 / self._rate
        camera = load_camera(options.camera_yaml, options)
        if camera is None:
            self._log.warn(f"{path.name} has no calibration: correspondences only, no poses; give a calibration file")
        self._calibrate(camera, origin=options.camera_yaml or "")

    def _pictures(self) -> Iterator[Picture]:
        capture = self._open()
        number = 0
        last_ns = -1
        try:
            while True:
                readable, image = capture.read()
                if not readable:
                    break
                # Containers with a variable rate give the time of each frame; some give 0 for all.
                stamp_ns = round(float(capture.get(cv2.CAP_PROP_POS_MSEC)) * 1e6)
                if number > 0 and stamp_ns <= last_ns:
                    stamp_ns = max(round(number * 1e9 / self._rate), last_ns + 1)
                last_ns = stamp_ns
                number += 1
                yield Picture(stamp_ns, self._path.name, partial(uint8_rgb, image))
        finally:
            capture.release()
        self._say_what_is_missing(number)

    def _say_what_is_missing(self, number: int) -> None:
        """After the last frame that could be decoded."""
        cut = cut_short(self._path)
        if cut:
            self._log.warn(f"{self._path.name} is truncated: {cut}; {number} frames could be read")
        elif self._count is not None and self._exact_count and number < self._count - _LEEWAY:
            if is_trimmed(self._path):
                self._log.note(
                    f"the edit list of {self._path.name} shows {number} of its {self._count} frames: those are read"
                )
                return
            self._log.warn(f"{self._path.name} is damaged: {number} of {self._count} frames could be decoded")

    def _open(self) -> cv2.VideoCapture:
        capture = cv2.VideoCapture(str(self._path))
        if not capture.isOpened():
            cut = cut_short(self._path)
            if cut:
                raise ValueError(f"{self._path} is truncated and cannot be opened: {cut}; copy or record it again")
            if self._path.stat().st_size == 0:
                raise ValueError(f"{self._path} is empty: copy or record it again")
            other = what_it_is(self._path)
            if other:
                raise ValueError(f"{self._path} is not a video: {other}")
            raise ValueError(f"{self._path}: OpenCV cannot open this video: convert it to H.264 in mp4")
        # Players turn the pictures of a camera that was held upside down; the calibration belongs to the stored pixels.
        capture.set(cv2.CAP_PROP_ORIENTATION_AUTO, 0)
        return capture
