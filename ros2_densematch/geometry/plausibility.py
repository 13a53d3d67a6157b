"""Whether a calibration can be that of the images it comes with, from its numbers alone."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ros2_densematch.geometry.camera import Camera

# Cropped sensors put the principal point off the middle, in shares of a side. K of half or twice the size puts it a
# quarter off in both directions.
_MAX_OFFSET = 0.3
_MAX_OFFSET_BOTH = 0.22
# Fields of view of a pinhole camera across the longer side, in degrees; fisheye lenses see more.
_FIELD_OF_VIEW = 2.0, 140.0
_MAX_ASPECT = 1.2
# Metres that the median of a depth map lies between: 32FC1 in millimetres, or 16-bit depth in metres, is far outside.
_USUAL_DEPTH_M = 0.05, 300.0


def calibration_doubts(camera: Camera) -> list[str]:
    """What is implausible about a calibration, one sentence each with the numbers; empty for a plausible one."""
    doubts = []
    width, height = camera.size
    cx, cy = camera.K[0, 2], camera.K[1, 2]
    offsets = abs(cx - (width - 1) / 2) / width, abs(cy - (height - 1) / 2) / height
    if max(offsets) > _MAX_OFFSET or min(offsets) > _MAX_OFFSET_BOTH:
        doubts.append(
            f"the principal point ({cx:.0f}, {cy:.0f}) lies far outside the middle of {width} x {height}: K may "
            "be that of another image size (binning, region of interest or scaling applied twice or not at all)"
        )
    fx, fy = camera.K[0, 0], camera.K[1, 1]
    longer = width / fx if width >= height else height / fy
    view = np.degrees(longer if camera.distortion_model == "equidistant" else 2 * np.arctan(longer / 2))
    low, high = _FIELD_OF_VIEW
    if view < low or (view > high and camera.distortion_model != "equidistant") or view > 360:
        doubts.append(
            f"the focal length {camera.focal:.1f} px is implausible for {width} x {height}: the camera would see "
            f"{view:.1f} degrees"
        )
    if max(fx / fy, fy / fx) > _MAX_ASPECT:
        doubts.append(
            f"fx = {fx:.1f} and fy = {fy:.1f} differ by {100 * (max(fx / fy, fy / fx) - 1):.0f} %: the image may have "
            "been stretched, or K belongs to another aspect ratio"
        )
    return doubts


def depth_doubt(depth: NDArray[np.float32]) -> str:
    """What is implausible about a depth map (H, W) in metres, in one sentence; "" for a plausible one, or where it
    holds next to nothing."""
    values = depth[::4, ::4]
    known = values[np.isfinite(values) & (values > 0)]
    if known.size < 0.01 * values.size or known.size == 0:
        return ""
    middle = float(np.median(known))
    low, high = _USUAL_DEPTH_M
    if low <= middle <= high:
        return ""
    return (
        f"its median is {middle:.4g} m, which is implausible: 32FC1 is in metres, 16UC1 and mono16 in "
        "millimetres (REP 118); all lengths follow from it"
    )
