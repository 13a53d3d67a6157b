"""Joint refinement of poses and inverse depths: one keyframe, one or several frames that see it.

A point of the keyframe is its bearing b = (x, y, 1) and its inverse depth rho; frame k with pose (R_k, t_k) sees it at
pi(R_k b + rho t_k), which stays defined at rho = 0 (Civera et al., "Inverse depth parametrization for monocular SLAM",
T-RO 2008). Each point may carry a Gaussian prior on rho. Inverse depths are eliminated by the Schur complement, so that
one formula covers both extremes: a point without prior contributes exactly its epipolar residual, a point of known depth
its full reprojection residual, everything else what its uncertainty allows.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ros2_densematch.geometry.poses import exp_rotation

Float = NDArray[np.float64]

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

    bearing: Float
    rho: Float
    info: Float


@dataclass(frozen=True)
class RefinedPoses:
    """Result of `refine`.

    Attributes:
        poses: float64 (M, 4, 4), T_frame_from_keyframe.
        rho: float64 (N,), inverse depths at these poses.
        info: float64 (N,), their inverse variance given the poses.
        chi2: float64 (M, N), squared residual of each observation in standard deviations; NaN where not seen.
        covariance: float64 (6 M, 6 M), of the poses' left perturbations (x y z, rotation), free poses only.
        sigma: standard deviation of one observed coordinate, in normalised units, as estimated from the residuals.
    """

    poses: Float
    rho: Float
    info: Float
    chi2: Float
    covariance: Float
    sigma: float


def project(poses: Float, bearing: Float, rho: Float) -> tuple[Float, Float, Float]:
    """Images of keyframe points.

    Args:
        poses: (M, 4, 4), T_frame_from_keyframe.
        bearing: (N, 3).
        rho: (N,).

    Returns:
        xy (M, N, 2) normalised coordinates, X (M, N, 3) = R b + rho t, d (M, N, 2) = derivative of xy by rho. Points
        behind a camera come out with X[..., 2] <= 0 and xy of no meaning (never NaN).
    """
    t = poses[:, :3, 3]
    X = bearing @ poses[:, :3, :3].transpose(0, 2, 1) + rho[None, :, None] * t[:, None, :]
    z = np.where(np.abs(X[..., 2]) < 1e-6, 1e-6, X[..., 2])
    xy = X[..., :2] / z[..., None]
    d = (t[:, None, :2] - xy * t[:, None, 2:]) / z[..., None]
    return xy, X, d


def solve_rho(
    poses: Float, priors: PointPriors, xy: Float, weight: Float, rho: Float, steps: int = 2
) -> tuple[Float, Float]:
    """Inverse depths that fit observations and priors best at fixed poses, and their inverse variances.

    Args:
        xy: (M, N, 2) observed normalised coordinates.
        weight: (M, N) inverse variance of each observed coordinate, 0 = not seen.
        rho: (N,) start.
        steps: Gauss-Newton steps.
    """
    for _ in range(steps):
        predicted, _, d = project(poses, priors.bearing, rho)
        info = np.einsum("mn,mnk,mnk->n", weight, d, d) + priors.info
        gradient = np.einsum("mn,mnk,mnk->n", weight, d, xy - predicted) + priors.info * (priors.rho - rho)
        step = np.where(info > 0, gradient / np.maximum(info, 1e-12), 0.0)
        limit = np.maximum(_MAX_RHO_STEP * np.abs(rho), 1e-3)
        rho = np.maximum(rho + np.clip(step, -limit, 2 * limit), 0.0)
    _, _, d = project(poses, priors.bearing, rho)
    return rho, np.einsum("mn,mnk,mnk->n", weight, d, d) + priors.info


def chi_squared(poses: Float, priors: PointPriors, xy: Float, weight: Float, rho: Float) -> tuple[Float, Float]:
    """Squared residuals in standard deviations: of the observations (M, N), NaN where unseen, and each one's share of
    its point's prior (N,).

    A point behind the camera counts as a residual of 1e6.
    """
    predicted, X, _ = project(poses, priors.bearing, rho)
    squared = weight * np.sum((xy - predicted) ** 2, -1)
    squared = np.where(X[..., 2] <= 1e-6, 1e6, squared)
    count = np.maximum(np.count_nonzero(weight > 0, axis=0), 1)
    return np.where(weight > 0, squared, np.nan), priors.info * (priors.rho - rho) ** 2 / count


def refine(
    poses: Float,
    priors: PointPriors,
    xy: Float,
    weight: Float,
    *,
    fixed: NDArray[np.bool_] | None = None,
    iterations: int = 10,
    sigma: float | None = None,
    min_sigma: float = 1e-4,
    max_sigma: float = 1e-2,
) -> RefinedPoses:
    """Levenberg-Marquardt over poses and inverse depths with a Cauchy kernel on each point.

    Args:
        poses: (M, 4, 4) start, T_frame_from_keyframe.
        priors: the keyframe's points.
        xy: (M, N, 2) observed normalised coordinates (any value where not seen).
        weight: (M, N) relative weight of the observations, 1 = typical, 0 = not seen.
        fixed: (M,) True for poses that stay as they are.
        iterations: at most this many steps; fewer when converged.
        sigma: standard deviation of an observed coordinate in normalised units; None estimates it from the residuals,
            within [min_sigma, max_sigma].
    """
    poses = poses.copy()
    frames, points = weight.shape
    free = np.flatnonzero(~fixed) if fixed is not None else np.arange(frames)
    estimate_sigma = sigma is None
    sigma = sigma if sigma is not None else max_sigma
    rho, _ = solve_rho(poses, priors, xy, weight / sigma**2, priors.rho, steps=6)
    damping = 1e-4
    state = _State(poses, rho)
    hessian = np.eye(6 * len(free))
    if estimate_sigma:
        sigma = _robust_sigma(poses, priors, xy, weight, rho, min_sigma, max_sigma)
    cost = np.inf
    for iteration in range(iterations):
        w = weight / sigma**2
        state.rho, _ = solve_rho(state.poses, priors, xy, w, state.rho)
        if estimate_sigma and iteration in (2, 5):
            sigma = _robust_sigma(state.poses, priors, xy, weight, state.rho, min_sigma, max_sigma)
            w = weight / sigma**2
        chi2, prior = chi_squared(state.poses, priors, xy, w, state.rho)
        cost = _robust_cost(chi2, prior)
        kernel = _kernel(chi2, prior)
        hessian, gradient = _reduced_system(state, priors, xy, w, kernel, free)
        if len(free) == 0:
            break
        improved = False
        for _ in range(4):
            scaled = hessian + damping * np.diag(np.diag(hessian) + 1e-9)
            step = np.linalg.solve(scaled, gradient)
            trial = _State(_perturb(state.poses, free, step), state.rho)
            trial.rho, _ = solve_rho(trial.poses, priors, xy, w, trial.rho)
            trial_cost = _robust_cost(*chi_squared(trial.poses, priors, xy, w, trial.rho))
            if trial_cost <= cost:
                improved = True
                break
            damping *= 10
        if not improved:
            break
        converged = cost - trial_cost < 1e-4 * cost and iteration > 5
        state, damping = trial, max(damping * 0.2, 1e-9)
        if converged:
            break
    w = weight / sigma**2
    rho, info = solve_rho(state.poses, priors, xy, w, state.rho)
    chi2, _ = chi_squared(state.poses, priors, xy, w, rho)
    covariance = np.linalg.pinv(hessian, hermitian=True) if len(free) else np.zeros((0, 0))
    return RefinedPoses(state.poses, rho, info, chi2, covariance, float(sigma))


@dataclass
class _State:
    poses: Float
    rho: Float


def _robust_sigma(
    poses: Float, priors: PointPriors, xy: Float, weight: Float, rho: Float, low: float, high: float
) -> float:
    predicted, X, d = project(poses, priors.bearing, rho)
    length = np.linalg.norm(d, axis=-1)
    normal = np.stack([-d[..., 1], d[..., 0]], -1) / np.maximum(length, 1e-12)[..., None]
    # Only the component across the epipolar line is free of the depth that was just fitted to the other one.
    across = np.where(
        length > 1e-9, np.sum((xy - predicted) * normal, -1), (xy - predicted)[..., 0]
    )
    seen = (weight > 0) & (X[..., 2] > 0)
    if np.count_nonzero(seen) < 8:
        return high
    return float(np.clip(1.4826 * np.median(np.abs(across[seen]) * np.sqrt(weight[seen])), low, high))


def _kernel(chi2: Float, prior: Float) -> Float:
    """Cauchy weight of each observation (M, N); its share of the prior's residual counts with it."""
    return 1.0 / (1.0 + (np.nan_to_num(chi2) + prior) / _KERNEL**2)


def _robust_cost(chi2: Float, prior: Float) -> float:
    seen = ~np.isnan(chi2)
    total = np.where(seen, chi2 + prior, 0.0)
    return float(np.sum(np.log1p(total / _KERNEL**2)))


def _reduced_system(
    state: _State, priors: PointPriors, xy: Float, w: Float, kernel: Float, free: NDArray[np.intp]
) -> tuple[Float, Float]:
    """Normal equations of the free poses after elimination of the inverse depths."""
    predicted, X, d = project(state.poses, priors.bearing, state.rho)
    w = w * kernel
    # The prior of a point whose observations are all outliers must not pull the poses either.
    seen = w > 0
    mean_kernel = np.where(seen.any(0), np.sum(kernel * seen, 0) / np.maximum(seen.sum(0), 1), 0.0)
    prior_info = priors.info * mean_kernel
    h = np.einsum("mn,mnk,mnk->n", w, d, d) + prior_info
    g_rho = np.einsum("mn,mnk,mnk->n", w, d, xy - predicted) + prior_info * (priors.rho - state.rho)
    h = h + 1e-9 * max(float(np.median(h)), 1e-12) + 1e-12
    size = 6 * len(free)
    hessian = np.zeros((size, size))
    gradient = np.zeros(size)
    coupling = np.zeros((len(h), size))
    for row, m in enumerate(free):
        J = _pose_jacobian(predicted[m], X[m], state.rho)  # (N, 2, 6)
        Jw = J * w[m][:, None, None]
        flat = J.reshape(-1, 6)
        block = slice(6 * row, 6 * row + 6)
        hessian[block, block] = flat.T @ Jw.reshape(-1, 6)
        gradient[block] = Jw.reshape(-1, 6).T @ (xy[m] - predicted[m]).reshape(-1)
        coupling[:, block] = Jw[:, 0] * d[m][:, :1] + Jw[:, 1] * d[m][:, 1:]
    scaled = coupling / h[:, None]
    return hessian - coupling.T @ scaled, gradient - scaled.T @ g_rho


def _pose_jacobian(xy: Float, X: Float, rho: Float) -> Float:
    """d xy / d (translation, rotation) of a left perturbation of the pose, (N, 2, 6)."""
    z = np.where(np.abs(X[:, 2]) < 1e-6, 1e-6, X[:, 2])
    x, y = xy[:, 0], xy[:, 1]
    zero = np.zeros_like(x)
    scale = rho / z
    translation = [[scale, zero, -x * scale], [zero, scale, -y * scale]]
    rotation = [[-x * y, 1 + x * x, -y], [-(1 + y * y), x * y, x]]
    rows = [np.stack([*translation[k], *rotation[k]], -1) for k in (0, 1)]
    return np.stack(rows, 1)


def _perturb(poses: Float, free: NDArray[np.intp], step: Float) -> Float:
    moved = poses.copy()
    for row, m in enumerate(free):
        delta = step[6 * row : 6 * row + 6]
        rotation = exp_rotation(delta[3:])
        moved[m, :3, :3] = rotation @ poses[m, :3, :3]
        moved[m, :3, 3] = rotation @ poses[m, :3, 3] + delta[:3]
    return moved
