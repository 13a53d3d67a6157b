"""The covariance is true: the squared error over it has the mean of its chi-square distribution, within 95 %."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from scipy.stats import chi2

from ros2_densematch.geometry import poses
from ros2_densematch.geometry.relative_pose import UNKNOWN_LENGTH_VARIANCE
from ros2_densematch.geometry.two_view import Geometry, PoseConfig, Scale, estimate_relative_pose

# The simulated matches err one by one, and the cameras are exact.
INDEPENDENT = PoseConfig(drift_px=0.0)
RUNS = 80


def check_band(errors: list[float], freedom: int) -> None:
    low, high = chi2.ppf([0.025, 0.975], freedom * len(errors)) / len(errors)
    assert low < np.mean(errors) < high


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("general", {"n": 300, "noise": 0.3}),
        ("general", {"n": 300, "noise": 0.3, "with_precision": True}),
        ("forward", {"n": 300, "noise": 0.3}),
        ("plane", {"n": 300, "noise": 0.3}),
    ],
    ids=["general", "precision", "forward", "plane"],
)
def test_unit_scale_has_five_degrees_of_freedom(
    make_pair: Callable, squared_error: Callable, kind: str, options: dict
) -> None:
    errors = []
    for seed in range(RUNS):
        pair = make_pair(kind, seed=seed, **options)
        pose = estimate_relative_pose(pair.matches, pair.camera, pair.camera, config=INDEPENDENT, seed=seed)
        assert pose.scale is Scale.UNIT, pose.status
        # Also where a plane leaves two motions and the other one is true: the covariance reaches to it.
        errors.append(squared_error(pair.T, pose.T_query_from_reference, pose.covariance, unit=True))
    check_band(errors, 5)


def test_outliers_do_not_make_the_covariance_a_lie(make_pair: Callable, squared_error: Callable) -> None:
    """With a third of wrong matches some lie on their epipolar line by chance: the mean has a tail, the median none."""
    errors = []
    for seed in range(RUNS):
        pair = make_pair("general", n=400, outliers=0.33, seed=seed)
        pose = estimate_relative_pose(pair.matches, pair.camera, pair.camera, config=INDEPENDENT, seed=seed)
        errors.append(squared_error(pair.T, pose.T_query_from_reference, pose.covariance, unit=True))
    assert np.median(errors) < 1.4 * chi2.median(5)
    assert np.mean(np.array(errors) < chi2.ppf(0.99, 5)) > 0.9


def test_rotation_of_a_pure_rotation_has_three_degrees_of_freedom(make_pair: Callable) -> None:
    errors = []
    for seed in range(RUNS):
        pair = make_pair("rotation", n=200, seed=seed)
        pose = estimate_relative_pose(pair.matches, pair.camera, pair.camera, config=INDEPENDENT, seed=seed)
        error = poses.log_rotation(pair.T[:3, :3] @ pose.T_query_from_reference[:3, :3].T)
        errors.append(float(error @ np.linalg.solve(pose.covariance[3:, 3:], error)))
    check_band(errors, 3)


def test_the_inverse_pose_carries_an_equally_true_covariance(make_pair: Callable, squared_error: Callable) -> None:
    errors = []
    for seed in range(RUNS):
        pair = make_pair("general", n=200, seed=seed)
        pose = estimate_relative_pose(pair.matches, pair.camera, pair.camera, config=INDEPENDENT, seed=seed)
        inverted = poses.invert_with_covariance(pose.T_query_from_reference, pose.covariance)
        errors.append(squared_error(poses.inverse(pair.T), *inverted, unit=True))
    check_band(errors, 5)


def test_the_variance_along_a_unit_translation_is_the_declared_one(make_pair: Callable) -> None:
    pair = make_pair("general")
    pose = estimate_relative_pose(pair.matches, pair.camera, pair.camera, config=INDEPENDENT)
    t, C = pose.T_query_from_reference[:3, 3], pose.covariance
    assert t @ C[:3, :3] @ t == pytest.approx(UNKNOWN_LENGTH_VARIANCE)
    assert np.sort(np.linalg.eigvalsh(C))[-2] < 1e-2


def test_a_plane_reaches_to_its_other_motion(make_pair: Callable, squared_error: Callable) -> None:
    wrong = 0
    for seed in range(20):
        pair = make_pair("plane", n=300, seed=seed)
        pose = estimate_relative_pose(pair.matches, pair.camera, pair.camera, config=INDEPENDENT, seed=seed)
        if poses.direction_angle_deg(pair.T[:3, 3], pose.T_query_from_reference[:3, 3]) > 5:
            wrong += 1
            assert "two motions" in pose.status
            assert squared_error(pair.T, pose.T_query_from_reference, pose.covariance, unit=True) < 50
    assert wrong > 0, "no seed takes the other motion: the test shows nothing"


def test_a_rotation_that_the_matches_leave_open_is_no_pose(make_pair: Callable) -> None:
    """Thirty noisy matches on a hundredth of the image agree on almost anything."""
    pair = make_pair("general", n=6000, noise=0.8, seed=1)
    close = (np.abs(pair.matches.reference_xy - [320, 240]) < [30, 25]).all(1)
    pose = estimate_relative_pose(pair.matches.select(np.flatnonzero(close)[:30]), pair.camera, pair.camera)
    assert pose.geometry is Geometry.DEGENERATE
    assert "fix the rotation to" in pose.status
    assert pose.num_inliers > 15, "it is not for want of inliers"
    wide = estimate_relative_pose(pair.matches.select(np.arange(300)), pair.camera, pair.camera)
    assert wide.ok


def test_more_noise_gives_a_larger_covariance_in_proportion(make_pair: Callable) -> None:
    def spread(noise: float) -> float:
        traces = []
        for seed in range(10):
            pair = make_pair("general", n=400, noise=noise, seed=seed)
            pose = estimate_relative_pose(pair.matches, pair.camera, pair.camera, config=INDEPENDENT)
            traces.append(np.trace(pose.covariance[3:, 3:]))
        return float(np.median(traces))

    assert spread(0.4) / spread(0.1) == pytest.approx(16.0, rel=0.25)


@pytest.mark.parametrize(("n", "noise", "open_"), [(400, 0.2, False), (24, 1.5, True)], ids=["many", "few and noisy"])
def test_a_rotation_known_to_more_than_a_degree_is_named(
    make_pair: Callable, n: int, noise: float, open_: bool
) -> None:
    pair = make_pair("general", n=n, noise=noise, seed=1)
    pose = estimate_relative_pose(pair.matches, pair.camera, pair.camera)
    assert pose.ok
    std = np.degrees(np.sqrt(np.linalg.eigvalsh(pose.covariance[3:, 3:])[-1]))
    assert (std > 1.0) is np.bool_(open_)
    assert (f"the rotation is known to {std:.1f} degrees only" in pose.status) is open_
