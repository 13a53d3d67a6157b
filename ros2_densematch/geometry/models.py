"""The three models of a calibrated image pair, each refined to its maximum-likelihood solution with a covariance:
essential matrix (general scene), plane-induced homography, and pure rotation."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from ros2_densematch.geometry import least_squares, poses
from ros2_densematch.geometry.least_squares import Block
from ros2_densematch.geometry.rays import Rays, epipolar_distance_px, transfer_distance_px

Float64 = NDArray[np.float64]

_GENERATORS = poses.skew(np.eye(3))  # (3, 3, 3): derivative of Exp(w) at w = 0


@dataclass(frozen=True, eq=False)
class Refined:
    """A refined model.

    Attributes:
        R: float64 (3, 3), rotation query from reference.
        t: float64 (3,), unit translation; zeros for a pure rotation.
        covariance: float64 (6, 6), order translation, rotation; zero along what the model does not know.
        scale: noise scale, 1 = as declared by `Rays.noise0` and `Rays.noise1`.
        normal: float64 (3,), normal of the plane over its distance, times the length of the translation; or None.
        cost: robust cost at the solution.
    """

    R: Float64
    t: Float64
    covariance: Float64
    scale: float
    cost: float
    normal: Float64 | None = None


@dataclass(frozen=True, eq=False)
class _Motion:
    R: Float64
    t: Float64
    n: Float64


def tangent_basis(t: Float64) -> Float64:
    """Two orthonormal vectors (3, 2) at right angles to a unit vector t (3,)."""
    axis = np.zeros(3)
    axis[int(np.argmin(np.abs(t)))] = 1.0
    first = np.cross(t, axis)
    first /= np.linalg.norm(first)
    return np.stack([first, np.cross(t, first)], 1)


def refine_essential(rays: Rays, R: Float64, t: Float64) -> Refined | None:
    """Rotation and direction of translation that minimise the Sampson distance, weighted by the noise of each match.

    With the noise of the query alone (a matcher's precision) the distance is exactly the Mahalanobis distance of the
    query point from its epipolar line. None where five parameters are not observable.
    """

    def evaluate(state: _Motion) -> list[Block]:
        return [_sampson_block(rays, state.R, state.t, _essential_derivatives(state.R, state.t))]

    solution = least_squares.minimise(evaluate, _retract_essential, _Motion(R, t / np.linalg.norm(t), np.zeros(3)))
    if solution is None:
        return None
    state = solution.state
    lift = np.zeros((6, 5))
    lift[3:, :3], lift[:3, 3:] = np.eye(3), tangent_basis(state.t)
    return Refined(state.R, state.t, lift @ solution.covariance @ lift.T, solution.scale, solution.cost)


def refine_rotation(rays: Rays, R: Float64) -> Refined | None:
    """The rotation that minimises the reprojection error of points at infinity."""

    def evaluate(state: Float64) -> list[Block]:
        derivatives = np.stack([G @ state for G in _GENERATORS])
        return [_transfer_block(rays, state, derivatives)]

    solution = least_squares.minimise(evaluate, lambda R, step: poses.exp_rotation(step) @ R, R)
    if solution is None:
        return None
    covariance = np.zeros((6, 6))
    covariance[3:, 3:] = solution.covariance
    return Refined(solution.state, np.zeros(3), covariance, solution.scale, solution.cost)


def refine_plane(rays: Rays, others: Rays, R: Float64, t: Float64, n: Float64) -> Refined | None:
    """Motion and plane, H = R + t n^T, that minimise the reprojection error of `rays` on the plane together with the
    Sampson distance of `others` off it."""

    def evaluate(state: _Motion) -> list[Block]:
        basis = tangent_basis(state.t)
        derivatives = np.concatenate(
            [
                np.stack([G @ state.R for G in _GENERATORS]),
                np.stack([np.outer(b, state.n) for b in basis.T]),
                np.stack([np.outer(state.t, e) for e in np.eye(3)]),
            ]
        )
        H = state.R + np.outer(state.t, state.n)
        blocks = [_transfer_block(rays, H, derivatives)]
        if len(others):
            essential = np.concatenate([_essential_derivatives(state.R, state.t), np.zeros((3, 3, 3))])
            blocks.append(_sampson_block(others, state.R, state.t, essential))
        return blocks

    def retract(state: _Motion, step: Float64) -> _Motion:
        moved = _retract_essential(state, step[:5])
        return _Motion(moved.R, moved.t, state.n + step[5:])

    solution = least_squares.minimise(evaluate, retract, _Motion(R, t, n))
    if solution is None:
        return None
    state = solution.state
    lift = np.zeros((6, 8))
    lift[3:, :3], lift[:3, 3:5] = np.eye(3), tangent_basis(state.t)
    return Refined(state.R, state.t, lift @ solution.covariance @ lift.T, solution.scale, solution.cost, state.n)


def fit_rotation(rays: Rays, guess: Float64) -> Float64:
    """A starting rotation: least squares over all rays (Wahba's problem), trimmed twice at the median, or the guess
    where that one's median error is smaller."""
    a = rays.x0 / np.linalg.norm(rays.x0, axis=1, keepdims=True)
    b = rays.x1 / np.linalg.norm(rays.x1, axis=1, keepdims=True)
    best, best_error = guess, float(np.median(transfer_distance_px(rays, guess)))
    kept = np.ones(len(rays), np.bool_)
    for _ in range(3):
        R = poses.nearest_rotation(b[kept].T @ a[kept])
        error = transfer_distance_px(rays, R)
        median = float(np.median(error))
        if median < best_error:
            best, best_error = R, median
        kept = error <= median
    return best


def fit_homography(rays: Rays, threshold_px: float) -> Float64 | None:
    """A homography (3, 3) of normalised coordinates by MAGSAC++ (OpenCV); None where there is none."""
    # The model decision needs no more points than this, and its time should not grow with the number of matches.
    chosen = np.linspace(0, len(rays) - 1, min(len(rays), 1000)).astype(np.intp)
    x0, x1 = rays.x0[chosen, :2] * rays.focal0, rays.x1[chosen, :2] * rays.focal1
    try:
        H, _ = cv2.findHomography(x0, x1, cv2.USAC_MAGSAC, threshold_px, maxIters=1000)
    except cv2.error:
        return None
    if H is None or not np.all(np.isfinite(H)) or abs(np.linalg.det(H)) < 1e-12:
        return None
    H = np.diag([1.0 / rays.focal1, 1.0 / rays.focal1, 1.0]) @ H @ np.diag([rays.focal0, rays.focal0, 1.0])
    # The sign for which points before the reference camera stay before the query camera.
    return np.asarray(H * np.sign(np.median(rays.x0 @ H[2])), np.float64)


def plane_motions(H: Float64, rays: Rays) -> list[tuple[Float64, Float64, Float64]]:
    """Motions (R, t, n) with H = R + t n^T and |t| = 1 that see the plane in front of the camera: none, one or two.

    Malis and Vargas, "Deeper understanding of the homography decomposition for vision-based control", INRIA 2007.
    """
    _, rotations, translations, normals = cv2.decomposeHomographyMat(H, np.eye(3))
    motions = []
    for R, t, n in zip(rotations, translations, normals, strict=True):
        length = float(np.linalg.norm(t))
        if length < 1e-9 or np.mean(rays.x0 @ n[:, 0] > 0) < 0.9:
            continue
        t, n = np.asarray(t[:, 0] / length, np.float64), np.asarray(n[:, 0] * length, np.float64)
        motions.append((np.asarray(R, np.float64), t, n))
    return motions


def choose_plane_motion(
    motions: list[tuple[Float64, Float64, Float64]], rays: Rays, limit_px: float
) -> tuple[tuple[Float64, Float64, Float64], bool]:
    """The motion that the points off the plane support; where none do, the one that turns less. The second value says
    that the choice was such a tie."""

    def support(motion: tuple[Float64, Float64, Float64]) -> float:
        distance = np.minimum(epipolar_distance_px(rays, motion[0], motion[1]), limit_px)
        return float((distance**2).sum() / limit_px**2)

    costs = np.array([support(motion) for motion in motions])
    order = np.argsort(costs, kind="stable")
    # A difference below three points' full cost, or 2 % of all, is noise.
    tied = [motions[i] for i in order if costs[i] - costs[order[0]] < max(3.0, 0.02 * len(rays))]
    tied.sort(key=lambda motion: poses.rotation_angle_deg(motion[0]))
    return tied[0], len(tied) > 1


def _essential_derivatives(R: Float64, t: Float64) -> Float64:
    """Derivatives (5, 3, 3) of E = [t]x R by rotation (3) and translation in the tangent plane (2)."""
    T = poses.skew(t)
    by_rotation = [T @ G @ R for G in _GENERATORS]
    by_translation = [poses.skew(b) @ R for b in tangent_basis(t).T]
    return np.stack(by_rotation + by_translation)


def _retract_essential(state: _Motion, step: Float64) -> _Motion:
    t = state.t + tangent_basis(state.t) @ step[3:]
    return _Motion(poses.exp_rotation(step[:3]) @ state.R, t / np.linalg.norm(t), state.n)


def _sampson_block(rays: Rays, R: Float64, t: Float64, derivatives: Float64) -> Block:
    E = poses.skew(t) @ R
    line1, line0 = rays.x0 @ E.T, rays.x1 @ E
    e = (rays.x1 * line1).sum(1)
    noise_a = np.einsum("nij,nj->ni", rays.noise1, line1[:, :2])
    noise_b = np.einsum("nij,nj->ni", rays.noise0, line0[:, :2])
    variance = (noise_a * line1[:, :2]).sum(1) + (noise_b * line0[:, :2]).sum(1)
    sigma = np.sqrt(np.maximum(variance, 1e-300))
    residual = e / sigma
    columns = []
    for D in derivatives:
        d1, d0 = rays.x0 @ D.T, rays.x1 @ D
        de = (rays.x1 * d1).sum(1)
        half_dv = (noise_a * d1[:, :2]).sum(1) + (noise_b * d0[:, :2]).sum(1)
        columns.append((de - residual * half_dv / sigma) / sigma)
    return Block(residual[:, None], np.stack(columns, 1)[:, None, :])


def _transfer_block(rays: Rays, H: Float64, derivatives: Float64) -> Block:
    """Whitened reprojection residuals (N, 2) of x0 moved by H, which carries the reference point's noise over."""
    moved = rays.x0 @ H.T
    depth = np.where(moved[:, 2] > 1e-9, moved[:, 2], 1e-9)
    point = moved[:, :2] / depth[:, None]
    transfer = (H[:2, :2][None] - point[:, :, None] * H[2, :2][None, None]) / depth[:, None, None]
    noise = rays.noise1 + transfer @ rays.noise0 @ np.swapaxes(transfer, 1, 2)
    whiten = np.linalg.inv(np.linalg.cholesky(noise))
    residual = np.einsum("nij,nj->ni", whiten, point - rays.x1[:, :2])
    columns = []
    for D in derivatives:
        d = rays.x0 @ D.T
        columns.append((d[:, :2] - point * d[:, 2:]) / depth[:, None])
    return Block(residual, whiten @ np.stack(columns, 2))
