"""Metric scale of a relative pose from a depth image, a stereo pair or an odometry prior.

Depth and stereo give the depth of reference points; the pose is then solved anew for all six degrees of freedom, from
the reprojection of the points with depth and the epipolar distance of the others together. That is as exact as the data
allow and stays well-posed for a pure rotation, where a ratio of lengths would not be.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
import poselib  # type: ignore[import-untyped]
from numpy.typing import NDArray

from ros2_densematch.arrays import Float64
from ros2_densematch.geometry import least_squares, models, poses, rays
from ros2_densematch.geometry.camera import Camera
from ros2_densematch.geometry.correspondences import Correspondences
from ros2_densematch.geometry.least_squares import Block
from ros2_densematch.geometry.rays import Rays
from ros2_densematch.geometry.relative_pose import RelativePose, Scale

_MIN_DEPTHS = 10  # points with depth: six unknowns, and some to judge the noise
_CHI2_2DOF = 13.8  # 99.9 % of a chi-square variable with two degrees of freedom


@dataclass(frozen=True, eq=False)
class DepthScale:
    """Metric scale from a depth image of the reference camera.

    Attributes:
        reference_depth: float32 (H, W), Z along the optical axis in metres, registered to the reference image and of
            its size; NaN, 0 or negative = unknown.
        std_fraction: standard deviation of one depth over the depth.
        scale_error: standard deviation of a common relative error of all depths (a wrong depth unit); it widens the
            translation's covariance and cannot be found in the data.
    """

    reference_depth: NDArray[np.float32]
    std_fraction: float = 0.02
    scale_error: float = 0.0
    name: str = field(default="depth image", init=False)

    def __post_init__(self) -> None:
        if self.reference_depth.ndim != 2:
            raise ValueError(f"reference_depth must be (H, W) in metres, got shape {self.reference_depth.shape}")
        if not np.issubdtype(self.reference_depth.dtype, np.floating):
            raise ValueError(
                f"reference_depth must be float metres, got {self.reference_depth.dtype}: divide millimetres by 1000"
            )
        _check_positive("std_fraction", self.std_fraction)
        _check_not_negative("scale_error", self.scale_error)

    def inverse_depth(self, m: Correspondences, camera0: Camera) -> tuple[Float64, Float64]:
        """Inverse depth (N,) in 1/m of the reference points and its standard deviation; NaN where unknown.

        Raises:
            ValueError: the depth image is not of the reference image's size.
        """
        height, width = self.reference_depth.shape
        if (width, height) != camera0.size:
            raise ValueError(
                f"the depth image is {width} x {height}, the reference image {camera0.width} x {camera0.height}: "
                "register the depth to the image (depth_image_proc) or resize it with nearest neighbour"
            )
        inverse = sample_inverse(self.reference_depth, m.reference_xy)
        return inverse, self.std_fraction * inverse


@dataclass(frozen=True, eq=False)
class StereoScale:
    """Metric scale from a second camera right of the reference one: parallel optical axes, rows aligned (rectified).

    Attributes:
        baseline: distance of the two cameras in metres (`Camera.baseline` of the right camera).
        disparity: float32 (H, W) of the reference image in pixels, x_left - x_right, or None; NaN, 0 or
            negative = unknown.
        matches: correspondences from the reference (left) to the right image, or None.
        right_camera: the right camera; default the reference camera.
        disparity_std_px: standard deviation of one disparity.
        scale_error: relative standard deviation of the baseline.
    """

    baseline: float
    disparity: NDArray[np.float32] | None = None
    matches: Correspondences | None = None
    right_camera: Camera | None = None
    disparity_std_px: float = 0.5
    scale_error: float = 0.0
    name: str = field(default="stereo baseline", init=False)

    def __post_init__(self) -> None:
        if not (np.isfinite(self.baseline) and self.baseline > 0):
            raise ValueError(f"the stereo baseline must be positive metres, got {self.baseline}: see P[3] on the right")
        if (self.disparity is None) == (self.matches is None):
            raise ValueError("StereoScale takes either a disparity image or matches to the right image")
        _check_positive("disparity_std_px", self.disparity_std_px)
        _check_not_negative("scale_error", self.scale_error)

    def inverse_depth(self, m: Correspondences, camera0: Camera) -> tuple[Float64, Float64]:
        """Inverse depth (N,) in 1/m of the reference points and its standard deviation; NaN where unknown.

        Raises:
            ValueError: the disparity image is not of the reference image's size.
        """
        right = self.right_camera or camera0
        std = self.disparity_std_px / (right.K[0, 0] * self.baseline)
        if self.matches is not None:
            inverse = _from_stereo_matches(self.matches, m, camera0, right, self.baseline)
        else:
            assert self.disparity is not None
            if self.disparity.shape != (camera0.height, camera0.width):
                raise ValueError(
                    f"the disparity image has shape {self.disparity.shape}, the reference image is "
                    f"{camera0.width} x {camera0.height}: compute it at the image's size"
                )
            pixels = sample_bilinear(self.disparity, m.reference_xy) - (camera0.K[0, 2] - right.K[0, 2])
            inverse = np.where(pixels > 0, pixels, np.nan) / (right.K[0, 0] * self.baseline)
        return inverse, np.where(np.isfinite(inverse), std, np.nan)


@dataclass(frozen=True, eq=False)
class PriorScale:
    """Metric scale from a motion measured elsewhere (wheel or inertial odometry).

    Attributes:
        T_query_from_reference: float64 (4, 4), metric, between the two optical frames. Only its translation is used.
        std: standard deviation of each component of that translation in metres.
    """

    T_query_from_reference: Float64
    std: float
    name: str = field(default="odometry prior", init=False)

    def __post_init__(self) -> None:
        T = np.asarray(self.T_query_from_reference, np.float64)
        if T.shape != (4, 4) or not np.all(np.isfinite(T)):
            raise ValueError(f"the prior must be a finite 4 x 4 pose, got {T.tolist()}")
        _check_positive("std", self.std)


ScaleSource = DepthScale | StereoScale | PriorScale


def apply(
    source: ScaleSource, candidates: list[RelativePose], all_rays: Rays, m: Correspondences, camera0: Camera
) -> RelativePose:
    """The pose with metric translation, or the pose as it was, with the reason in its status, where the source does not
    allow one.

    Args:
        source: where metres come from.
        candidates: one pose, or the two that a plane allows, the preferred one first; the source decides between them.
        all_rays, m: the matches, as rays and as pixels, in the order of `RelativePose.inliers`.
        camera0: the reference camera.
    """
    results = [_apply_to(source, pose, all_rays, m, camera0) for pose in candidates]
    best, cost = min(results, key=lambda result: result[1])
    if len(results) > 1 and np.isfinite(cost):
        return replace(best, status=f"{best.status}, which decided between the two motions")
    return best


def _apply_to(
    source: ScaleSource, pose: RelativePose, all_rays: Rays, m: Correspondences, camera0: Camera
) -> tuple[RelativePose, float]:
    """The metric pose and how badly it fits the source: infinite where it does not."""
    if isinstance(source, PriorScale):
        return _with_prior(source, pose)
    inverse, std = source.inverse_depth(m, camera0)
    known = np.isfinite(inverse) & (inverse > 0)
    used = known & pose.inliers
    if used.sum() < _MIN_DEPTHS:
        return _unscaled(pose, source.name, f"{int(used.sum())} inliers have depth, {_MIN_DEPTHS} are needed")
    solved = _solve(pose, all_rays, inverse, std, used)
    if solved is None:
        return _unscaled(pose, source.name, "the points with depth do not determine the motion")
    T, covariance, cost = solved
    if source.scale_error > 0:
        covariance = covariance.copy()
        covariance[:3, :3] += source.scale_error**2 * np.outer(T[:3, 3], T[:3, 3])
    return _metric(pose, T, covariance, f"metric by the {source.name} at {int(used.sum())} inliers"), cost


def _solve(
    pose: RelativePose, all_rays: Rays, inverse: Float64, std: Float64, used: NDArray[np.bool_]
) -> tuple[Float64, Float64, float] | None:
    """Six-degree-of-freedom solution from points with inverse depth and, where the translation is visible, the epipolar
    distances of the others; with its covariance (6, 6) and its cost in pixels^2."""
    with_depth = all_rays.select(used)
    points = np.concatenate([with_depth.x0, inverse[used][None]])
    R, t = pose.T_query_from_reference[:3, :3], pose.T_query_from_reference[:3, 3]
    directed = pose.scale is Scale.UNIT
    others = all_rays.select(pose.inliers & ~used) if directed else all_rays.select(np.zeros(len(all_rays), np.bool_))
    start = _scaled_start(with_depth, inverse[used], R, t) if directed else None
    if start is None:
        start = _absolute_start(with_depth, inverse[used])
    if start is None:
        return None
    # The pixel noise by which the matches scatter: depth noise is in metres and must be weighed against it.
    if directed:
        block = models.sampson_block(all_rays.select(pose.inliers), R, t, np.zeros((1, 3, 3)))
    else:
        block = models.transfer_block(with_depth, with_depth.x0, R, np.zeros((1, 3, 3)))
    pixel_noise = least_squares.noise_scale([block])
    std_ratio = std[used] / pixel_noise

    def depth_noise(M: Float64) -> Float64:
        moved = M @ points
        depth = np.maximum(moved[2], 1e-9)
        by_inverse = (M[:2, 3:] - moved[:2] / depth * M[2, 3]) / depth * std_ratio
        return np.stack([by_inverse[0] ** 2, by_inverse[0] * by_inverse[1], by_inverse[1] ** 2])

    def evaluate(T: Float64) -> list[Block]:
        M = T[:3]
        derivatives = np.zeros((6, 3, 4))
        derivatives[:3, :, 3] = np.eye(3)
        derivatives[3:, :, :3] = models.GENERATORS @ M[:, :3]
        blocks = [models.transfer_block(with_depth, points, M, derivatives, depth_noise(M))]
        length = float(np.linalg.norm(M[:, 3]))
        if len(others) and length > 1e-9:
            essential = np.concatenate(
                [poses.skew(np.eye(3) / length) @ M[:, :3], poses.skew(M[:, 3] / length) @ models.GENERATORS @ M[:, :3]]
            )
            blocks.append(models.sampson_block(others, M[:, :3], M[:, 3] / length, essential))
        return blocks

    def shared(T: Float64) -> list[Float64]:
        blocks = [models.transfer_shared(with_depth, points, T[:3], depth_noise(T[:3]))]
        length = float(np.linalg.norm(T[:3, 3]))
        if len(others) and length > 1e-9:
            blocks.append(models.sampson_shared(others, T[:3, :3], T[:3, 3] / length))
        return blocks

    def retract(T: Float64, step: Float64) -> Float64:
        return poses.make_pose(poses.exp_rotation(step[3:]) @ T[:3, :3], T[:3, 3] + step[:3])

    solution = least_squares.minimise(evaluate, retract, start, iterations=20, shared=shared)
    if solution is None:
        return None
    return solution.state, solution.covariance, solution.cost * solution.scale**2


def _scaled_start(with_depth: Rays, inverse: Float64, R: Float64, t: Float64) -> Float64 | None:
    """The pose with the median ratio of measured over triangulated depth; None where the rays are too parallel."""
    z0, _, _ = rays.depths(with_depth, R, t)
    ratio = 1.0 / (inverse * z0)
    # A negative ratio is a point behind the camera: parallel rays and noise.
    ratio = ratio[np.isfinite(ratio) & (ratio > 0)]
    if len(ratio) < _MIN_DEPTHS:
        return None
    return poses.make_pose(R, t * float(np.median(ratio)))


def _absolute_start(with_depth: Rays, inverse: Float64) -> Float64 | None:
    """Pose of the query camera from 3-D points and query pixels (PoseLib's P3P with LO-RANSAC)."""
    focal = with_depth.focal1
    camera = {"model": "SIMPLE_PINHOLE", "width": 0, "height": 0, "params": [focal, 0.0, 0.0]}
    found, info = poselib.estimate_absolute_pose(
        np.ascontiguousarray(with_depth.x1[:2].T * focal),
        np.ascontiguousarray((with_depth.x0 / inverse).T),
        camera,
        {"max_reproj_error": 3.0, "seed": 0, "max_iterations": 2000, "min_iterations": 50},
        {},
    )
    if info["num_inliers"] < _MIN_DEPTHS or not np.all(np.isfinite(found.t)):
        return None
    return poses.make_pose(poses.nearest_rotation(found.R), found.t)


def _with_prior(source: PriorScale, pose: RelativePose) -> tuple[RelativePose, float]:
    """Gaussian fusion of the image's rotation and direction with the prior's translation."""
    prior = np.asarray(source.T_query_from_reference, np.float64)[:3, 3]
    variance = source.std**2
    if pose.scale is not Scale.UNIT:
        covariance = pose.covariance.copy()
        covariance[:3, :3] = variance * np.eye(3)
        T = poses.make_pose(pose.T_query_from_reference[:3, :3], prior)
        return _metric(pose, T, covariance, f"translation as given by the {source.name}"), 0.0
    direction = pose.T_query_from_reference[:3, 3]
    length = float(direction @ prior)
    basis = models.tangent_basis(direction)
    lower = np.zeros((5, 6))
    lower[:2, :3], lower[2:, 3:] = basis.T, np.eye(3)
    seen = lower @ pose.covariance @ lower.T  # of the direction in its tangent plane, and of the rotation
    aside = basis.T @ prior
    expected = variance * np.eye(2) + max(length, 0.0) ** 2 * seen[:2, :2]
    cost = float(aside @ np.linalg.solve(expected, aside))
    if length <= 0 or cost > _CHI2_2DOF:
        angle = poses.direction_angle_deg(direction, prior)
        return _unscaled(pose, source.name, f"its direction differs from the images' by {angle:.1f} degrees")
    lower[:2] /= length
    information = lower.T @ np.linalg.solve(seen, lower)
    information[:3, :3] += np.eye(3) / variance
    gain = np.zeros(6)
    gain[:3] = (prior - length * direction) / variance
    covariance = np.linalg.inv(information)
    step = covariance @ gain
    R = poses.exp_rotation(step[3:]) @ pose.T_query_from_reference[:3, :3]
    T = poses.make_pose(R, length * direction + step[:3])
    return _metric(pose, T, np.asarray(0.5 * (covariance + covariance.T)), f"metric by the {source.name}"), cost


def _metric(pose: RelativePose, T: Float64, covariance: Float64, note: str) -> RelativePose:
    t = T[:3, 3]
    length = float(np.linalg.norm(t))
    along = (
        t @ covariance[:3, :3] @ t / length**2 if length > 1e-9 else float(np.linalg.eigvalsh(covariance[:3, :3])[-1])
    )
    return replace(
        pose,
        T_query_from_reference=T,
        covariance=covariance,
        scale=Scale.METRIC,
        scale_std=float(np.sqrt(along)),
        status=f"{pose.status}; {note}",
    )


def _unscaled(pose: RelativePose, source: str, reason: str) -> tuple[RelativePose, float]:
    return replace(pose, status=f"{pose.status}; no metric scale from the {source}: {reason}"), float("inf")


def sample_bilinear(image: NDArray[np.float32], xy: NDArray[np.float32]) -> Float64:
    """Bilinear values (N,) of an image (H, W) at pixels (N, 2); NaN outside, next to an unknown pixel (not finite or
    not positive), and across an edge, where the four neighbours differ by more than a tenth."""
    height, width = image.shape
    inside = np.isfinite(xy).all(1) & (xy >= 0).all(1) & (xy[:, 0] <= width - 1) & (xy[:, 1] <= height - 1)
    points = np.where(inside[:, None], xy, 0.0).astype(np.float64)
    x = np.minimum(points[:, 0].astype(np.intp), max(width - 2, 0))
    y = np.minimum(points[:, 1].astype(np.intp), max(height - 2, 0))
    fx, fy = points[:, 0] - x, points[:, 1] - y
    right, below = np.minimum(x + 1, width - 1), np.minimum(y + 1, height - 1)
    corners = np.stack([image[y, x], image[y, right], image[below, x], image[below, right]]).astype(np.float64)
    weights = np.stack([(1 - fx) * (1 - fy), fx * (1 - fy), (1 - fx) * fy, fx * fy])
    with np.errstate(invalid="ignore"):
        smooth = np.all(corners > 0, 0) & (corners.max(0) < 1.1 * corners.min(0)) & np.isfinite(corners).all(0)
        value = (weights * corners).sum(0)
    return np.where(inside & smooth, value, np.nan)


def sample_inverse(depth: NDArray[np.float32], xy: NDArray[np.float32]) -> Float64:
    """Inverse depth (N,), interpolated as such: on a plane the inverse depth is linear in the pixel."""
    with np.errstate(divide="ignore", invalid="ignore"):
        inverse = np.where(depth > 0, 1.0 / depth, np.nan).astype(np.float32)
    return sample_bilinear(inverse, xy)


def _from_stereo_matches(
    stereo: Correspondences, m: Correspondences, left: Camera, right: Camera, baseline: float
) -> Float64:
    """Inverse depth (N,) at the reference points from the stereo match found within a pixel of each."""
    n0, n1 = left.normalise(stereo.reference_xy), right.normalise(stereo.query_xy)
    difference = n0 - n1
    with np.errstate(invalid="ignore"):
        good = (difference[:, 0] > 0) & (np.abs(difference[:, 1]) * right.K[1, 1] < 2.0)
    inverse = difference[good, 0] / baseline
    pixels = np.rint(stereo.reference_xy[good]).astype(np.intp)
    table = np.full((left.height + 2, left.width + 2), -1, np.intp)
    # Of several matches in a cell the best one is written last; the exact cell wins over its neighbours.
    order = np.argsort(stereo.score[good], kind="stable")
    offsets = [(dx, dy) for dx in (-1, 0, 1) for dy in (-1, 0, 1)]
    for dx, dy in sorted(offsets, key=lambda offset: -abs(offset[0]) - abs(offset[1])):
        column = np.clip(pixels[order, 0] + 1 + dx, 0, left.width + 1)
        row = np.clip(pixels[order, 1] + 1 + dy, 0, left.height + 1)
        table[row, column] = order
    wanted = np.rint(m.reference_xy).astype(np.intp)
    found = table[np.clip(wanted[:, 1] + 1, 0, left.height + 1), np.clip(wanted[:, 0] + 1, 0, left.width + 1)]
    result = np.full(len(m), np.nan)
    result[found >= 0] = inverse[found[found >= 0]]
    return result


def _check_positive(name: str, value: float) -> None:
    if not (np.isfinite(value) and value > 0):
        raise ValueError(f"{name} must be positive, got {value}")


def _check_not_negative(name: str, value: float) -> None:
    if not (np.isfinite(value) and value >= 0):
        raise ValueError(f"{name} must not be negative, got {value}")
