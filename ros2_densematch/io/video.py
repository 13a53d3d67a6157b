"""Frames out of a video file (OpenCV)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np

from ros2_densematch.geometry.trajectory import Trajectory
from ros2_densematch.io.assemble import FrameAssembler, SourceLog, load_camera
from ros2_densematch.io.folder import refuse_topics
from ros2_densematch.io.source import SourceOptions
from ros2_densematch.tracking.frame import Frame

# Containers that FFmpeg reads without following references to other files or addresses (no playlists).
SUFFIXES = (".mp4", ".avi", ".mkv", ".mov", ".webm", ".m4v", ".mpg", ".mpeg", ".ogv", ".wmv")


class VideoSource:
    """A video file; time begins at 0; see `FrameSource`.

    Raises:
        ValueError: OpenCV cannot open or decode the file.
    """

    ground_truth: Trajectory | None = None
    frame_id = "camera"

    def __init__(self, path: Path, options: SourceOptions):
        self.name = path.stem
        self._path = path
        self._log = SourceLog()
        refuse_topics(options, path)
        capture = self._open()
        self._rate = float(capture.get(cv2.CAP_PROP_FPS))
        self._count = int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
        readable, _ = capture.read()
        capture.release()
        if not readable:
            raise ValueError(f"{path}: OpenCV can decode no frame of this video: convert it to H.264 in mp4")
        if not (np.isfinite(self._rate) and 0 < self._rate <= 10_000):
            self._rate = options.rate_hz
            self._log.note(f"the video states no frame rate: {self._rate:g} a second are assumed")
        camera = load_camera(options.camera_yaml, options)
        if camera is None:
            self._log.warn(f"{path.name} has no calibration: correspondences only, no poses; give a calibration file")
        elif camera.frame_id:
            self.frame_id = camera.frame_id
        self._assembler = FrameAssembler(options, self._log, camera)
        self._cut = options.start_s is not None or options.stop_s is not None

    @property
    def length(self) -> int | None:
        return self._count if self._count > 0 and not self._cut else None

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
                if self._assembler.past_end(stamp_ns):
                    return
                if not self._assembler.wanted(stamp_ns):
                    continue
                picture = image if image.ndim == 2 else image[:, :, 2::-1]
                frame = self._assembler.frame(
                    np.ascontiguousarray(picture, np.uint8), stamp_ns, self._assembler.number(), self._path.name
                )
                if frame is not None:
                    yield frame
        finally:
            capture.release()
        if self._count > 0 and number < self._count:
            self._log.warn(f"{self._path.name} ends after {number} of {self._count} frames: it is cut or damaged")

    def _open(self) -> cv2.VideoCapture:
        capture = cv2.VideoCapture(str(self._path))
        if not capture.isOpened():
            raise ValueError(f"{self._path}: OpenCV cannot open this video: convert it to H.264 in mp4")
        return capture
