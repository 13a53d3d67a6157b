"""What the errors of the calibration do to a pose that was refined on a keyframe's points."""

from __future__ import annotations

import numpy as np

from ros2_densematch.arrays import Float64
from ros2_densematch.geometry import poses, rays
from ros2_densematch.geometry.intrinsics import IntrinsicUncertainty
from ros2_densematch.tracking.localisation import Fit
from ros2_densematch.tracking.refinement import further_parameters


def by_calibration(fit: Fit, default: IntrinsicUncertainty) -> Float64:
    """Covariance (6, 6) of the pose by the calibration of both cameras, conventions of `geometry.poses`.

    Every observation moves with the calibration; the best pose moves with them (`refinement.further_parameters`).

    Args:
        fit: with inliers.
        default: uncertainty of cameras that carry none.
    """
    seen, inliers = fit.seen, fit.inliers
    prepared, usable = rays.prepare(seen.matches.select(inliers), seen.structure.camera, seen.camera, default)
    chosen = np.flatnonzero(inliers)[usable]
    bearing, xy = seen.structure.bearing[seen.index[chosen]], seen.xy[chosen]
    # moved by the bearing: x = R b + rho t, u = x / z, v = y / z, at the observed u and v
    R, z = fit.T[:3, :3], bearing @ fit.T[2, :3] + seen.structure.rho[seen.index[chosen]] * fit.T[2, 3]
    by_bearing = (R[None, :2, :2] - xy[:, :, None] * R[None, 2:, :2]) / np.maximum(z, 1e-6)[:, None, None]
    derivative = np.einsum("nij,qjn->niq", by_bearing, prepared.shared0) - prepared.shared1.transpose(2, 1, 0)
    priors = seen.structure.priors(seen.index[chosen])
    evidence = further_parameters(fit.T, priors, xy, seen.weight[chosen] / fit.sigma**2, derivative)
    change = np.eye(6)
    change[:3, 3:] = -poses.skew(fit.T[:3, 3])  # see `Fit.of`
    moved = change @ evidence.pose_change
    return np.asarray(moved @ moved.T)
