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

from ros2_densematch.arrays import BoolArray, Float32, Float64
from ros2_densematch.geometry import poses, rays
from ros2_densematch.geometry.rays import Rays

_MOST_SAMPLED = 800  # matches of a search that is not thorough
_LEAST = 30  # matches of a part that may give a pose of its own
_BEST_SHARE = 3  # one in so many matches, those of the highest scores, is a part
_TOLERANCE = 5.0  # wrong matches' worth of likelihood by which an answer may be worse and still counts
# What the answers of parts of the matches, and the motions of a plane, add to the covariance. The figures come from
# rendered pairs (`benchmarks/two_view.py ablation`).
_PARTS = 1.5  # times the mean squared difference of the parts
_PARTS_EXPECTED = 3.0  # squared normalised difference of a part at which half of it counts: its own noise gives that
_INDEPENDENT_PARTS = 0.5  # times the same, where matches err one by one and only what noise does not explain counts
_PLANE = 0.3  # times the squared difference of a plane's motion that is as likely
_PLANE_DOMINATES = 0.5  # share of the inliers on one plane from which few others choose between its motions
_PLANE_TOLERANCE = 0.05  # then an answer may be worse by that share of the best one's cost, too
_SAME_MOTION = np.radians(1.0)  # a plane's motion this near is the pose itself, found less exactly
_EXPECTED = 20.0  # squared normalised difference, five parameters, that noise alone may give


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


def search(all_rays: Rays, score: Float32, sampling: Sampling) -> list[Hypothesis]:
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
    weight = weights(score)
    found = []
    for k, part in enumerate(parts):
        if k == 0 or part.sum() >= _LEAST:
            R, t = ransac(all_rays if k == 0 else all_rays.select(part), sampling)
            found.append(Hypothesis(R, t, cost(all_rays, weight, R, t, sampling.max_epipolar_error_px)))
    return sorted(found, key=lambda hypothesis: hypothesis.cost)


def weights(score: Float32) -> Float64:
    """Weights (N,) of matches by their scores: even a poor one counts a little."""
    return np.clip(score.astype(np.float64), 0.05, 1.0)


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


def of_plane(
    motions: list[tuple[Float64, Float64, Float64]], all_rays: Rays, score: Float32, limit_px: float
) -> list[Hypothesis]:
    """The motions (R, t, n) of a plane that many matches lie on, judged like all others.

    Matches on one plane leave two motions open. Where most lie on it, a few wrong ones off it choose between the two.
    """
    weight = weights(score)
    return [Hypothesis(R, t, cost(all_rays, weight, R, t, limit_px)) for R, t, _ in motions]


def spread(
    parts: list[Hypothesis],
    planes: list[Hypothesis],
    R: Float64,
    t: Float64,
    covariance: Float64,
    *,
    on_plane: float,
    independent: bool,
) -> Float64:
    """Covariance (6, 6) of the other answers around a pose, order translation direction, rotation: squared differences
    weighted by how likely each is against the pose, as far as the pose's own covariance (6, 6) does not expect them.

    Args:
        parts: answers of parts of the matches.
        planes: motions of the plane that most matches lie on.
        R, t: the pose.
        covariance: its own, order translation, rotation.
        on_plane: share of the inliers that lie on the plane.
        independent: each match errs by itself: what parts differ by their noise is in the pose's own covariance.
    """
    result = np.zeros((6, 6))
    own = np.linalg.pinv(covariance, rcond=1e-9, hermitian=True)
    best_cost = min((other.cost for other in [*parts, *planes]), default=0.0)

    tolerance = _TOLERANCE + (_PLANE_TOLERANCE * best_cost if on_plane >= _PLANE_DOMINATES else 0.0)

    def likely(other: Hypothesis) -> float:
        return float(np.exp(-(other.cost - best_cost) / tolerance))

    for other in parts:
        difference = pose_difference(R, t, other.R, other.t)
        squared = float(difference @ own @ difference)
        if independent:
            weight = _INDEPENDENT_PARTS * _beyond(squared)
        else:
            weight = _PARTS * squared / (squared + _PARTS_EXPECTED)
        result += weight / len(parts) * likely(other) * reach(difference)
    around = np.linalg.inv(covariance + _SAME_MOTION**2 * np.eye(6))
    for other in planes:
        difference = pose_difference(R, t, other.R, other.t)
        surprise = _beyond(float(difference @ around @ difference))
        result += _PLANE * surprise * likely(other) * reach(difference)
    return result


def _beyond(squared: float) -> float:
    """Share of a squared normalised difference that noise does not explain."""
    return max(0.0, 1.0 - _EXPECTED / max(squared, 1e-12))


def nearest(found: list[Hypothesis], motions: list[tuple[Float64, Float64]]) -> list[list[Hypothesis]]:
    """The hypotheses that lie nearest to each of some motions (R, t)."""
    shares: list[list[Hypothesis]] = [[] for _ in motions]
    for one in found:
        apart = [np.linalg.norm(pose_difference(R, t, one.R, one.t)) for R, t in motions]
        shares[int(np.argmin(apart))].append(one)
    return shares


def reach(difference: Float64) -> Float64:
    """Square (6, 6) of a difference of poses, that holds whether directions are compared along the arc or the chord."""
    result = np.outer(difference, difference)
    angle = float(np.linalg.norm(difference[:3]))
    if angle > 1e-6:
        bend = difference[:3] * (1.0 - np.sin(min(angle, np.pi)) / angle)
        result[:3, :3] += np.outer(bend, bend)
    return np.asarray(result, np.float64)


def pose_difference(R: Float64, t: Float64, other_R: Float64, other_t: Float64) -> Float64:
    """Difference (6,) of another pose from (R, t): the angle between the directions, in the tangent plane of t, and the
    rotation vector."""
    aside = other_t - (other_t @ t) * t
    length = float(np.linalg.norm(aside))
    angle = float(np.arctan2(length, other_t @ t))
    direction = aside * (angle / length) if length > 1e-12 else np.zeros(3)
    return np.concatenate([direction, poses.log_rotation(other_R @ R.T)])
