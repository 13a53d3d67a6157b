"""Joint refinement of poses and inverse depths: one keyframe, one or several frames that see it.

A point of the keyframe is its bearing b = (x, y, 1) and its inverse depth rho; frame k with pose (R_k, t_k) sees it at
pi(R_k b + rho t_k), which stays defined at rho = 0 (Civera et al., "Inverse depth parametrization for monocular SLAM",
T-RO 2008). Each point may carry a Gaussian prior on rho. Inverse depths are eliminated by the Schur complement, so
that one formula covers both extremes: a point without prior contributes exactly its epipolar residual, a point of known
depth its full reprojection residual, everything else what its uncertainty allows.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ros2_densematch.arrays import Float64
from ros2_densematch.geometry.poses import exp_rotation

_MAX_RHO_STEP = 0.5  # share of the current inverse depth (or of the prior's spread) that one inner step may change
_KERNEL = 2.5  # Cauchy kernel, in standard deviations


@dataclass(frozen=True)
class PointPriors:
    """N keyframe points.

    Attributes:
        bearing: float64 (N, 3), normalised keyframe coordinates with third component 1.
        rho: float64 (N,), inverse depth in 1 / map unit: mean of the prior, or the start value where `info` is 0.
        info: float64 (N,), inverse variance of `rho`; 0 = nothing is known.
    """

    bearing: Float64
    rho: Float64
    info: Float64

    def select(self, index: NDArray[np.intp]) -> PointPriors:
        """The points that an index array picks."""
        return PointPriors(self.bearing[index], self.rho[index], self.info[index])


@dataclass(frozen=True)
class RefinedPoses:
    """Result of `refine`.

    Attributes:
        poses: float64 (M, 4, 4), T_frame_from_keyframe.
        rho: float64 (N,), inverse depths at these poses.
        info: float64 (N,), their inverse variance given the poses.
        chi2: float64 (M, N), squared residual of each observation, with its share of its point's prior, in standard
            deviations; infinite behind the camera, NaN where not seen.
        covariance: float64 (6 F, 6 F) of the left perturbations (translation, rotation) of the F free poses in order.
        sigma: standard deviation of one observed coordinate, in normalised units, as estimated from the residuals.
    """

    poses: Float64
    rho: Float64
    info: Float64
    chi2: Float64
    covariance: Float64
    sigma: float


def project(poses: Float64, bearing: Float64, rho: Float64) -> tuple[Float64, Float64, Float64]:
    """Images of keyframe points.

    Args:
        poses: (M, 4, 4), T_frame_from_keyframe.
        bearing: (N, 3).
        rho: (N,).

    Returns:
        xy (M, N, 2) normalised coordinates, z (M, N) = third component of R b + rho t, d (M, N, 2) = derivative of xy
        by rho. Points behind a camera come out with z <= 0 and xy of no meaning (never NaN).
    """
    zero = np.zeros((len(poses), len(rho)))
    e = _evaluate(poses, PointPriors(bearing, rho, np.zeros(len(rho))), np.stack([zero, zero], -1), zero, rho)
    return np.stack([e.u, e.v], -1), e.z, np.stack([e.du, e.dv], -1)


def solve_rho(
    poses: Float64, priors: PointPriors, xy: Float64, weight: Float64, rho: Float64, steps: int = 2
) -> tuple[Float64, Float64]:
    """Inverse depths that fit observations and priors best at fixed poses, and their inverse variances.

    Args:
        xy: (M, N, 2) observed normalised coordinates.
        weight: (M, N) inverse variance of each observed coordinate, 0 = not seen.
        rho: (N,) start.
        steps: Gauss-Newton steps.
    """
    for step in range(steps + 1):
        e = _evaluate(poses, priors, xy, weight, rho)
        info = np.sum(weight * (e.du**2 + e.dv**2), 0) + priors.info
        if step == steps:
            break
        gradient = np.sum(weight * (e.du * e.eu + e.dv * e.ev), 0) + priors.info * (priors.rho - rho)
        rho = _step_rho(rho, gradient / np.maximum(info, 1e-12))
    return rho, info


def chi_squared(poses: Float64, priors: PointPriors, xy: Float64, weight: Float64, rho: Float64) -> Float64:
    """Squared residuals (M, N) of observations with their share of their point's prior, in standard deviations.

    NaN where not seen (weight 0), infinite behind the camera.
    """
    e = _evaluate(poses, priors, xy, weight, rho)
    return np.where(weight > 0, np.where(e.z > _NEAR, e.chi2, np.inf), np.nan)


def refine(
    poses: Float64,
    priors: PointPriors,
    xy: Float64,
    weight: Float64,
    *,
    fixed: NDArray[np.bool_] | None = None,
    iterations: int = 10,
    min_sigma: float = 1e-4,
    max_sigma: float = 1e-2,
    near: bool = False,
) -> RefinedPoses:
    """Levenberg-Marquardt over poses and inverse depths with a Cauchy kernel on each observation.

    Args:
        poses: (M, 4, 4) start, T_frame_from_keyframe.
        priors: the keyframe's points.
        xy: (M, N, 2) observed normalised coordinates (any value where not seen).
        weight: (M, N) relative weight of the observations, 1 = typical, 0 = not seen.
        fixed: (M,) True for poses that stay as they are.
        iterations: at most this many steps; fewer when converged.
        min_sigma, max_sigma: bounds of the standard deviation of an observed coordinate in normalised units, which is
            estimated from the residuals.
        near: the start is good: fewer steps find the inverse depths and the poses.
    """
    free = np.flatnonzero(~fixed) if fixed is not None else np.arange(len(poses))
    rho, _ = solve_rho(poses, priors, xy, weight / max_sigma**2, priors.rho, steps=1 if near else 4)
    least, damping, sigma = 1 if near else 2, 1e-4, max_sigma
    for iteration in range(iterations if len(free) else 0):
        if iteration in (0, 2, 5):
            sigma = _robust_sigma(_evaluate(poses, priors, xy, weight, rho), weight, min_sigma, max_sigma)
        w = weight / sigma**2
        e = _evaluate(poses, priors, xy, w, rho)
        hessian, gradient, back = _reduced_system(e, priors, w, rho, free)
        cost, improved = e.cost, False
        for _ in range(4):
            damped = hessian + np.diag(damping * np.diag(hessian) + 1e-12)
            step = np.asarray(np.linalg.solve(damped, gradient), np.float64)
            trial = _perturb(poses, free, step)
            trial_rho = _step_rho(rho, back[0] - back[1] @ step)
            trial_cost = _evaluate(trial, priors, xy, w, trial_rho).cost
            if trial_cost <= cost:
                improved = True
                break
            damping *= 10
        if not improved:
            break
        poses, rho, damping = trial, trial_rho, max(damping * 0.2, 1e-7)
        if cost - trial_cost < 1e-3 * cost and iteration > least:
            break
    if not len(free):
        sigma = _robust_sigma(_evaluate(poses, priors, xy, weight, rho), weight, min_sigma, max_sigma)
    w = weight / sigma**2
    rho, info = solve_rho(poses, priors, xy, w, rho)
    covariance: Float64 = np.zeros((0, 0))
    if len(free):
        hessian, _, _ = _reduced_system(_evaluate(poses, priors, xy, w, rho), priors, w, rho, free)
        covariance = np.asarray(np.linalg.pinv(hessian, rcond=1e-12, hermitian=True), np.float64)
    return RefinedPoses(poses, rho, info, chi_squared(poses, priors, xy, w, rho), covariance, float(sigma))


@dataclass(frozen=True)
class Evidence:
    """What the observations of one frame say about K further parameters, to first order about their present values.

    Pose and inverse depths are eliminated: with all of them free the Gauss-Newton step of the parameters is
    information^-1 gradient, and its covariance information^-1.

    Attributes:
        gradient: (K,).
        information: (K, K).
        pose_change: (6, K), what the best pose does when the parameters change: left perturbation (translation,
            rotation) of T_frame_from_keyframe.
    """

    gradient: Float64
    information: Float64
    pose_change: Float64


def further_parameters(
    pose: Float64, priors: PointPriors, xy: Float64, weight: Float64, derivative: Float64
) -> Evidence:
    """Evidence about parameters that are held at their present values.

    Args:
        pose: (4, 4) T_frame_from_keyframe, at the optimum for the present values.
        xy: (N, 2) observed normalised coordinates.
        weight: (N,) inverse variance of each, 0 = not seen.
        derivative: (N, 2, K) of predicted minus observed coordinates.
    """
    w = weight[None]
    rho, _ = solve_rho(pose[None], priors, xy[None], w, priors.rho)
    e = _evaluate(pose[None], priors, xy[None], w, rho)
    hessian, gradient, (rho_step, rho_back) = _reduced_system(e, priors, w, rho, np.arange(1))
    w, h, _ = _depth_equations(e, priors, w, rho)
    du, dv = derivative[:, 0].T, derivative[:, 1].T  # (K, N)
    coupling = w[0] * (du * e.du[0] + dv * e.dv[0])  # with the inverse depths
    Ju, Jv = _pose_jacobian(e.u[0], e.v[0], rho * e.inverse_z[0])
    own_gradient = (w[0] * du) @ e.eu[0] + (w[0] * dv) @ e.ev[0] - coupling @ rho_step
    own_information = (w[0] * du) @ du.T + (w[0] * dv) @ dv.T - coupling @ (coupling / h).T
    mixed = (Ju * w[0]) @ du.T + (Jv * w[0]) @ dv.T - rho_back.T @ coupling.T  # (6, K)
    damped = hessian + np.diag(1e-9 * np.diag(hessian) + 1e-12)
    solved = np.linalg.solve(damped, np.column_stack([gradient, mixed]))
    return Evidence(own_gradient - mixed.T @ solved[:, 0], own_information - mixed.T @ solved[:, 1:], -solved[:, 1:])


@dataclass(frozen=True)
class _Evaluation:
    """Everything that residuals and derivatives need, each (M, N): projection u v, depth factor z, its inverse,
    residual eu ev, derivative by rho du dv, squared residual with the prior's share, and the robust cost of all."""

    u: Float64
    v: Float64
    z: Float64
    inverse_z: Float64
    eu: Float64
    ev: Float64
    du: Float64
    dv: Float64
    chi2: Float64
    cost: float


_NEAR = 1e-6


def _evaluate(poses: Float64, priors: PointPriors, xy: Float64, weight: Float64, rho: Float64) -> _Evaluation:
    R, t = poses[:, :3, :3], poses[:, :3, 3]
    bearing = priors.bearing.T
    x, y, z = (R[:, i] @ bearing + t[:, i, None] * rho for i in range(3))
    inverse_z = 1.0 / np.where(np.abs(z) < _NEAR, _NEAR, z)
    u, v = x * inverse_z, y * inverse_z
    du, dv = (t[:, 0, None] - u * t[:, 2, None]) * inverse_z, (t[:, 1, None] - v * t[:, 2, None]) * inverse_z
    eu, ev = xy[..., 0] - u, xy[..., 1] - v
    seen = weight > 0
    share = priors.info * (priors.rho - rho) ** 2 / np.maximum(np.count_nonzero(seen, axis=0), 1)
    chi2 = np.where(seen, np.where(z > _NEAR, weight * (eu * eu + ev * ev), 1e6) + share, 0.0)
    cost = float(np.sum(np.log1p(chi2 / _KERNEL**2)))
    return _Evaluation(u=u, v=v, z=z, inverse_z=inverse_z, eu=eu, ev=ev, du=du, dv=dv, chi2=chi2, cost=cost)


def _step_rho(rho: Float64, step: Float64) -> Float64:
    limit = np.maximum(_MAX_RHO_STEP * rho, 1e-3)
    return np.maximum(rho + np.clip(step, -limit, 2 * limit), 0.0)


def _robust_sigma(e: _Evaluation, weight: Float64, low: float, high: float) -> float:
    # Only the component across the epipolar line is free of the depth that was just fitted to the other one.
    length = np.sqrt(e.du**2 + e.dv**2)
    across = np.where(length > 1e-9, (e.ev * e.du - e.eu * e.dv) / np.maximum(length, 1e-12), e.eu)
    seen = (weight > 0) & (e.z > _NEAR)
    if np.count_nonzero(seen) < 8:
        return high
    return float(np.clip(1.4826 * np.median(np.abs(across[seen]) * np.sqrt(weight[seen])), low, high))


def _reduced_system(
    e: _Evaluation, priors: PointPriors, w: Float64, rho: Float64, free: NDArray[np.intp]
) -> tuple[Float64, Float64, tuple[Float64, Float64]]:
    """Normal equations of the free poses after elimination of the inverse depths, and what gives these back:
    step of rho = first - second @ step of the poses."""
    w, h, g_rho = _depth_equations(e, priors, w, rho)
    size = 6 * len(free)
    hessian, gradient, coupling = np.zeros((size, size)), np.zeros(size), np.zeros((len(h), size))
    for row, m in enumerate(free):
        Ju, Jv = _pose_jacobian(e.u[m], e.v[m], rho * e.inverse_z[m])  # (6, N) each
        Wu, Wv = Ju * w[m], Jv * w[m]
        block = slice(6 * row, 6 * row + 6)
        hessian[block, block] = Ju @ Wu.T + Jv @ Wv.T
        gradient[block] = Wu @ e.eu[m] + Wv @ e.ev[m]
        coupling[:, block] = (Wu * e.du[m] + Wv * e.dv[m]).T
    scaled = coupling / h[:, None]
    return hessian - coupling.T @ scaled, gradient - scaled.T @ g_rho, (g_rho / h, scaled)


def _depth_equations(e: _Evaluation, priors: PointPriors, w: Float64, rho: Float64) -> tuple[Float64, Float64, Float64]:
    """Weights (M, N) with the kernel, and the normal equations of the inverse depths: information and gradient (N,)."""
    kernel = 1.0 / (1.0 + e.chi2 / _KERNEL**2)
    seen = w > 0
    # The prior of a point whose observations are all outliers must not pull the poses either.
    mean_kernel = np.sum(kernel * seen, 0) / np.maximum(np.count_nonzero(seen, axis=0), 1)
    w = np.where(e.z > _NEAR, w * kernel, 0.0)
    prior_info = priors.info * mean_kernel
    h = np.sum(w * (e.du**2 + e.dv**2), 0) + prior_info
    h = h + 1e-9 * max(float(np.median(h)), 1e-12) + 1e-12
    g_rho = np.sum(w * (e.du * e.eu + e.dv * e.ev), 0) + prior_info * (priors.rho - rho)
    return w, h, g_rho


def _pose_jacobian(u: Float64, v: Float64, s: Float64) -> tuple[Float64, Float64]:
    """Derivatives (6, N) of u and of v by a left perturbation of the pose (translation, rotation); s = rho / z."""
    zero = np.zeros_like(u)
    return (
        np.stack([s, zero, -u * s, -u * v, 1 + u * u, -v]),
        np.stack([zero, s, -v * s, -(1 + v * v), u * v, u]),
    )


def _perturb(poses: Float64, free: NDArray[np.intp], step: Float64) -> Float64:
    moved: Float64 = poses.copy()
    for row, m in enumerate(free):
        delta = step[6 * row : 6 * row + 6]
        rotation = exp_rotation(delta[3:])
        moved[m, :3, :3] = rotation @ poses[m, :3, :3]
        moved[m, :3, 3] = rotation @ poses[m, :3, 3] + delta[:3]
    return moved
