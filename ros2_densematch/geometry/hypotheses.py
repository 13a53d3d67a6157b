"""Starting poses by PoseLib's LO-RANSAC on all matches and on parts of them, judged by one weighted likelihood.

PoseLib takes no weights, but its answers can be compared: each is judged on all matches by the truncated squared
epipolar distance (MSAC; Torr and Zisserman, "MLESAC", CVIU 2000), weighted by the matches' scores. Answers that are
about as likely as the best one but lie elsewhere say what the residuals around one answer cannot: that groups of
matches contradict each other, and how far the pose may be off.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import poselib  # type: ignore[import-untyped]
from numpy.typing import NDArray

from ros2_densematch.geometry import poses, rays
from ros2_densematch.geometry.rays import Rays

Float64 = NDArray[np.float64]
Floats = NDArray[np.float32]
BoolArray = NDArray[np.bool_]

_MOST_SAMPLED = 800  # matches of a search that is not thorough
_LEAST = 30  # matches of a part that may give a pose of its own
_BEST_SHARE = 3  # one in so many matches, those of the highest scores, is a part
_TOLERANCE = 5.0  # wrong matches' worth of likelihood by which an answer may be worse and still counts
_EXPECTED = 20.0  # squared normalised difference, five parameters, that a part of the matches may give by its noise
_WEIGHT = 0.5  # of the squared difference of an equally likely answer, in the covariance


@dataclass(frozen=True, eq=False)
class Hypothesis:
    """A pose that some of the matches support.

    Attributes:
        R: float64 (3, 3), rotation query from reference.
        t: float64 (3,), unit translation.
        cost: weighted truncated squared epipolar distance of all matches; one wrong match costs 1.
    """

    R: Float64
    t: Float64
    cost: float


@dataclass(frozen=True)
class Sampling:
    """Settings of LO-RANSAC, as in `two_view.PoseConfig`, and whether further hypotheses are wanted beside the best."""

    max_epipolar_error_px: float
    min_iterations: int
    max_iterations: int
    success_probability: float
    seed: int
    thorough: bool = True


def search(all_rays: Rays, score: Floats, sampling: Sampling) -> list[Hypothesis]:
    """Hypotheses, the most likely one first: from all matches, from each half of the tiles of the image, like the
    colours of a chessboard, and from the matches of the highest scores where the scores differ. A search that is not
    thorough gives one hypothesis, sampled from at most `_MOST_SAMPLED` matches."""
    n = len(all_rays)
    if not sampling.thorough:
        some = all_rays if n <= _MOST_SAMPLED else all_rays.select(np.linspace(0, n - 1, _MOST_SAMPLED).astype(np.intp))
        R, t = ransac(some, sampling)
        return [Hypothesis(R, t, cost(all_rays, np.ones(n), R, t, sampling.max_epipolar_error_px))]
    row, column = np.divmod(all_rays.cell, rays.CELLS_A_ROW)
    even = (row + column) % 2 == 0
    parts = [np.ones(n, np.bool_), even, ~even]
    if np.ptp(score) > 1e-3:
        best = np.zeros(n, np.bool_)
        best[np.argsort(-score, kind="stable")[: n // _BEST_SHARE]] = True
        parts.append(best)
    weight = np.clip(score.astype(np.float64), 0.05, 1.0)
    found = []
    for k, part in enumerate(parts):
        if k == 0 or part.sum() >= _LEAST:
            R, t = ransac(all_rays if k == 0 else all_rays.select(part), sampling)
            found.append(Hypothesis(R, t, cost(all_rays, weight, R, t, sampling.max_epipolar_error_px)))
    return sorted(found, key=lambda hypothesis: hypothesis.cost)


def cost(all_rays: Rays, weight: Float64, R: Float64, t: Float64, limit_px: float) -> float:
    """Sum of min(1, distance^2 / limit^2) over the matches, weighted; a match behind a camera costs 1."""
    squared = np.minimum((rays.epipolar_distance_px(all_rays, R, t) / limit_px) ** 2, 1.0)
    squared[~in_front(all_rays, R, t, limit_px)] = 1.0
    return float((weight * squared).sum())


def in_front(all_rays: Rays, R: Float64, t: Float64, limit_px: float) -> BoolArray:
    """Matches (N,) before both cameras; a point behind them counts where its rays are parallel up to the limit,
    because noise decides its sign."""
    z0, z1, angle = rays.depths(all_rays, R, t)
    parallel = angle < 2.0 * limit_px / min(all_rays.focal0, all_rays.focal1)
    return np.asarray(((z0 > 0) & (z1 > 0)) | parallel, np.bool_)


def ransac(some: Rays, sampling: Sampling) -> tuple[Float64, Float64]:
    """Rotation and unit translation from PoseLib. Its cameras are pinholes with the mean focal lengths, so that its
    threshold is in pixels."""
    options = {
        "max_epipolar_error": sampling.max_epipolar_error_px,
        "min_iterations": sampling.min_iterations,
        "max_iterations": sampling.max_iterations,
        "success_prob": sampling.success_probability,
        "seed": sampling.seed,
    }
    cameras = [
        {"model": "SIMPLE_PINHOLE", "width": 0, "height": 0, "params": [focal, 0.0, 0.0]}
        for focal in (some.focal0, some.focal1)
    ]
    pose, _ = poselib.estimate_relative_pose(
        some.x0[:2].T * some.focal0, some.x1[:2].T * some.focal1, *cameras, options, {}
    )
    t = np.asarray(pose.t, np.float64).ravel()
    length = float(np.linalg.norm(t))
    t = t / length if np.isfinite(length) and length > 1e-12 else np.array([1.0, 0.0, 0.0])
    return poses.nearest_rotation(pose.R), t


def spread(found: list[Hypothesis], R: Float64, t: Float64, best_cost: float, covariance: Float64) -> Float64:
    """Covariance (6, 6) of the other answers around a pose, order translation direction, rotation: squared differences
    weighted by how likely each is against the pose, as far as the pose's own covariance (6, 6) does not expect them."""
    result = np.zeros((6, 6))
    own = np.linalg.pinv(covariance, rcond=1e-9, hermitian=True)
    for other in found:
        worse = max(other.cost - best_cost, 0.0)
        difference = pose_difference(R, t, other.R, other.t)
        surprise = max(0.0, 1.0 - _EXPECTED / max(float(difference @ own @ difference), 1e-12))
        result += _WEIGHT * surprise * float(np.exp(-worse / _TOLERANCE)) * np.outer(difference, difference)
    return result / max(len(found), 1)


def pose_difference(R: Float64, t: Float64, other_R: Float64, other_t: Float64) -> Float64:
    """Difference (6,) of another pose from (R, t): the angle between the directions, in the tangent plane of t, and the
    rotation vector."""
    aside = other_t - (other_t @ t) * t
    length = float(np.linalg.norm(aside))
    angle = float(np.arctan2(length, other_t @ t))
    direction = aside * (angle / length) if length > 1e-12 else np.zeros(3)
    return np.concatenate([direction, poses.log_rotation(other_R @ R.T)])
