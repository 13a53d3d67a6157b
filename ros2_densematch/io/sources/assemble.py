"""From decoded pictures to frames: what must hold from one frame to the next, and what goes with an image."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from ros2_densematch.geometry.camera import Camera
from ros2_densematch.geometry.plausibility import depth_doubt
from ros2_densematch.io.sources.files import load_mask
from ros2_densematch.io.sources.log import SourceLog
from ros2_densematch.io.sources.options import SourceOptions
from ros2_densematch.tracking.frame import Frame

_DEPTHS_LOOKED_AT = 10  # the unit does not change


class FrameAssembler:
    """Builds frames in order of time and checks what holds between them."""

    def __init__(
        self, options: SourceOptions, log: SourceLog, camera: Camera | None, right_camera: Camera | None = None
    ):
        self._log = log
        self._camera = camera
        self._right_camera = right_camera
        self._mask_file = options.mask
        self._mask = load_mask(options.mask) if options.mask is not None else None
        self._start_ns = None if options.start_s is None else round(options.start_s * 1e9)
        self._stop_ns = None if options.stop_s is None else round(options.stop_s * 1e9)
        self._reset()

    def restart(self) -> None:
        """Begin again with the first frame."""
        self._log.restart()
        self._reset()

    def _reset(self) -> None:
        self._first_ns: int | None = None
        self._last_ns: int | None = None
        self._size: tuple[int, int] | None = None
        self._next_index = 0
        self._depth_looked_at = 0
        self._depth_doubted = False

    def wanted(self, stamp_ns: int) -> bool:
        """Whether an image of this time lies in the part to be read; the first call sets the origin."""
        if self._first_ns is None:
            self._first_ns = stamp_ns
        offset = stamp_ns - self._first_ns
        return (self._start_ns is None or offset >= self._start_ns) and (
            self._stop_ns is None or offset < self._stop_ns
        )

    def begin_at(self, stamp_ns: int) -> None:
        """Sets the origin of time for `wanted`: the stamp of the first image of the source."""
        self._first_ns = stamp_ns

    def since_first_s(self, stamp_ns: int) -> float:
        """Seconds since the first image of the source."""
        return (stamp_ns - (self._first_ns or 0)) * 1e-9

    def past_end(self, stamp_ns: int, margin_ns: int = 0) -> bool:
        """Whether this time lies behind the part to be read, by more than the margin."""
        if self._stop_ns is None or self._first_ns is None:
            return False
        return stamp_ns - self._first_ns - margin_ns >= self._stop_ns

    def follow_clock(self) -> None:
        """The clock was set back: the next frame may lie before the last one."""
        self._last_ns = None

    def number(self) -> int:
        """The index of the next image of the source, also when it is dropped."""
        self._next_index += 1
        return self._next_index - 1

    def frame(
        self,
        image: NDArray[np.uint8],
        stamp_ns: int,
        index: int,
        source: str,
        *,
        depth: NDArray[np.float32] | None = None,
        right_image: NDArray[np.uint8] | None = None,
        odometry: NDArray[np.float64] | None = None,
        camera: Camera | None = None,
        right_camera: Camera | None = None,
    ) -> Frame | None:
        """The frame, or None when it cannot follow the one before it; the cameras: its own calibrations, if any."""
        if self._last_ns is not None and stamp_ns <= self._last_ns:
            self._log.drop_frame(
                "frames are not later than the previous frame and are skipped",
                f"frame {index} at {stamp_ns / 1e9:.6f} s after one at {self._last_ns / 1e9:.6f} s",
            )
            return None
        self._last_ns = stamp_ns
        size = (image.shape[1], image.shape[0])
        if self._size is not None and size != self._size:
            self._log.count(
                "times the image size changes",
                f"from {self._size[0]} x {self._size[1]} to {size[0]} x {size[1]} at frame {index}",
            )
        self._size = size
        return Frame(
            image=image,
            stamp_ns=stamp_ns,
            index=index,
            camera=self._fit(self._camera if camera is None else camera, size, "calibration"),
            depth=self._fit_depth(depth, size, index),
            right_image=right_image,
            right_camera=None
            if right_image is None
            else self._fit(
                right_camera or self._right_camera, (right_image.shape[1], right_image.shape[0]), "right calibration"
            ),
            odometry=odometry,
            mask=self._fit_mask(size),
            source=source,
        )

    def _fit_right(self, camera: Camera | None, image: NDArray[np.uint8] | None) -> Camera | None:
        if image is None:
            return None
        return self._fit(camera, (image.shape[1], image.shape[0]), "right calibration")

    def _fit(self, camera: Camera | None, size: tuple[int, int], what: str) -> Camera | None:
        if camera is None or (camera.width, camera.height) == size:
            return camera
        try:
            fitted = camera.for_image(*size)
        except ValueError as error:
            self._log.count(f"frames have no {what}", str(error))
            return None
        self._log.note(
            f"the {what} is for {camera.width} x {camera.height} and is rescaled to the images' {size[0]} x {size[1]}"
        )
        return fitted

    def _fit_depth(
        self, depth: NDArray[np.float32] | None, size: tuple[int, int], index: int
    ) -> NDArray[np.float32] | None:
        if depth is None:
            return None
        doubt = "" if self._depth_looked_at >= _DEPTHS_LOOKED_AT else depth_doubt(depth)
        self._depth_looked_at += 1
        if doubt and not self._depth_doubted:
            self._depth_doubted = True
            self._log.warn(f"the depth at frame {index} is doubtful: {doubt}")
        if (depth.shape[1], depth.shape[0]) == size:
            return depth
        shape = f"{depth.shape[1]} x {depth.shape[0]}"
        if abs(depth.shape[1] * size[1] / (depth.shape[0] * size[0]) - 1.0) > 0.01:
            self._log.count(
                "depth images have another shape than the image and are not used",
                f"{shape} at frame {index}, whose image is {size[0]} x {size[1]}: give a topic with registered depth",
            )
            return None
        self._log.note(f"depth images of {shape} are resized to the images' {size[0]} x {size[1]}")
        return np.asarray(cv2.resize(depth, size, interpolation=cv2.INTER_NEAREST), np.float32)

    def _fit_mask(self, size: tuple[int, int]) -> NDArray[np.bool_] | None:
        if self._mask is None:
            return None
        if (self._mask.shape[1], self._mask.shape[0]) != size:
            raise ValueError(
                f"the mask {self._mask_file} is {self._mask.shape[1]} x {self._mask.shape[0]}, the images are "
                f"{size[0]} x {size[1]}: make a mask of the images' size"
            )
        return self._mask
