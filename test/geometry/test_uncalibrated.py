"""Two views without calibration: the matrices are those of the cameras that made the points, and the kind is named."""

from __future__ import annotations

import numpy as np
import pytest

from ros2_densematch.geometry import poses
from ros2_densematch.geometry.correspondences import Correspondences
from ros2_densematch.geometry.uncalibrated import estimate_uncalibrated

K0 = np.array([[500.0, 0, 320], [0, 520, 240], [0, 0, 1]])
K1 = np.array([[700.0, 0, 300], [0, 690, 250], [0, 0, 1]])
R = poses.exp_rotation(np.array([0.02, -0.1, 0.03]))
T = np.array([0.5, 0.1, 0.05])


def pair(X: np.ndarray, R: np.ndarray, t: np.ndarray, *, outliers: float = 0.3, noise: float = 0.2) -> Correspondences:
    random = np.random.default_rng(0)
    a, b = X @ K0.T, (X @ R.T + t) @ K1.T
    a, b = a[:, :2] / a[:, 2:], b[:, :2] / b[:, 2:]
    b = b + random.normal(0, noise, b.shape)
    wrong = random.random(len(b)) < outliers
    b[wrong] = random.uniform((0, 0), (640, 480), (int(wrong.sum()), 2))
    return Correspondences(
        a.astype(np.float32), b.astype(np.float32), np.ones(len(a), np.float32), 1.0, (640, 480), (640, 480)
    )


def cloud(depths: tuple[float, float]) -> np.ndarray:
    random = np.random.default_rng(1)
    z = random.uniform(*depths, 600)
    return np.column_stack([random.uniform(-0.5, 0.5, 600) * z, random.uniform(-0.4, 0.4, 600) * z, z])


def test_a_scene_with_depth_gives_the_fundamental_matrix_of_its_cameras() -> None:
    found = estimate_uncalibrated(pair(cloud((2.0, 8.0)), R, T))
    assert found.kind == "fundamental"
    true = np.linalg.inv(K1).T @ poses.skew(T) @ R @ np.linalg.inv(K0)
    clean = pair(cloud((2.0, 8.0)), R, T, outliers=0.0, noise=0.0)
    x0 = np.column_stack([clean.reference_xy, np.ones(len(clean))])
    line = x0 @ found.fundamental.T
    x1 = np.column_stack([clean.query_xy, np.ones(len(clean))])
    distance = np.abs(np.sum(line * x1, 1)) / np.hypot(line[:, 0], line[:, 1])
    assert np.median(distance) < 0.1
    assert abs(np.sum(found.fundamental * true) / np.linalg.norm(true) / np.linalg.norm(found.fundamental)) > 0.999
    assert 0.6 < found.fundamental_inliers.mean() < 0.8


@pytest.mark.parametrize("case", ["plane", "rotation"])
def test_a_plane_and_a_pure_rotation_call_for_a_homography(case: str) -> None:
    X = cloud((2.0, 8.0))
    if case == "plane":
        X[:, 2] = 4.0 + 0.5 * X[:, 0] / X[:, 2]
    t = T if case == "plane" else np.zeros(3)
    found = estimate_uncalibrated(pair(X, R, t))
    assert found.kind == "homography"
    clean = pair(X, R, t, outliers=0.0, noise=0.0)
    y = np.column_stack([clean.reference_xy, np.ones(len(clean))]) @ found.homography.T
    assert np.median(np.linalg.norm(y[:, :2] / y[:, 2:] - clean.query_xy, axis=1)) < (
        0.2 if case == "rotation" else 1.5
    )


def test_matches_by_chance_give_nothing() -> None:
    for seed in range(5):
        random = np.random.default_rng(seed)
        xy = [random.uniform((0, 0), (640, 480), (400, 2)).astype(np.float32) for _ in range(2)]
        found = estimate_uncalibrated(
            Correspondences(*xy, np.ones(400, np.float32), 1.0, (640, 480), (640, 480)), seed=seed
        )
        assert found.kind == "none", found.status
        assert found.fundamental is None


def test_too_few_matches_are_named_and_a_bad_threshold_is_refused() -> None:
    none = Correspondences.empty((640, 480), (640, 480))
    assert "0 matches: at least 15" in estimate_uncalibrated(none).status
    with pytest.raises(ValueError, match="max_error_px must be positive, got 0"):
        estimate_uncalibrated(none, max_error_px=0)
