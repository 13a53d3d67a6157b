"""What every source of frames has, and the one loop that reads them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ros2_densematch.geometry.camera import Camera
from ros2_densematch.geometry.trajectory import Trajectory
from ros2_densematch.io.sources.assemble import FrameAssembler
from ros2_densematch.io.sources.log import SourceLog
from ros2_densematch.io.sources.options import SourceOptions
from ros2_densematch.messages.image import ImageDecodeError
from ros2_densematch.tracking.frame import Frame


class FrameSource(Protocol):
    """An iterable of frames; each iteration reads the source again from its start, one frame at a time.

    Attributes:
        name: short name for reports.
        frame_id: optical frame of the images ("camera" where the source names none).
        length: number of frames, or None where that is not known before reading.
        warnings: what is wrong, one sentence each; grows while frames are read.
        notes: what was chosen on the user's behalf (topics, time stamps), one sentence each.
        dropped: frames left out so far (not decodable, time going back).
        ground_truth: true camera poses, or None.
    """

    @property
    def name(self) -> str: ...
    @property
    def frame_id(self) -> str: ...
    @property
    def length(self) -> int | None: ...
    @property
    def warnings(self) -> list[str]: ...
    @property
    def notes(self) -> list[str]: ...
    @property
    def dropped(self) -> int: ...
    @property
    def ground_truth(self) -> Trajectory | None: ...
    def __iter__(self) -> Iterator[Frame]: ...


@dataclass(frozen=True)
class Companions:
    """What goes with an image: depth (H, W) in metres, the right image of a stereo pair, T_world_from_camera (4, 4)."""

    depth: NDArray[np.float32] | None = None
    right_image: NDArray[np.uint8] | None = None
    odometry: NDArray[np.float64] | None = None


@dataclass(frozen=True)
class Picture:
    """An image of a source, not decoded yet.

    Attributes:
        stamp_ns: its time in nanoseconds.
        index: its number in the source, from 0.
        origin: the topic or file that it comes from.
        decode: gives uint8 RGB (H, W, 3) or grey (H, W), or raises `ImageDecodeError`.
        companions: called once the image could be decoded.
    """

    stamp_ns: int
    index: int
    origin: str
    decode: Callable[[], NDArray[np.uint8]]
    companions: Callable[[], Companions] = Companions


class Source(ABC):
    """The common part of all sources; see `FrameSource`.

    A subclass opens its files, then calls `_calibrate`, and yields pictures in `_pictures`.

    Args:
        name: short name for reports.
        options: what the user says about the source.
    """

    def __init__(self, name: str, options: SourceOptions):
        self.name = name
        self.frame_id = "camera"
        self.ground_truth: Trajectory | None = None
        self._options = options
        self._log = SourceLog()
        self._count: int | None = None

    def _calibrate(self, camera: Camera | None, right_camera: Camera | None = None) -> None:
        """The cameras of all frames, where they are known."""
        if camera is not None and camera.frame_id:
            self.frame_id = camera.frame_id
        self._assembler = FrameAssembler(self._options, self._log, camera, right_camera)

    @abstractmethod
    def _pictures(self) -> Iterator[Picture]:
        """The images of the wanted part, numbered, in the order of the source."""

    def _number(self, stamp_ns: int) -> int | None:
        """The number of the next image, or None where it lies outside of the wanted part."""
        return self._assembler.number() if self._assembler.wanted(stamp_ns) else None

    def _drop_undecodable(self, index: int, error: Exception) -> None:
        self._log.drop_frame("frames could not be decoded and are left out", f"frame {index}, {error}")

    @property
    def length(self) -> int | None:
        cut = self._options.start_s is not None or self._options.stop_s is not None
        return None if cut else self._count

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
        for picture in self._pictures():
            try:
                image = picture.decode()
            except ImageDecodeError as error:
                self._drop_undecodable(picture.index, error)
                continue
            extra = picture.companions()
            frame = self._assembler.frame(
                image,
                picture.stamp_ns,
                picture.index,
                picture.origin,
                depth=extra.depth,
                right_image=extra.right_image,
                odometry=extra.odometry,
            )
            if frame is not None:
                yield frame
