"""Where a frame sees the points of a keyframe when its pose is known: a prior for a guided match."""

from __future__ import annotations

import numpy as np

from ros2_densematch.arrays import Float64
from ros2_densematch.geometry import poses
from ros2_densematch.geometry.camera import Camera
from ros2_densematch.matchers.prior import Prior
from ros2_densematch.tracking.structure import Structure

_LEAST_SIGMA_PX = 2.0  # of a predicted place: the pose is a guess as well
_STEP_PX = 2.0  # of the differences that give the local maps


def prior_from_pose(structure: Structure, camera: Camera, T_frame_from_keyframe: Float64) -> Prior:
    """The keyframe's points of known depth as a frame sees them: rays through both cameras, with their distortion and
    rolling shutter.

    Args:
        structure: points of the keyframe.
        camera: of the frame; a `RollingCamera` where its shutter is one.
        T_frame_from_keyframe: (4, 4), map units.

    Returns:
        The points that lie in the image, with local maps of planes that face the keyframe; the standard deviation grows
        with that of the depth.
    """
    known = np.flatnonzero(structure.known & (structure.rho > 0))
    xy, rho, std = structure.xy[known], structure.rho[known], structure.info[known] ** -0.5

    def seen(pixels: Float64, inverse_depth: Float64) -> Float64:
        rays = np.column_stack([structure.camera.normalise(pixels), np.ones(len(pixels))])
        points = poses.transform_points(T_frame_from_keyframe, rays / inverse_depth[:, None])
        image = np.asarray(camera.project(points), np.float64)
        return np.where(points[:, 2:] > 1e-6, image, np.nan)

    at = seen(xy, rho)
    nearer = seen(xy, rho + std) - at
    linear = np.stack([(seen(xy + _STEP_PX * axis, rho) - at) / _STEP_PX for axis in np.eye(2)], axis=2)
    inside = (at >= 0).all(1) & (at[:, 0] <= camera.width - 1) & (at[:, 1] <= camera.height - 1)
    kept = inside & np.isfinite(linear).all((1, 2)) & np.isfinite(nearer).all(1)
    sigma = np.hypot(_LEAST_SIGMA_PX, np.linalg.norm(nearer[kept], axis=1))
    return Prior(xy[kept], at[kept], sigma, linear[kept])
