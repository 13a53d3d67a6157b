"""Metric inverse depths of keyframe points, from a depth image or from a rectified stereo pair."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ros2_densematch.arrays import Float64
from ros2_densematch.geometry.camera import Camera
from ros2_densematch.geometry.correspondences import Correspondences

_DEPTH_RELATIVE_STD = 0.02  # of consumer depth cameras and of the registration to the colour image
_MIN_DEPTH_M = 0.05
_STEREO_STD_PX = 0.5
_STEREO_MAX_ROW_PX = 1.5


def rho_from_depth(depth: NDArray[np.float32], xy: NDArray[np.floating]) -> tuple[Float64, Float64]:
    """Inverse depths (N,) in 1/m and their inverse variances (0 = unknown) at pixels (N, 2) of a depth image in metres.

    The nearest depth counts, and the spread of its 3x3 neighbourhood is its uncertainty: at the border of an object the
    depth is unknown by as much as the two sides differ.
    """
    height, width = depth.shape
    column, row = np.rint(np.asarray(xy, np.float64)).astype(np.intp).T
    inside = (column >= 1) & (row >= 1) & (column < width - 1) & (row < height - 1)
    rho, info = np.zeros(len(xy)), np.zeros(len(xy))
    if not inside.any():
        return rho, info
    column, row = column[inside], row[inside]
    patch = np.stack([depth[row + j, column + i] for j in (-1, 0, 1) for i in (-1, 0, 1)], 1).astype(np.float64)
    patch = np.where(np.isfinite(patch) & (patch > _MIN_DEPTH_M), 1.0 / np.maximum(patch, _MIN_DEPTH_M), np.nan)
    centre = patch[:, 4]
    valid = np.isfinite(centre)
    filled = np.where(np.isnan(patch), centre[:, None], patch)
    spread = 0.5 * (filled.max(1) - filled.min(1))
    variance = (_DEPTH_RELATIVE_STD * centre) ** 2 + spread**2
    where = np.flatnonzero(inside)[valid]
    rho[where], info[where] = centre[valid], 1.0 / variance[valid]
    return rho, info


def rho_from_stereo(
    matches: Correspondences, left: Camera, right: Camera
) -> tuple[NDArray[np.float32], Float64, Float64]:
    """Inverse depths from matches of a rectified pair: rho = disparity / (focal length * baseline).

    Args:
        matches: reference = left image, query = right image.
        left, right: their rectified cameras; the right one's P holds the baseline.

    Returns:
        Pixels (N, 2) of the left image, inverse depths (N,) in 1/m, inverse variances (N,); only of matches in one row
        (within 1.5 px).

    Raises:
        ValueError: no baseline is known, or the images are not rectified.
    """
    if right.baseline is None or right.baseline <= 0:
        raise ValueError(
            "the right camera's P holds no baseline (P[0, 3] = -fx * baseline): use its rectified CameraInfo"
        )
    if left.distortion_model != "none" or right.distortion_model != "none":
        raise ValueError("stereo needs rectified images: use the rectified topics and rectified=true")
    a = left.normalise(matches.reference_xy)
    b = right.normalise(matches.query_xy)
    same_row = np.abs(a[:, 1] - b[:, 1]) * left.focal < _STEREO_MAX_ROW_PX
    rho = (a[:, 0] - b[:, 0]) / right.baseline
    sigma = _STEREO_STD_PX / (left.focal * right.baseline)
    good = same_row & (rho > -2 * sigma) & np.isfinite(rho)
    return matches.reference_xy[good], np.maximum(rho[good], 0.0), np.full(int(good.sum()), sigma**-2)


def odometry_length(now: Float64 | None, then: Float64 | None) -> float | None:
    """Metres travelled between two odometry poses (4, 4); None where one is missing or it stood still (2 cm)."""
    if now is None or then is None:
        return None
    length = float(np.linalg.norm(np.asarray(now)[:3, 3] - np.asarray(then)[:3, 3]))
    return length if length > 0.02 else None
