"""Robust estimators of a relative pose, all with one signature; thresholds are pixels of the images that K belongs
to."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import poselib  # type: ignore[import-untyped]
from numpy.typing import NDArray

from ros2_densematch.arrays import Float64
from ros2_densematch.evaluation.protocols import EstimatorName
from ros2_densematch.geometry import poses
from ros2_densematch.geometry.camera import Camera
from ros2_densematch.geometry.correspondences import Correspondences
from ros2_densematch.geometry.relative_pose import RelativePose
from ros2_densematch.geometry.two_view import PoseConfig, estimate_relative_pose

LEAST_MATCHES = 5  # of an essential matrix
CONFIDENCE = 0.99999
OPENCV_ITERATIONS = {cv2.RANSAC: 1000, cv2.USAC_MAGSAC: 2000}
POSELIB_ITERATIONS = 10_000


@dataclass(frozen=True, eq=False)
class Problem:
    """Matches between two calibrated images.

    Attributes:
        xy0, xy1: (N, 2) pixels.
        K0, K1: (3, 3).
        D0, D1: distortion k1 k2 p1 p2 k3, or None.
        size0, size1: (width, height).
        score, precision: (N,) and (N, 3) or None, as in `Correspondences`.
    """

    xy0: Float64
    xy1: Float64
    K0: Float64
    K1: Float64
    D0: Float64 | None
    D1: Float64 | None
    size0: tuple[int, int]
    size1: tuple[int, int]
    score: NDArray[np.float32]
    precision: NDArray[np.float32] | None

    @property
    def focal(self) -> float:
        """Mean focal length of both cameras in pixels."""
        return float((self.K0[0, 0] + self.K0[1, 1] + self.K1[0, 0] + self.K1[1, 1]) / 4)

    def rays(self) -> tuple[Float64, Float64]:
        """Both points of each match on the plane z = 1, (N, 2)."""
        return _normalised(self.xy0, self.K0, self.D0), _normalised(self.xy1, self.K1, self.D1)

    def shuffled(self, order: NDArray[np.intp]) -> Problem:
        """The same matches in another order."""
        precision = None if self.precision is None else self.precision[order]
        rest = (self.K0, self.K1, self.D0, self.D1, self.size0, self.size1, self.score[order], precision)
        return Problem(self.xy0[order], self.xy1[order], *rest)


@dataclass(frozen=True, eq=False)
class Estimate:
    """A pose (4, 4) T_query_from_reference or None, and how many matches agree with it."""

    T: Float64 | None
    inliers: int = 0


def _normalised(xy: Float64, K: Float64, D: Float64 | None) -> Float64:
    if D is not None and len(xy):
        return np.asarray(cv2.undistortPoints(np.ascontiguousarray(xy[:, None]), K, D)[:, 0], np.float64)
    return np.asarray((xy - K[[0, 1], [2, 2]]) / K[[0, 1], [0, 1]], np.float64)


def estimate(problem: Problem, name: EstimatorName, threshold_px: float, seed: int) -> Estimate:
    """The relative pose by one of the estimators; the same input and seed give the same result."""
    if name == "own":
        found = own_pose(problem, threshold_px, seed)
        known = found.ok and np.linalg.norm(found.T_query_from_reference[:3, 3]) > 1e-12
        return Estimate(found.T_query_from_reference if known else None, found.num_inliers)
    if len(problem.xy0) < LEAST_MATCHES:
        return Estimate(None)
    if name == "poselib":
        return _poselib(problem, threshold_px, seed)
    return _opencv(problem, cv2.USAC_MAGSAC if name == "magsac" else cv2.RANSAC, threshold_px, seed)


def own_pose(problem: Problem, threshold_px: float, seed: int) -> RelativePose:
    """Our own estimator with its defaults but for the threshold."""
    p = problem
    cameras = [
        Camera(size[0], size[1], K, "none" if D is None else "plumb_bob", np.zeros(0) if D is None else D)
        for size, K, D in ((p.size0, p.K0, p.D0), (p.size1, p.K1, p.D1))
    ]
    xy = (p.xy0.astype(np.float32), p.xy1.astype(np.float32))
    matches = Correspondences(*xy, p.score, 1.0, p.size0, p.size1, p.precision)
    return estimate_relative_pose(matches, *cameras, config=PoseConfig(max_epipolar_error_px=threshold_px), seed=seed)


def _poselib(p: Problem, threshold_px: float, seed: int) -> Estimate:
    """LO-RANSAC of PoseLib (Larsson et al.); distorted points are undistorted into the same intrinsics first."""
    points = []
    for xy, K, D in ((p.xy0, p.K0, p.D0), (p.xy1, p.K1, p.D1)):
        flat = xy if D is None else _normalised(xy, K, D) * K[[0, 1], [0, 1]] + K[[0, 1], [2, 2]]
        points.append(np.ascontiguousarray(flat, np.float64))
    options = {"max_epipolar_error": threshold_px, "max_iterations": POSELIB_ITERATIONS, "seed": seed}
    pose, info = poselib.estimate_relative_pose(*points, _pinhole(p.K0), _pinhole(p.K1), options, {})
    T = np.eye(4)
    T[:3] = pose.Rt
    usable = np.isfinite(T).all() and np.linalg.norm(T[:3, 3]) > 1e-12
    return Estimate(T if usable else None, int(info.get("num_inliers", 0)))


def _pinhole(K: Float64) -> dict[str, object]:
    width, height = int(2 * K[0, 2]) + 1, int(2 * K[1, 2]) + 1
    params = [K[0, 0], K[1, 1], K[0, 2], K[1, 2]]
    return {"model": "PINHOLE", "width": width, "height": height, "params": params}


def _opencv(p: Problem, method: int, threshold_px: float, seed: int) -> Estimate:
    """OpenCV's findEssentialMat on normalised points and recoverPose; of several solutions the one that has most points
    in front of both cameras."""
    n0, n1 = (np.ascontiguousarray(n) for n in p.rays())
    cv2.setRNGSeed(seed)
    try:
        limit, iterations = threshold_px / p.focal, OPENCV_ITERATIONS[method]
        E, mask = cv2.findEssentialMat(n0, n1, np.eye(3), method, CONFIDENCE, limit, iterations)
        if E is None or E.shape[0] < 3:
            return Estimate(None)
        best = Estimate(None)
        for row in range(0, E.shape[0] - 2, 3):
            # the distance limit of recoverPose (50 baselines by default) would drop far points
            count, R, t, *_ = cv2.recoverPose(E[row : row + 3], n0, n1, np.eye(3), 1e9, mask=mask.copy())
            if count > best.inliers:
                best = Estimate(poses.make_pose(R, t[:, 0]), int(count))
    except cv2.error:  # too few points after its own checks
        return Estimate(None)
    return Estimate(best.T, int(np.count_nonzero(mask))) if best.T is not None else best
