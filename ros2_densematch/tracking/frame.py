"""One frame of a sequence: the type that sources produce and the tracker consumes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ros2_densematch.geometry.camera import Camera


@dataclass(frozen=True)
class Frame:
    """An image with its time stamp and the other data of that time.

    Attributes:
        image: uint8, RGB (H, W, 3) or grey (H, W).
        stamp_ns: time of the image in nanoseconds.
        index: number of the frame in its source, starting at 0.
        camera: calibration of `image`. Without one (None), frames are matched but poses are not estimated.
        depth: float32 (H, W), metres along the optical axis, registered to `image`; 0 or NaN means unknown.
        right_image: rectified right image of a stereo pair, same rows as `image`.
        right_camera: calibration of `right_image`; its P holds the baseline.
        odometry: (4, 4) metric prior T_world_from_camera (wheel or visual-inertial odometry), or None.
        mask: bool (H, W), False where matches are not allowed (robot body, fisheye rim).
        source: file or topic, named in messages.
    """

    image: NDArray[np.uint8]
    stamp_ns: int
    index: int
    camera: Camera | None = None
    depth: NDArray[np.float32] | None = None
    right_image: NDArray[np.uint8] | None = None
    right_camera: Camera | None = None
    odometry: NDArray[np.float64] | None = None
    mask: NDArray[np.bool_] | None = None
    source: str = ""

    def __repr__(self) -> str:
        with_it = [
            name for name in ("camera", "depth", "right_image", "odometry", "mask") if getattr(self, name) is not None
        ]
        extra = f" with {', '.join(with_it)}" if with_it else ""
        return f"<frame {self.index} at {self.stamp_ns} ns, image {getattr(self.image, 'shape', None)}{extra}>"

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) of the image in pixels."""
        return self.image.shape[1], self.image.shape[0]


def frame_problem(frame: Frame) -> str:
    """Why this frame cannot be used, in words with the remedy; empty when nothing is wrong with it."""
    image = frame.image
    if not isinstance(image, np.ndarray) or image.dtype != np.uint8 or image.ndim not in (2, 3):
        kind = f"{image.dtype} {image.shape}" if isinstance(image, np.ndarray) else type(image).__name__
        return f"the image is {kind}: give uint8 RGB (H, W, 3) or grey (H, W)"
    if image.ndim == 3 and image.shape[2] != 3:
        return f"the image has {image.shape[2]} channels: give RGB (H, W, 3) or grey (H, W)"
    height, width = image.shape[:2]
    if min(height, width) < 16:
        return f"the image is {width} x {height}: at least 16 x 16 pixels are needed"
    camera = frame.camera
    if camera is not None:
        if (camera.width, camera.height) != (width, height):
            return (
                f"the camera is calibrated for {camera.width} x {camera.height}, the image is {width} x {height}: "
                "use the matching calibration, or Camera.resized"
            )
        if not (np.isfinite(camera.K).all() and np.isfinite(camera.D).all()):
            return "the camera matrix or distortion is not finite: repair the calibration"
        if camera.K[0, 0] <= 0 or camera.K[1, 1] <= 0:
            return f"the focal length ({camera.K[0, 0]}, {camera.K[1, 1]}) is not positive: repair the calibration"
    for name, array in (("depth image", frame.depth), ("mask", frame.mask)):
        if array is not None and array.shape != (height, width):
            return f"the {name} is {array.shape}, the image ({height}, {width}): register it to the image"
    if frame.mask is not None and frame.mask.dtype != np.bool_:
        return f"the mask is {frame.mask.dtype}: give bool, True where matches may lie"
    if frame.odometry is not None and (
        np.shape(frame.odometry) != (4, 4) or not np.isfinite(np.asarray(frame.odometry)).all()
    ):
        return "the odometry is not a finite 4 x 4 matrix: leave it out for this frame"
    return ""
