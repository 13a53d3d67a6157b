"""The calibration of each frame: CameraInfo messages as they come, of which some cannot be used and some differ."""

from __future__ import annotations

from collections import deque
from typing import Any

import numpy as np

from ros2_densematch.geometry.camera import Camera, Rectified
from ros2_densematch.geometry.plausibility import calibration_doubts
from ros2_densematch.io.sources.log import SourceLog

_KEPT = 400
# A focal length that differs by less from message to message is jitter (a stabiliser, a driver's rounding).
_JITTER = 0.01


def camera_values(msg: Any) -> tuple[Any, ...]:
    """What of a CameraInfo (ROS 1 or 2) decides the camera, to compare two messages."""
    roi = msg.roi
    upper = not hasattr(msg, "k")
    arrays = tuple(
        np.asarray(getattr(msg, name.upper() if upper else name), np.float64).tobytes() for name in ("d", "k", "r", "p")
    )
    window = (roi.x_offset, roi.y_offset, roi.width, roi.height, roi.do_rectify)
    header = str(msg.header.frame_id)
    return (msg.width, msg.height, msg.distortion_model, msg.binning_x, msg.binning_y, header, *window, *arrays)


class CameraInfos:
    """The cameras of one CameraInfo topic by time.

    Args:
        topic: its name, for messages.
        image_topic: the images that it belongs to, for `rectified="auto"`.
        rectified: as in `Camera.from_camera_info`.
        log: takes what is to be said.
    """

    def __init__(self, topic: str, image_topic: str, rectified: Rectified, log: SourceLog) -> None:
        self.topic = topic
        self.first: Camera | None = None
        self.unusable = ""  # why the last unusable message is not used
        self.changes = 0
        self._jitters = False
        self._image_topic, self._rectified, self._log = image_topic, rectified, log
        self._recent: deque[tuple[int, Camera]] = deque(maxlen=_KEPT)
        self._known: dict[tuple[Any, ...], Camera | str] = {}
        self._last: Camera | None = None

    def restart(self) -> None:
        """The messages come again from their start."""
        self._recent.clear()
        self._last = None

    def add(self, msg: Any, stamp_ns: int) -> bool:
        """Takes a message; False = it cannot be used, see `unusable`."""
        camera = self._camera(msg)
        if isinstance(camera, str):
            self.unusable = camera
            return False
        if self.first is None:
            self.first = camera
            self._doubt(camera)
        if self._last is not None and camera is not self._last:
            self._say_change(self._last, camera, stamp_ns)
        self._last = camera
        self._recent.append((stamp_ns, camera))
        return True

    def at(self, stamp_ns: int) -> Camera | None:
        """The camera of an image: of equal stamp; else the last one before it; else the first usable one."""
        best: tuple[int, Camera] | None = None
        for item in reversed(self._recent):  # of equal stamps the one that came last
            if item[0] == stamp_ns:
                return item[1]
            if item[0] < stamp_ns and (best is None or item[0] > best[0]):
                best = item
        if best is not None:
            return best[1]
        return self._recent[0][1] if self._recent else self.first

    @property
    def began(self) -> bool:
        """Whether a usable one has come since the start."""
        return self._last is not None

    @property
    def newest(self) -> Camera | None:
        """The last usable one."""
        return self.first if self._last is None else self._last

    def forget_times(self) -> None:
        """The clock was set back: the newest one holds until others come."""
        self.first = self.newest
        self._recent.clear()

    def _doubt(self, camera: Camera) -> None:
        for doubt in calibration_doubts(camera):
            self._log.warn(f"the calibration on {self.topic} is doubtful: {doubt}")

    def _camera(self, msg: Any) -> Camera | str:
        values = camera_values(msg)
        if values not in self._known:
            if len(self._known) > _KEPT:
                self._known.clear()
            try:
                self._known[values] = Camera.from_camera_info(
                    msg, rectified=self._rectified, image_topic=self._image_topic
                )
            except ValueError as error:
                self._known[values] = str(error)
        return self._known[values]

    def _say_change(self, before: Camera, after: Camera, stamp_ns: int) -> None:
        if before.size == after.size and before.distortion_model == after.distortion_model:
            ratio = after.focal / before.focal
            shift = np.abs(after.K[:2, 2] - before.K[:2, 2]).max() / max(after.size)
            if abs(ratio - 1.0) < _JITTER and shift < _JITTER:
                if not self._jitters:
                    self._log.note(
                        f"the calibration on {self.topic} differs a little from message to message (focal length "
                        f"{before.focal:.2f} and {after.focal:.2f} px): each image gets its own"
                    )
                self._jitters = True
                return
        self.changes += 1
        if self.changes == 1:
            self._doubt(after)
            self._log.note(
                f"the calibration on {self.topic} changes at {stamp_ns * 1e-9:.3f} s (focal length "
                f"{before.focal:.1f} to {after.focal:.1f} px, size {before.width} x {before.height} to "
                f"{after.width} x {after.height}): each image gets its own"
            )
