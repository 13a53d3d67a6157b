"""Simulated camera pairs with known motion."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest

from ros2_densematch.geometry import poses
from ros2_densematch.geometry.camera import Camera
from ros2_densematch.geometry.correspondences import Correspondences
from ros2_densematch.geometry.intrinsics import EXACT


@dataclass(frozen=True)
class Pair:
    """Matches of a simulated pair, the true motion and the true depth of the reference."""

    matches: Correspondences
    camera: Camera
    T: np.ndarray  # query from reference
    depth: np.ndarray  # (H, W) metres


def simulate(
    kind: str = "general",
    *,
    n: int = 400,
    noise: float = 0.3,
    outliers: float = 0.0,
    seed: int = 0,
    camera: Camera | None = None,
    with_precision: bool = False,
    translation: float = 0.5,
) -> Pair:
    """kind: general, plane, rotation, forward, identical. Pixel noise acts in both images, or, where each match has its
    own precision, in the query image alone, as the contract says."""
    g = np.random.default_rng(seed)
    camera = camera or Camera(640, 480, np.array([[500.0, 0, 320], [0, 500, 240], [0, 0, 1]]), uncertainty=EXACT)
    u, v = np.meshgrid(np.arange(camera.width), np.arange(camera.height))
    a, b = g.uniform(0, 6, 2)
    inverse = 0.2 + 0.08 * np.sin(u / 60 + a) * np.cos(v / 50 + b) + 0.03 * np.sin(u / 25)
    R = poses.exp_rotation(g.normal(0, 0.06, 3))
    t = g.normal(0, 1, 3)
    if kind == "plane":
        inverse = 0.2 + 1e-4 * u + 2e-4 * v
    elif kind == "rotation":
        t = np.zeros(3)
    elif kind == "forward":
        t = np.array([0.0, 0.0, 1.0])
    elif kind == "identical":
        R, t, noise = np.eye(3), np.zeros(3), 0.0
    t = t * translation / max(np.linalg.norm(t), 1e-12)
    pixels = np.stack([g.integers(5, camera.width - 5, n), g.integers(5, camera.height - 5, n)], 1)
    depth = 1.0 / inverse
    rays = np.concatenate([camera.normalise(pixels), np.ones((n, 1))], 1)
    sigma = np.full(n, noise)
    if with_precision:
        sigma = noise * g.uniform(0.3, 2.0, n)
    query = (
        camera.project((rays * depth[pixels[:, 1], pixels[:, 0], None]) @ R.T + t)
        + g.normal(0, 1, (n, 2)) * sigma[:, None]
    )
    reference = pixels + (0.0 if with_precision else g.normal(0, 1, (n, 2)) * noise)
    bad = round(outliers * n)
    query[:bad] = g.uniform([0, 0], [camera.width, camera.height], (bad, 2))
    precision = None
    if with_precision:
        precision = np.stack([sigma**-2, 0 * sigma, sigma**-2], 1).astype(np.float32)
    size = (camera.width, camera.height)
    order = g.permutation(n)
    matches = Correspondences(
        reference[order].astype(np.float32),
        query[order].astype(np.float32),
        np.ones(n, np.float32),
        1.0,
        size,
        size,
        None if precision is None else precision[order],
    )
    return Pair(matches, camera, poses.make_pose(R, t), depth.astype(np.float32))


@pytest.fixture(scope="session")
def make_pair() -> Callable[..., Pair]:
    return simulate


def normalised_error(T_true: np.ndarray, T: np.ndarray, covariance: np.ndarray, *, unit: bool) -> float:
    """Squared estimation error over its covariance; a translation of unit scale is compared as a direction."""
    t = T_true[:3, 3] / np.linalg.norm(T_true[:3, 3]) if unit else T_true[:3, 3]
    error = np.concatenate([t - T[:3, 3], poses.log_rotation(T_true[:3, :3] @ T[:3, :3].T)])
    return float(error @ np.linalg.solve(covariance, error))


@pytest.fixture(scope="session")
def squared_error() -> Callable[..., float]:
    return normalised_error
