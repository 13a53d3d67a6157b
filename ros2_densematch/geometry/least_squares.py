"""Robust Gauss-Newton with the covariance of the solution that it returns."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from ros2_densematch.arrays import Float64

State = TypeVar("State")

_TUKEY = 4.685  # 95 % efficiency under Gaussian noise
_MEDIAN_ABS = {1: 0.67449, 2: 1.17741}  # median of |u| for a standard Gaussian u of 1 or 2 dimensions
_MAX_LEVERAGE = 3.0  # of the mean; in simulation 2 costs efficiency with known precisions, 4 is weak on outliers
_SMALLEST_SCALE = 1e-3  # in the residual's unit (pixels): below it lies the rounding of float32 coordinates


@dataclass(frozen=True, eq=False)
class Block:
    """Residuals of one kind: `residual` (d, N) in the unit of the noise, d = 1 or 2, `jacobian` (P, d, N), and `cell`
    (N,), the group in which each residual errs together with others; None = each by itself."""

    residual: Float64
    jacobian: Float64
    cell: NDArray[np.intp] | None = None


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
    shared: Callable[[State], list[Float64]] | None = None,
) -> Solution[State] | None:
    """Minimises a sum of Tukey losses of whitened residuals by iteratively reweighted Gauss-Newton.

    The noise scale is the median absolute residual, estimated anew while the state still moves, then fixed.

    A residual of high leverage (its share in determining the parameters) is scaled down to three times the mean
    leverage: the loss cannot see a wrong match that has pulled the solution onto itself, for instance one that lies on
    its epipolar line by chance and claims an enormous parallax. In simulation with 40 % outliers this takes 6 % off the
    root mean square error.

    The covariance is the M-estimator's, A^-1 B A^-1 with A = mean(psi') J^T J (Huber, Robust Statistics, 1981, section
    7.6). B is the mean of two estimates: the pooled one, mean(psi^2) J^T J, and that of the residuals themselves, the
    sum over cells of g g^T with g the sum over a cell of J_i^T psi_i / sqrt(1 - h), h the cell's leverage
    (cluster-robust, Liang and Zeger, Biometrika 1986, with the correction of Bell and McCaffrey, Survey Methodology
    2002). Matches in one cell err together, so they are fewer than they look: the pooled estimate is widened by the
    ratio of the two. What the shared parameters may be off moves the solution by A^-1 J^T N and is added.

    Args:
        evaluate: residuals and Jacobians at a state.
        retract: the state moved by a parameter step (P,).
        start: where to begin.
        iterations: most Gauss-Newton steps.
        shared: derivatives (Q, d, N) of each block's residuals by Q parameters of unit variance, which are not
            estimated and which all residuals share.

    Returns:
        The solution, or None where the normal equations are singular: some parameter is not observable.
    """
    first = _descend(evaluate, retract, start, iterations=3)
    if first is None:
        return None
    factors = _leverage_factors(evaluate(first[0]))
    if factors is None:
        return None

    def damped(state: State) -> list[Block]:
        pairs = zip(evaluate(state), factors, strict=True)
        return [Block(block.residual * factor, block.jacobian * factor, block.cell) for block, factor in pairs]

    last = _descend(damped, retract, first[0], iterations=iterations)
    if last is None:
        return None
    state, scale, cost = last
    nuisance = None
    if shared is not None:
        nuisance = [derivative * factor for derivative, factor in zip(shared(state), factors, strict=True)]
    covariance = _covariance(damped(state), scale, nuisance)
    return None if covariance is None else Solution(state, covariance, scale, cost)


def _descend(
    evaluate: Callable[[State], list[Block]],
    retract: Callable[[State, Float64], State],
    state: State,
    *,
    iterations: int,
) -> tuple[State, float, float] | None:
    """State, noise scale and cost after iteratively reweighted Gauss-Newton; None where the equations are singular."""
    blocks = evaluate(state)
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
    return state, scale, cost


def _leverage(blocks: list[Block]) -> list[Float64] | None:
    """Leverage (N,) of every residual vector, summing to the number of parameters; None where they are singular."""
    size = blocks[0].jacobian.shape[0]
    information = np.zeros((size, size))
    for block in blocks:
        J = block.jacobian.reshape(size, -1)
        information += J @ J.T
    inverse = _solve(information, np.eye(size))
    if inverse is None:
        return None
    return [
        np.sum([(b.jacobian[:, k] * (inverse @ b.jacobian[:, k])).sum(0) for k in range(b.jacobian.shape[1])], axis=0)
        for b in blocks
    ]


def _leverage_factors(blocks: list[Block]) -> list[Float64] | None:
    leverages = _leverage(blocks)
    if leverages is None:
        return None
    mean = blocks[0].jacobian.shape[0] / sum(block.residual.size for block in blocks)
    return [
        np.minimum(1.0, np.sqrt(_MAX_LEVERAGE * mean * block.residual.shape[0] / np.maximum(leverage, 1e-300)))
        for block, leverage in zip(blocks, leverages, strict=True)
    ]


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


def _covariance(blocks: list[Block], scale: float, shared: list[Float64] | None) -> Float64 | None:
    size = blocks[0].jacobian.shape[0]
    slope = squares = 0.0
    count = 0
    weighted, nuisances = [], []
    for k, block in enumerate(blocks):
        squared, w, derivative = _weights(block, scale)
        d, used = block.residual.shape[0], w > 0
        cell = np.arange(used.size) if block.cell is None else block.cell
        weighted.append(Block(block.residual[:, used] * w[used], block.jacobian[:, :, used], cell[used]))
        if shared is not None:
            nuisances.append(shared[k][:, :, used])
        slope += float((d * w + derivative)[used].sum())
        squares += float((w * w * squared).sum()) * scale**2
        count += d * int(used.sum())
    information = np.zeros((size, size))
    for block in weighted:
        J = block.jacobian.reshape(size, -1)
        information += J @ J.T
    inverse, leverages = _solve(information, np.eye(size)), _leverage(weighted)
    if count <= size or slope <= 0 or inverse is None or leverages is None:
        return None
    scatter = _scatter(weighted, leverages)
    pooled = squares / (count - size) * information
    together = float(np.trace(inverse @ scatter) / max(np.trace(inverse @ pooled), 1e-300))
    covariance = inverse @ (0.5 * scatter + 0.5 * max(together, 0.8) * pooled) @ inverse / (slope / count) ** 2
    covariance += _SMALLEST_SCALE**2 * inverse
    if nuisances:
        pulls = [
            block.jacobian.reshape(size, -1) @ derivative.reshape(len(derivative), -1).T
            for block, derivative in zip(weighted, nuisances, strict=True)
        ]
        moved = inverse @ np.sum(pulls, axis=0)
        covariance += moved @ moved.T
    return np.asarray(0.5 * (covariance + covariance.T), np.float64)


def _scatter(blocks: list[Block], leverages: list[Float64]) -> Float64:
    """Sum of g g^T (P, P), g the gradient of one cell over the root of one minus its leverage."""
    size = blocks[0].jacobian.shape[0]
    cells = np.concatenate([block.cell for block in blocks if block.cell is not None])
    scores = np.concatenate([np.einsum("kdn,dn->kn", b.jacobian, b.residual) for b in blocks], 1)
    _, group = np.unique(cells, return_inverse=True)
    count = int(group.max()) + 1 if len(group) else 0
    leverage = np.bincount(group, np.concatenate(leverages), count)
    g = np.stack([np.bincount(group, row, count) for row in scores]) / np.sqrt(np.maximum(1.0 - leverage, 0.2))
    assert g.shape[0] == size
    return np.asarray(g @ g.T, np.float64)


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
