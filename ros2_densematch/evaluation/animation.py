"""A short moving picture of a replay: every frame with its matches, drawn from their place in the keyframe."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
from numpy.typing import NDArray

from ros2_densematch.arrays import Image
from ros2_densematch.evaluation.pictures import motion_picture, with_caption
from ros2_densematch.files.atomic import refuse_full_disk, replacing

if TYPE_CHECKING:
    from ros2_densematch.tracking.frame import Frame
    from ros2_densematch.tracking.tracked_frame import TrackedFrame

KINDS = ("gif", "webp", "mp4")
_COLOURS = 96  # of a GIF: its size grows with them
_MOST_FRAMES = 120
_FRAME_MS = 100  # where the frames are one second and more apart, or stamps are missing


class Animation:
    """Gathers frames evenly over a replay whose length is not known, and writes them at its end; memory is bounded.

    Args:
        kind: "gif", "webp" or "mp4".
        width: of the picture in pixels.
        most_frames: at most so many are kept; a longer replay shows every second, fourth, ... frame.
    """

    def __init__(self, kind: str, *, width: int = 400, most_frames: int = _MOST_FRAMES) -> None:
        if kind not in KINDS:
            raise ValueError(f"{kind!r} is not a supported animation format: choose {', '.join(KINDS)}")
        self.kind = kind
        self._width, self._most = width, most_frames
        self._stride, self._seen = 1, 0
        self._frames: list[bytes] = []
        self._stamps: list[int] = []

    @property
    def name(self) -> str:
        """Of the file."""
        return f"matches.{self.kind}"

    def add(self, frame: Frame, tracked: TrackedFrame) -> None:
        """Takes note of a frame that the tracker has just processed."""
        wanted = self._seen % self._stride == 0
        self._seen += 1
        if not wanted:
            return
        picture = motion_picture(frame.image, tracked.correspondences, tracked.inliers, width=self._width)
        caption = f"{tracked.status.value.lower().replace('_', ' ')}, {tracked.num_inliers} inliers"
        _, data = cv2.imencode(".png", with_caption(picture, caption)[..., ::-1])
        self._frames.append(data.tobytes())
        self._stamps.append(frame.stamp_ns)
        if len(self._frames) > self._most:
            self._frames, self._stamps = self._frames[::2], self._stamps[::2]
            self._stride *= 2

    def write(self, path: Path) -> None:
        """Writes the file, atomically; it plays at the speed of the recording, or faster where frames were left out.

        Raises:
            ValueError: there is no frame.
        """
        if not self._frames:
            raise ValueError("no frame was processed: there is nothing to show")
        with replacing(path) as target:
            if self.kind == "mp4":
                self._write_video(target)
            else:
                target.write_bytes(self._still_pictures())

    def _milliseconds(self) -> int:
        steps = np.diff(self._stamps)
        usual = float(np.median(steps)) * 1e-6 / self._stride if len(steps) else _FRAME_MS
        return round(usual) if 10 <= usual <= 1000 else _FRAME_MS

    def _still_pictures(self) -> bytes:
        from PIL import Image as PilImage

        pictures = [PilImage.fromarray(_decoded(data)) for data in self._frames]
        buffer = io.BytesIO()
        timing = {"save_all": True, "duration": self._milliseconds(), "loop": 0}
        if self.kind == "gif":
            palette = pictures[len(pictures) // 2].quantize(_COLOURS)
            flat = [picture.quantize(palette=palette, dither=PilImage.Dither.NONE) for picture in pictures]
            flat[0].save(buffer, "GIF", append_images=flat[1:], optimize=True, **timing)
        else:
            pictures[0].save(buffer, "WEBP", append_images=pictures[1:], quality=50, method=6, **timing)
        return buffer.getvalue()

    def _write_video(self, path: Path) -> None:
        pictures = [_decoded(data) for data in self._frames]
        height, width = (side - side % 2 for side in pictures[0].shape[:2])  # the codec wants even sides
        named = path.with_suffix(".mp4")  # OpenCV goes by the ending
        try:
            self._write_named(named, pictures, (width, height))
            refuse_full_disk(path)  # OpenCV does not say what it could not write
            named.replace(path)
        finally:
            named.unlink(missing_ok=True)

    def _write_named(self, named: Path, pictures: list[Image], size: tuple[int, int]) -> None:
        writer = cv2.VideoWriter(str(named), cv2.VideoWriter.fourcc(*"mp4v"), 1000.0 / self._milliseconds(), size)
        if not writer.isOpened():
            raise RuntimeError("this OpenCV cannot write mp4 files: choose gif or webp")
        for picture in pictures:
            shown = picture if picture.shape == pictures[0].shape else cv2.resize(picture, size)
            writer.write(np.ascontiguousarray(shown[: size[1], : size[0], ::-1]))
        writer.release()


def _decoded(data: bytes) -> NDArray[np.uint8]:
    picture: Image = np.asarray(cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR), np.uint8)
    return np.ascontiguousarray(picture[..., ::-1])
