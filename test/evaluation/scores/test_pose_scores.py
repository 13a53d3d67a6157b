"""Scores of pose pairs against independent computations: estimators, protocols, purity, covariance."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import chi2

from ros2_densematch.evaluation.pose import pose_auc
from ros2_densematch.evaluation.protocols import ESTIMATORS, SWEEP_PX, EstimatorSetting, protocol, with_estimators
from ros2_densematch.evaluation.scores.areas import recall_areas
from ros2_densematch.evaluation.scores.covariance import NormalisedErrors, match_errors_squared, pose_error_squared
from ros2_densematch.evaluation.scores.epipolar import epipolar_errors
from ros2_densematch.evaluation.scores.estimators import Problem, estimate
from ros2_densematch.evaluation.scores.figures import bootstrap, cumulative
from ros2_densematch.evaluation.scores.judging import purity, purity_group
from ros2_densematch.evaluation.scores.pose import auc_figures
from ros2_densematch.geometry import poses
from ros2_densematch.geometry.relative_pose import Scale, no_pose

K = np.array([[500.0, 0, 319.5], [0, 500, 239.5], [0, 0, 1]])
T_TRUE = poses.make_pose(poses.exp_rotation([0.05, -0.1, 0.02]), [0.8, 0.1, 0.2])


def problem(noise: float, outliers: int = 0, count: int = 300) -> Problem:
    rng = np.random.default_rng(3)
    X = np.c_[rng.uniform(-2, 2, (count, 2)), rng.uniform(3, 8, count)]
    pixels = [(p[:, :2] / p[:, 2:]) @ K[:2, :2].T + K[:2, 2] for p in (X, poses.transform_points(T_TRUE, X))]
    xy0, xy1 = (p + rng.normal(0, noise, p.shape) for p in pixels)
    xy1[:outliers] = rng.uniform(0, 400, (outliers, 2))
    return Problem(xy0, xy1, K, K, None, None, (640, 480), (640, 480), np.full(count, 0.5, np.float32), None)


@pytest.mark.parametrize("name", ESTIMATORS)
def test_every_estimator_finds_the_pose_and_repeats_itself(name: str) -> None:
    given = problem(0.3, outliers=100)
    found = estimate(given, name, 1.0, 0)  # type: ignore[arg-type]
    assert found.T is not None
    tolerance = 0.3 if name in ("poselib", "own") else 1.0  # OpenCV refines nothing after RANSAC
    assert poses.rotation_angle_deg(found.T, T_TRUE) < tolerance
    assert poses.direction_angle_deg(found.T[:3, 3], T_TRUE[:3, 3]) < 6 * tolerance
    assert 180 < found.inliers <= 205
    np.testing.assert_array_equal(estimate(given, name, 1.0, 0).T, found.T)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ESTIMATORS)
def test_four_matches_are_no_pose(name: str) -> None:
    assert estimate(problem(0.1, count=4), name, 1.0, 0).T is None  # type: ignore[arg-type]


def test_epipolar_errors_are_distances_in_pixels() -> None:
    exact = problem(0.0)
    assert epipolar_errors(*exact.rays(), T_TRUE, 500).max() < 1e-9
    # moved by 2 px at a right angle to its epipolar line, a query point is 2 px away from it there
    E = poses.skew(T_TRUE[:3, 3]) @ T_TRUE[:3, :3]
    rays0, rays1 = exact.rays()
    line = np.c_[rays0, np.ones(len(rays0))] @ E.T
    moved = rays1 + 2 / 500 * line[:, :2] / np.linalg.norm(line[:, :2], axis=1, keepdims=True)
    one_sided = np.abs((np.c_[moved, np.ones(len(moved))] * line).sum(1)) / np.linalg.norm(line[:, :2], axis=1) * 500
    np.testing.assert_allclose(one_sided, 2.0, atol=1e-9)
    found = epipolar_errors(rays0, moved, T_TRUE, 500)
    assert np.median(np.abs(found - 2.0)) < 0.15  # the mean with the other image's distance, which is nearly the same


def test_purity_cannot_be_had_by_giving_up() -> None:
    assert purity(np.zeros(0)) == (1.0, 1.0)
    group = purity_group([np.array([0.5, 2.0, 4.0, 0.1]), np.zeros(0)], "", "")
    values = {f.key: f.value for f in group.figures}
    assert values["beyond_1_px"] == pytest.approx(100 * (0.5 + 1) / 2)
    assert values["beyond_3_px"] == pytest.approx(100 * (0.25 + 1) / 2)
    assert values["within_1_px"] == 1.0


def test_auc_and_map_of_a_short_list() -> None:
    figures = {f.key: f.value for f in auc_figures(np.array([[1.0, 6.0, 180.0]]))}
    # recall rises linearly to 1/3 at 1 degree and stays there until 5
    assert figures["auc_5"] == pytest.approx(100 * (0.5 / 3 + 4 / 3) / 5)
    assert figures["map_5"] == pytest.approx(100 / 3)
    assert figures["map_10"] == pytest.approx(100 * (1 / 3 + 2 / 3) / 2)


def test_areas_of_many_sets_at_once_are_those_of_each() -> None:
    rng = np.random.default_rng(0)
    errors = rng.exponential(6, (50, 40))
    errors[rng.random(errors.shape) < 0.1] = np.inf
    errors[0] = np.inf
    errors[1] = 0.0
    each = np.stack([pose_auc(row, (1.0, 5.0, 20.0)) for row in errors])
    np.testing.assert_allclose(recall_areas(errors, (1.0, 5.0, 20.0)), each, atol=1e-12)


def test_repeated_runs_have_a_standard_deviation() -> None:
    figures = {f.key: f for f in auc_figures(np.array([[1.0, 2.0], [3.0, 4.0]]))}
    first = next(f.value for f in auc_figures(np.array([[1.0, 2.0]])) if f.key == "auc_5")
    second = next(f.value for f in auc_figures(np.array([[3.0, 4.0]])) if f.key == "auc_5")
    assert figures["auc_5"].value == pytest.approx((first + second) / 2)
    assert figures["auc_5"].std == pytest.approx(abs(first - second) / np.sqrt(2))


def test_bootstrap_intervals_cover_the_mean_of_a_normal_sample() -> None:
    values = np.random.default_rng(0).normal(5, 2, 400)
    low, high = bootstrap(len(values), lambda index: values[index].mean(1)[:, None])
    half = 1.96 * values.std() / np.sqrt(400)  # the interval of the normal approximation
    assert low[0] == pytest.approx(values.mean() - half, abs=0.03)
    assert high[0] == pytest.approx(values.mean() + half, abs=0.03)


def test_the_cumulative_curve_never_reaches_pairs_that_failed() -> None:
    curve = cumulative("", [1.0, float("inf")], 20.0)
    assert curve.y[0] == 0.0
    assert curve.y[-1] == 0.5


def test_covariances_of_right_size_are_recognised() -> None:
    """Errors drawn from the stated covariance: the median error is the ideal one, 95 % lie inside; half the size:
    not."""
    rng = np.random.default_rng(1)
    L = np.array([[1.0, 0, 0, 0, 0, 0], *np.eye(6)[1:]]) * [0.02, 0.01, 0.03, 0.001, 0.002, 0.001]
    base = replace(no_pose(0, ""), T_query_from_reference=poses.make_pose(np.eye(3), [1, 0, 0]), scale=Scale.UNIT)
    stated = replace(base, covariance=L @ L.T, geometry=base.geometry.CALIBRATED)
    rows = []
    for _ in range(1500):
        e = L @ rng.normal(size=6)
        t = np.array([1.0, 0, 0]) + e[:3] * [0, 1, 1]
        row = pose_error_squared(stated, poses.make_pose(poses.exp_rotation(e[3:]), t / np.linalg.norm(t)))
        assert row is not None
        rows.append(row)
    assert {dof for _, dof in rows} == {5}
    errors = np.array([r[0] for r in rows])

    def figures(scale: float) -> dict[str, float | None]:
        found = NormalisedErrors(errors * scale, np.full(len(rows), 5, np.intp)).figures()
        return {f.key: f.value for f in found}

    assert figures(1.0)["inside_95"] == pytest.approx(95, abs=1.5)
    assert figures(1.0)["nees_median"] == pytest.approx(chi2.ppf(0.5, 5) / 5, abs=0.05)
    assert figures(4.0)["inside_95"] < 40  # standard deviations stated half as large


def test_match_precision_is_the_inverse_covariance() -> None:
    C = np.array([[0.5, 0.2], [0.2, 0.3]])
    P = np.linalg.inv(C)
    e = np.array([[1.0, -0.5], [0.2, 0.1]])
    packed = np.tile(np.array([P[0, 0], P[0, 1], P[1, 1]], np.float32), (2, 1))
    np.testing.assert_allclose(match_errors_squared(e, packed), np.einsum("ni,ij,nj->n", e, P, e), rtol=1e-5)


def test_protocols_fix_what_they_say() -> None:
    assert protocol("superglue", "scannet1500").images.exact_size == (640, 480)
    assert protocol("superglue", "yfcc100m").images.longer_side == 1600
    assert not protocol("superglue", "yfcc100m").images.half_pixel
    roma = protocol("roma", "megadepth1500")
    assert (roma.judged_longer_side, roma.repeats, roma.failure_deg, roma.signed_translation) == (1200, 5, 90.0, False)
    assert protocol("roma", "scannet1500").judged_shorter_side == 480
    assert protocol("densematch", "x").signed_translation
    assert [e.label for e in protocol("default", "x").estimators] == ["PoseLib 1 px", "OpenCV RANSAC 0.5 px"]
    auto = with_estimators(protocol("default", "x"), "magsac", "auto")
    assert auto.estimators == (EstimatorSetting("magsac", None),)
    assert 1.0 in SWEEP_PX
