"""A frame on its way through the tracker."""

from __future__ import annotations

from dataclasses import dataclass

from ros2_densematch.arrays import Float64
from ros2_densematch.geometry.camera import Camera
from ros2_densematch.matchers.base import Encoding
from ros2_densematch.tracking.frame import Frame


@dataclass(frozen=True, eq=False)
class View:
    """A frame and how its camera turned, as far as that is known.

    Attributes:
        frame: the image with what belongs to it.
        encoding: of the image, as a query.
        camera: of the frame, with its turning where the shutter is a rolling one; None without a calibration.
        rate: (3,) angular velocity in rad/s in the frame's own axes; None = not known.
    """

    frame: Frame
    encoding: Encoding
    camera: Camera | None
    rate: Float64 | None = None
