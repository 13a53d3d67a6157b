"""Robust Gauss-Newton with the covariance of the solution that it returns."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

Float64 = NDArray[np.float64]
State = TypeVar("State")

_TUKEY = 4.685  # 95 % efficiency under Gaussian noise
_MEDIAN_ABS = {1: 0.67449, 2: 1.17741}  # median of |u| for a standard Gaussian u of 1 or 2 dimensions
_SMALLEST_SCALE = 1e-3  # in the residual's unit (pixels): below it lies the rounding of float32 coordinates


@dataclass(frozen=True, eq=False)
class Block:
    """Residuals of one kind: `residual` (d, N) in the unit of the noise, d = 1 or 2, and `jacobian` (P, d, N)."""

    residual: Float64
    jacobian: Float64


@dataclass(frozen=True, eq=False)
class Solution(Generic[State]):
    """A minimum: the state, the covariance (P, P) of its parameters, the noise scale (1 = as declared) and its cost."""

    state: State
    covariance: Float64
    scale: float
    cost: float


def minimise(
    evaluate: Callable[[State], list[Block]],
    retract: Callable[[State, Float64], State],
    start: State,
    *,
    iterations: int = 12,
) -> Solution[State] | None:
    """Minimises a sum of Tukey losses of whitened residuals by iteratively reweighted Gauss-Newton.

    The noise scale is the median absolute residual, estimated anew while the state still moves, then fixed.

    The covariance is the M-estimator's, A^-1 B A^-1 with A = mean(psi') J^T J (Huber, Robust Statistics, 1981, section
    7.6) and B from the residuals themselves: sum of g g^T with g = J_i^T psi_i / (1 - h_i), h_i the leverage (HC3 of
    MacKinnon and White, J. Econometrics 1985). It needs no equal variances, and a far-off match that slipped in widens
    it where it pulls; in simulation it stays right with 30 % outliers, where the pooled formula is too small.

    Args:
        evaluate: residuals and Jacobians at a state.
        retract: the state moved by a parameter step (P,).
        start: where to begin.
        iterations: most Gauss-Newton steps.

    Returns:
        The solution, or None where the normal equations are singular: some parameter is not observable.
    """
    state, blocks = start, evaluate(start)
    scale = noise_scale(blocks)
    cost = _cost(blocks, scale)
    for iteration in range(iterations):
        A, g = _normal_equations(blocks, scale)
        step = _solve(A, -g)
        if step is None:
            return None
        fraction = 1.0
        for _ in range(5):
            trial = retract(state, fraction * step)
            trial_blocks = evaluate(trial)
            trial_cost = _cost(trial_blocks, scale)
            if trial_cost <= cost:
                state, blocks, cost = trial, trial_blocks, trial_cost
                break
            fraction *= 0.5
        else:
            break
        # -g . step is the squared length of the step in standard deviations: a thousandth changes nothing.
        if iteration >= 2 and float(-g @ step) < 1e-6:
            break
        if iteration < 2:
            scale = noise_scale(blocks)
            cost = _cost(blocks, scale)
    covariance = _covariance(blocks, scale)
    return None if covariance is None else Solution(state, covariance, scale, cost)


def noise_scale(blocks: list[Block]) -> float:
    normed = [np.sqrt((b.residual**2).sum(0)) / _MEDIAN_ABS[b.residual.shape[0]] for b in blocks]
    return max(float(np.median(np.concatenate(normed))), _SMALLEST_SCALE)


def _weights(block: Block, scale: float) -> tuple[Float64, Float64, Float64]:
    """|u|^2, Tukey's weight w = psi / u and the derivative term w' |u|, each (N,)."""
    squared = (block.residual**2).sum(0) / scale**2
    inside = np.maximum(1.0 - squared / _TUKEY**2, 0.0)
    return squared, inside**2, -4.0 * squared / _TUKEY**2 * inside


def _cost(blocks: list[Block], scale: float) -> float:
    """Sum of Tukey's losses in the unit in which a small residual costs u^2 / 2."""
    total = 0.0
    for block in blocks:
        inside = np.maximum(1.0 - (block.residual**2).sum(0) / (scale * _TUKEY) ** 2, 0.0)
        total += _TUKEY**2 / 6.0 * float((1.0 - inside * inside * inside).sum())
    return total if np.isfinite(total) else float("inf")


def _normal_equations(blocks: list[Block], scale: float) -> tuple[Float64, Float64]:
    size = blocks[0].jacobian.shape[0]
    A, g = np.zeros((size, size)), np.zeros(size)
    for block in blocks:
        weighted = block.jacobian * (_weights(block, scale)[1] / scale**2)
        A += weighted.reshape(size, -1) @ block.jacobian.reshape(size, -1).T
        g += weighted.reshape(size, -1) @ block.residual.ravel()
    return A, g


def _covariance(blocks: list[Block], scale: float) -> Float64 | None:
    size = blocks[0].jacobian.shape[0]
    information = np.zeros((size, size))
    slope = 0.0
    count = 0
    weighted = []
    for block in blocks:
        _, w, derivative = _weights(block, scale)
        d, used = block.residual.shape[0], w > 0
        J, psi = block.jacobian[:, :, used], block.residual[:, used] * w[used]
        weighted.append((J, psi))
        information += J.reshape(size, -1) @ J.reshape(size, -1).T
        slope += float((d * w + derivative)[used].sum())
        count += d * int(used.sum())
    inverse = _solve(information, np.eye(size))
    if count <= size or slope <= 0 or inverse is None:
        return None
    scatter = np.zeros((size, size))
    for J, psi in weighted:
        leverage = sum((J[:, k] * (inverse @ J[:, k])).sum(0) for k in range(J.shape[1]))
        score = np.einsum("kdn,dn->kn", J, psi) / np.maximum(1.0 - leverage, 0.1)
        scatter += score @ score.T
    covariance = inverse @ scatter @ inverse / (slope / count) ** 2 + _SMALLEST_SCALE**2 * inverse
    return np.asarray(0.5 * (covariance + covariance.T), np.float64)


def _solve(A: Float64, b: Float64) -> Float64 | None:
    """Solution of symmetric positive definite equations, scaled first; None where they are singular."""
    diagonal = np.sqrt(np.maximum(np.diag(A), 0.0))
    if not np.all(np.isfinite(A)) or not np.all(diagonal > 0):
        return None
    scaled = A / np.outer(diagonal, diagonal)
    if np.linalg.cond(scaled) > 1e13:
        return None
    right = b / diagonal if b.ndim == 1 else b / diagonal[:, None]
    x = np.linalg.solve(scaled, right)
    return np.asarray(x / diagonal if b.ndim == 1 else x / diagonal[:, None], np.float64)
