"""The three models of a calibrated image pair, each refined to its maximum-likelihood solution with a covariance:
essential matrix (general scene), plane-induced homography, and pure rotation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from ros2_densematch.arrays import Float64
from ros2_densematch.geometry import least_squares, poses
from ros2_densematch.geometry.least_squares import Block
from ros2_densematch.geometry.rays import Rays, epipolar_distance_px, recalibrated, spread, transfer_distance_px

GENERATORS = poses.skew(np.eye(3))  # (3, 3, 3): derivative of Exp(w) at w = 0


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
    T = poses.skew(t)
    first = T[:, int(np.argmin(np.abs(t)))]  # t x axis, for the axis farthest from t
    first = first / np.linalg.norm(first)
    return np.stack([first, T @ first], 1)


def refine_essential(rays: Rays, R: Float64, t: Float64) -> Refined | None:
    """Rotation and direction of translation that minimise the Sampson distance, weighted by the noise of each match.

    With the noise of the query alone (a matcher's precision) the distance is exactly the Mahalanobis distance of the
    query point from its epipolar line. None where five parameters are not observable.
    """

    def evaluate(state: _Motion) -> list[Block]:
        return [sampson_block(rays, state.R, state.t, _essential_derivatives(state.R, state.t))]

    def shared(state: _Motion) -> list[Float64]:
        return [sampson_shared(rays, state.R, state.t)]

    start = _Motion(R, t / np.linalg.norm(t), np.zeros(3))
    solution = least_squares.minimise(evaluate, _retract_essential, start, shared=shared)
    if solution is None:
        return None
    state = solution.state
    lift = np.zeros((6, 5))
    lift[3:, :3], lift[:3, 3:] = np.eye(3), tangent_basis(state.t)
    return Refined(state.R, state.t, lift @ solution.covariance @ lift.T, solution.scale, solution.cost)


def refine_rotation(rays: Rays, R: Float64) -> Refined | None:
    """The rotation that minimises the reprojection error of points at infinity."""

    def evaluate(state: Float64) -> list[Block]:
        return [transfer_block(rays, rays.x0, state, GENERATORS @ state)]

    def shared(state: Float64) -> list[Float64]:
        return [transfer_shared(rays, rays.x0, state)]

    solution = least_squares.minimise(evaluate, lambda R, step: poses.exp_rotation(step) @ R, R, shared=shared)
    if solution is None:
        return None
    covariance = np.zeros((6, 6))
    covariance[3:, 3:] = solution.covariance
    return Refined(solution.state, np.zeros(3), covariance, solution.scale, solution.cost)


def calibrate_rotation(rays: Rays, R: Float64, calibration: int) -> tuple[Float64, Float64]:
    """Rotation and calibration error (Q,) that explain the matches best without any translation.

    A wrong focal length makes a pure rotation look like a small motion. Reweighted ridge regression: the error has unit
    variance, the matches the noise that is left.

    Args:
        calibration: Q, how many of the shared parameters of the rays are of the calibration.
    """
    k = np.zeros(calibration)
    for _ in range(3):
        moved = recalibrated(rays, k)
        block = transfer_block(moved, moved.x0, R, GENERATORS @ R)
        scale = least_squares.noise_scale([block])
        columns = np.concatenate([block.jacobian, transfer_shared(rays, rays.x0, R)[:calibration]])
        weight = 1.0 / (scale**2 + (block.residual**2).sum(0))
        flat = (columns * weight).reshape(len(columns), -1)
        information = flat @ columns.reshape(len(columns), -1).T
        gradient = flat @ block.residual.ravel()
        information[3:, 3:] += np.eye(calibration)
        gradient[3:] += k
        step = -np.linalg.lstsq(information, gradient, rcond=None)[0]
        R, k = poses.exp_rotation(step[:3]) @ R, k + step[3:]
    return R, k


def refine_plane(rays: Rays, others: Rays, R: Float64, t: Float64, n: Float64) -> Refined | None:
    """Motion and plane, H = R + t n^T, that minimise the reprojection error of `rays` on the plane together with the
    Sampson distance of `others` off it."""

    def evaluate(state: _Motion) -> list[Block]:
        basis = tangent_basis(state.t)
        derivatives = np.concatenate(
            [
                GENERATORS @ state.R,
                np.stack([np.outer(b, state.n) for b in basis.T]),
                np.stack([np.outer(state.t, e) for e in np.eye(3)]),
            ]
        )
        H = state.R + np.outer(state.t, state.n)
        blocks = [transfer_block(rays, rays.x0, H, derivatives)]
        if len(others):
            essential = np.concatenate([_essential_derivatives(state.R, state.t), np.zeros((3, 3, 3))])
            blocks.append(sampson_block(others, state.R, state.t, essential))
        return blocks

    def retract(state: _Motion, step: Float64) -> _Motion:
        moved = _retract_essential(state, step[:5])
        return _Motion(moved.R, moved.t, state.n + step[5:])

    def shared(state: _Motion) -> list[Float64]:
        blocks = [transfer_shared(rays, rays.x0, state.R + np.outer(state.t, state.n))]
        return [*blocks, sampson_shared(others, state.R, state.t)] if len(others) else blocks

    solution = least_squares.minimise(evaluate, retract, _Motion(R, t, n), shared=shared)
    if solution is None:
        return None
    state = solution.state
    lift = np.zeros((6, 8))
    lift[3:, :3], lift[:3, 3:5] = np.eye(3), tangent_basis(state.t)
    return Refined(state.R, state.t, lift @ solution.covariance @ lift.T, solution.scale, solution.cost, state.n)


def fit_rotation(rays: Rays, guess: Float64) -> Float64:
    """A starting rotation: least squares over all rays (Wahba's problem), trimmed twice at the median, or the guess
    where that one's median error is smaller."""
    a, b = rays.x0 / np.linalg.norm(rays.x0, axis=0), rays.x1 / np.linalg.norm(rays.x1, axis=0)
    best, best_error = guess, float(np.median(transfer_distance_px(rays, guess)))
    kept = np.ones(len(rays), np.bool_)
    for _ in range(3):
        R = poses.nearest_rotation(b[:, kept] @ a[:, kept].T)
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
    x0, x1 = rays.x0[:2, chosen].T * rays.focal0, rays.x1[:2, chosen].T * rays.focal1
    try:
        H, _ = cv2.findHomography(x0, x1, cv2.USAC_MAGSAC, threshold_px, maxIters=1000)
    except cv2.error:
        return None
    if H is None or not np.all(np.isfinite(H)) or abs(np.linalg.det(H)) < 1e-12:
        return None
    H = np.diag([1.0 / rays.focal1, 1.0 / rays.focal1, 1.0]) @ H @ np.diag([rays.focal0, rays.focal0, 1.0])
    # The sign for which points before the reference camera stay before the query camera.
    return np.asarray(H * np.sign(np.median(H[2] @ rays.x0)), np.float64)


def plane_motions(H: Float64, rays: Rays) -> list[tuple[Float64, Float64, Float64]]:
    """Motions (R, t, n) with H = R + t n^T and |t| = 1 that see the plane in front of the camera: none, one or two.

    Malis and Vargas, "Deeper understanding of the homography decomposition for vision-based control", INRIA 2007.
    """
    _, rotations, translations, normals = cv2.decomposeHomographyMat(H, np.eye(3))
    motions: list[tuple[Float64, Float64, Float64]] = []
    for R, t, n in zip(rotations, translations, normals, strict=True):
        length = float(np.linalg.norm(t))
        if length < 1e-9 or np.mean(n[:, 0] @ rays.x0 > 0) < 0.9:
            continue
        motions.append((_float(R), _float(t[:, 0] / length), _float(n[:, 0] * length)))
    return motions


def _float(values: NDArray[Any]) -> Float64:
    return np.asarray(values, np.float64)


def rank_plane_motions(
    motions: list[tuple[Float64, Float64, Float64]], rays: Rays, limit_px: float
) -> list[tuple[Float64, Float64, Float64]]:
    """The motions that the points off the plane support best; where these do not decide, all that are equal, the one
    that turns less first."""

    def support(motion: tuple[Float64, Float64, Float64]) -> float:
        distance = np.minimum(epipolar_distance_px(rays, motion[0], motion[1]), limit_px)
        return float((distance**2).sum() / limit_px**2)

    costs = [support(motion) for motion in motions]
    # A difference below three points' full cost, or 2 % of all, is noise.
    margin = max(3.0, 0.02 * len(rays))
    tied = [motion for motion, cost in zip(motions, costs, strict=True) if cost - min(costs) < margin]
    return sorted(tied, key=lambda motion: poses.rotation_angle_deg(motion[0]))


def _essential_derivatives(R: Float64, t: Float64) -> Float64:
    """Derivatives (5, 3, 3) of E = [t]x R by rotation (3) and translation in the tangent plane (2)."""
    return np.concatenate([poses.skew(t) @ GENERATORS @ R, poses.skew(tangent_basis(t).T) @ R])


def _retract_essential(state: _Motion, step: Float64) -> _Motion:
    t = state.t + tangent_basis(state.t) @ step[3:]
    return _Motion(poses.exp_rotation(step[:3]) @ state.R, t / np.linalg.norm(t), state.n)


def sampson_block(rays: Rays, R: Float64, t: Float64, derivatives: Float64) -> Block:
    """Epipolar errors x1^T E x0 over their standard deviations, with the exact derivative of both."""
    E = poses.skew(t) @ R
    line1, line0 = E @ rays.x0, E.T @ rays.x1
    noise_a, noise_b = _times(rays.noise1, line1), _times(rays.noise0, line0)
    variance = (noise_a * line1[:2]).sum(0) + (noise_b * line0[:2]).sum(0)
    inverse_sigma = 1.0 / np.sqrt(np.maximum(variance, 1e-300))
    residual = (rays.x1 * line1).sum(0) * inverse_sigma
    # Everything is linear in the derivative D of E: residual' = sum_ij D_ij (g1_i x0_j + x1_i g0_j) / sigma.
    g1, g0 = rays.x1 * inverse_sigma, np.zeros_like(rays.x0)
    factor = residual * inverse_sigma**2
    g1[:2] -= factor * noise_a
    g0[:2] = -factor * noise_b
    gradient = g1[:, None] * rays.x0[None] + rays.x1[:, None] * g0[None]
    return Block(residual[None], (derivatives.reshape(-1, 9) @ gradient.reshape(9, -1))[:, None], rays.cell)


def sampson_shared(rays: Rays, R: Float64, t: Float64) -> Float64:
    """Derivatives (Q, 1, N) of the residuals of `sampson_block` by the parameters that all matches share."""
    E = poses.skew(t) @ R
    line1, line0 = E @ rays.x0, E.T @ rays.x1
    variance = (_times(rays.noise1, line1) * line1[:2]).sum(0) + (_times(rays.noise0, line0) * line0[:2]).sum(0)
    moved = (rays.shared0 * line0[:2]).sum(1) + (rays.shared1 * line1[:2]).sum(1)
    return np.asarray((moved / np.sqrt(np.maximum(variance, 1e-300)))[:, None], np.float64)


def transfer_block(rays: Rays, x: Float64, M: Float64, derivatives: Float64, extra: Float64 | None = None) -> Block:
    """Whitened reprojection residuals of points moved by M; the first two coordinates carry the reference noise.

    Args:
        rays: N matches.
        x: (K, N), homogeneous points: `rays.x0` for a rotation or a homography, with the inverse depth as a fourth
            coordinate for a motion [R | t].
        M: (3, K).
        derivatives: (P, 3, K) of M by the parameters.
        extra: (3, N), further covariance of the predicted point, rows xx, xy, yy.
    """
    depth, point, transfer = _transferred(x, M)
    w00, w10, w11 = _whitening(rays, transfer, extra)
    difference = point - rays.x1[:2]
    residual = np.stack([w00 * difference[0], w10 * difference[0] + w11 * difference[1]])
    # As above: residual_c' = sum_ij D_ij v_ci x_j, with v_c = (w_c, -w_c . point) / depth.
    rows = (
        np.stack([w00, np.zeros_like(w00), -w00 * point[0]]),
        np.stack([w10, w11, -w10 * point[0] - w11 * point[1]]),
    )
    scaled, size = x / depth, 3 * len(x)
    gradient = np.stack([(row[:, None] * scaled[None]).reshape(size, -1) for row in rows], 1)
    return Block(residual, np.tensordot(derivatives.reshape(-1, size), gradient, 1), rays.cell)


def transfer_shared(rays: Rays, x: Float64, M: Float64, extra: Float64 | None = None) -> Float64:
    """Derivatives (Q, 2, N) of the residuals of `transfer_block` by the parameters that all matches share."""
    transfer = _transferred(x, M)[2]
    w00, w10, w11 = _whitening(rays, transfer, extra)
    moved = (transfer[:, :, None] * rays.shared0.transpose(1, 0, 2)[None]).sum(1) - rays.shared1.transpose(1, 0, 2)
    return np.stack([w00 * moved[0], w10 * moved[0] + w11 * moved[1]], 1)


def _transferred(x: Float64, M: Float64) -> tuple[Float64, Float64, Float64]:
    """Depths (N,) and places (2, N) of points moved by M, and the derivative (2, 2, N) of the places by x."""
    moved = M @ x
    depth = np.maximum(moved[2], 1e-9)
    point = moved[:2] / depth
    return depth, point, (M[:2, :2, None] - point[:, None] * M[2, :2, None]) / depth


def _whitening(rays: Rays, transfer: Float64, extra: Float64 | None) -> tuple[Float64, Float64, Float64]:
    """Rows 00, 10, 11 (N,) of the inverse Cholesky factor of the noise of predicted minus found point."""
    noise = rays.noise1 + spread(transfer, rays.noise0)
    xx, xy, yy = noise if extra is None else noise + extra
    l11 = np.sqrt(xx)
    l21 = xy / l11
    l22 = np.sqrt(yy - l21 * l21)
    return 1.0 / l11, -l21 / (l11 * l22), 1.0 / l22


def _times(noise: Float64, line: Float64) -> Float64:
    """Product (2, N) of covariances, rows xx, xy, yy (3, N), with the first two rows of lines (3, N)."""
    return np.stack([noise[0] * line[0] + noise[1] * line[1], noise[1] * line[0] + noise[2] * line[1]])
