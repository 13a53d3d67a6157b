"""Pose of a frame near a prediction: refined from there, without sampling; two-view geometry is read off the result.

It is tried for guided matches only, whose outliers are few, and given up (None) when the fit fails its test. Then the
frame is localised as any other (`localisation.localise`).
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from ros2_densematch.arrays import Float64
from ros2_densematch.geometry import poses
from ros2_densematch.geometry.camera import Camera
from ros2_densematch.geometry.correspondences import Correspondences
from ros2_densematch.geometry.relative_pose import (
    UNKNOWN_LENGTH_VARIANCE,
    UNKNOWN_TRANSLATION_VARIANCE,
    Geometry,
    RelativePose,
    Scale,
)
from ros2_densematch.geometry.two_view import PoseConfig
from ros2_densematch.tracking.calibration_noise import by_calibration
from ros2_densematch.tracking.localisation import Fit, Localisation, Sights
from ros2_densematch.tracking.structure import Structure

_ITERATIONS, _AGAIN = 6, 3  # of the refinement from the prediction, and from its result
_LEAST_KNOWN = 40  # points of known depth that hold the pose
_LEAST_RATIO = 0.5  # of all matches that must agree
_MOST_SIGMA_PX = 2.0  # of the residuals
_FEW_NEW = 0.05  # share of the matches
# The noise of a pose is larger than its residuals say: guided matches, and points that the same few frames
# triangulated, are off together. As large as in `io.results.odometry`.
_NOISE_FACTOR = 9.0
_EPIPOLAR_SIGMAS = 3.0  # within which a match without a point becomes one


def localise_near(
    matches: Correspondences,
    structure: Structure,
    camera: Camera,
    *,
    min_inliers: int,
    max_rotation_std_deg: float,
    predictions: list[Float64],
    config: PoseConfig,
) -> Localisation | None:
    """As `localisation.localise`, beginning at the first prediction; None where there is none or the fit fails."""
    if not predictions:
        return None
    seen = Sights.of(matches, structure, camera)
    if len(seen.usable) < max(_LEAST_KNOWN, min_inliers):
        return None
    first = Fit.of(seen, predictions[0], _ITERATIONS, near=True)
    if not _good(first, len(seen.usable), min_inliers):
        return None
    error_px = _epipolar_px(seen, first.T)
    bound = _EPIPOLAR_SIGMAS * max(first.sigma * camera.focal, 0.15)
    new = (error_px < bound) & (seen.index < 0)
    # a few new points wait for others: with them the pose is refined once more
    fit = Fit.of(seen.with_points(new), first.T, _AGAIN, near=True) if new.sum() > _FEW_NEW * len(matches) else first
    if not _good(fit, len(matches), min_inliers) or not fit.fixes_rotation(max_rotation_std_deg):
        return None
    return fit.localisation(_two_view(fit, config))


def _good(fit: Fit, count: int, min_inliers: int) -> bool:
    agree = int(fit.inliers.sum()) >= _LEAST_RATIO * count
    return agree and fit.enough(min_inliers) and fit.sigma * fit.seen.camera.focal <= _MOST_SIGMA_PX


def _epipolar_px(seen: Sights, T: Float64) -> Float64:
    """Sampson distances (N,) in pixels; 0 for a pure rotation."""
    E = poses.skew(T[:3, 3]) @ T[:3, :3]
    a = np.column_stack([seen.reference, np.ones(len(seen.reference))])
    b = np.column_stack([seen.xy, np.ones(len(seen.xy))])
    line_b, line_a = a @ E.T, b @ E
    norm = np.sqrt(np.sum(line_a[:, :2] ** 2, 1) + np.sum(line_b[:, :2] ** 2, 1))
    return np.asarray(np.abs(np.sum(b * line_b, 1)) / np.maximum(norm, 1e-12) * seen.camera.focal)


def _two_view(fit: Fit, config: PoseConfig) -> RelativePose:
    """Class, direction and covariance as the two-view estimator names them (`geometry.two_view`)."""
    seen, inliers, T = fit.seen, fit.inliers, fit.T
    focal, count = seen.camera.focal, int(inliers.sum())
    bearing, xy = seen.structure.bearing[seen.index[inliers]], seen.xy[inliers]
    turned = bearing @ T[:3, :3].T
    shift_px = np.linalg.norm(turned[:, :2] / turned[:, 2:] - xy, axis=1) * focal
    sine = np.linalg.norm(np.cross(turned, np.column_stack([xy, np.ones(len(xy))])), axis=1)
    norms = np.linalg.norm(turned, axis=1) * np.linalg.norm(np.column_stack([xy, np.ones(len(xy))]), axis=1)
    angle = float(np.degrees(np.median(np.arcsin(np.clip(sine / norms, 0, 1)))))
    parallax, limit = float(np.median(shift_px)), _explained_px(fit, config)
    plane = _homography_ratio(bearing[:, :2], xy, limit / focal)
    length = float(np.linalg.norm(T[:3, 3]))
    pose, scale = T.copy(), Scale.UNIT
    covariance = _NOISE_FACTOR * fit.covariance + by_calibration(fit, config.uncertainty)
    ratio = float(np.mean(shift_px < limit))
    if parallax < config.min_parallax_px or ratio >= config.explained_ratio or length < 1e-9:
        geometry, scale = Geometry.PANORAMIC, Scale.NONE
        pose[:3, 3] = 0.0
        covariance[:3, :] = covariance[:, :3] = 0.0
        covariance[:3, :3] = UNKNOWN_TRANSLATION_VARIANCE * np.eye(3)
        error_px, what = parallax, f"pure rotation or no visible translation: rotation explains {100 * ratio:.0f}%"
    else:
        geometry = Geometry.PLANAR if plane >= config.explained_ratio else Geometry.CALIBRATED
        direction = T[:3, 3] / length
        pose[:3, 3] = direction
        across = np.eye(6)
        across[:3, :3] = (np.eye(3) - np.outer(direction, direction)) / length
        covariance = across @ covariance @ across.T
        covariance[:3, :3] += UNKNOWN_LENGTH_VARIANCE * np.outer(direction, direction)
        error_px = float(np.median(_epipolar_px(seen, T)[inliers]))
        kind = "planar scene" if geometry is Geometry.PLANAR else "general scene"
        what = f"{kind}: rotation explains {100 * ratio:.0f}%"
    return RelativePose(
        T_query_from_reference=pose,
        geometry=geometry,
        scale=scale,
        scale_std=float("nan"),
        covariance=covariance,
        inliers=inliers,
        num_matches=len(inliers),
        num_inliers=count,
        inlier_ratio=count / len(inliers),
        median_epipolar_px=error_px,
        median_triangulation_deg=angle,
        homography_inlier_ratio=plane,
        status=f"{what}, homography {100 * plane:.0f}% of the inliers; refined from the predicted pose",
    )


def _explained_px(fit: Fit, config: PoseConfig) -> float:
    """Distance within which a model explains a match."""
    return float(min(config.max_homography_error_px, config.noise_factor * max(fit.sigma * fit.seen.camera.focal, 0.2)))


def _homography_ratio(a: Float64, b: Float64, limit: float) -> float:
    """Share of pairs (N, 2) that one homography carries within a limit: least squares, then again on those within."""
    within: NDArray[np.bool_] = np.ones(len(a), np.bool_)
    distance = np.full(len(a), np.inf)
    for factor in (3.0, 1.5, 1.0):
        if within.sum() < 8:
            return 0.0
        H, _ = cv2.findHomography(a[within], b[within], 0)
        if H is None:
            return 0.0
        carried = np.column_stack([a, np.ones(len(a))]) @ np.asarray(H, np.float64).T
        distance = np.linalg.norm(carried[:, :2] / carried[:, 2:] - b, axis=1)
        spread = max(factor * limit, float(np.median(distance))) if factor > 1.0 else limit
        within = distance < spread
    return float(np.mean(distance < limit))
