"""Metric scale from a depth image, a stereo pair and an odometry prior."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from scipy.stats import chi2

from ros2_densematch.geometry import poses
from ros2_densematch.geometry.camera import Camera
from ros2_densematch.geometry.correspondences import Correspondences
from ros2_densematch.geometry.intrinsics import EXACT
from ros2_densematch.geometry.scale import DepthScale, PriorScale, StereoScale, sample_inverse
from ros2_densematch.geometry.two_view import Geometry, PoseConfig, Scale, estimate_relative_pose

# The simulated matches err one by one, and the cameras are exact.
INDEPENDENT = PoseConfig(drift_px=0.0)
RUNS = 30
SIZE = (640, 480)
CAMERA = Camera(*SIZE, np.array([[500.0, 0, 320], [0, 500, 240], [0, 0, 1]]), uncertainty=EXACT)
BASELINE = 0.2


def noisy_source(kind: str, pair, g: np.random.Generator):
    if kind == "depth":
        return DepthScale((pair.depth * g.normal(1, 0.02, pair.depth.shape)).astype(np.float32), std_fraction=0.02)
    if kind == "half the depth":
        depth = (pair.depth * g.normal(1, 0.02, pair.depth.shape)).astype(np.float32)
        depth[:, :200], depth[:, 200:320] = 0.0, np.nan
        return DepthScale(depth, std_fraction=0.02)
    if kind == "disparity":
        disparity = 500 * BASELINE / pair.depth + g.normal(0, 0.3, pair.depth.shape)
        return StereoScale(BASELINE, disparity=disparity.astype(np.float32), disparity_std_px=0.3)
    prior = pair.T.copy()
    prior[:3, 3] += g.normal(0, 0.02, 3)
    return PriorScale(prior, std=0.02)


@pytest.mark.parametrize("scene", ["general", "plane", "rotation"])
@pytest.mark.parametrize("kind", ["depth", "half the depth", "disparity", "prior"])
def test_metric_pose_and_its_covariance(make_pair: Callable, squared_error: Callable, kind: str, scene: str) -> None:
    """Six degrees of freedom; the error of the length agrees with scale_std. A plane's two motions are told apart."""
    errors, lengths = [], []
    for seed in range(RUNS):
        pair = make_pair(scene, n=200, seed=seed)
        source = noisy_source(kind, pair, np.random.default_rng(seed + 1000))
        pose = estimate_relative_pose(pair.matches, CAMERA, CAMERA, config=INDEPENDENT, scale_source=source, seed=seed)
        if pose.scale is not Scale.METRIC:
            # 0.1 % of true priors lie outside the test's 99.9 %.
            assert kind == "prior", pose.status
            continue
        errors.append(squared_error(pair.T, pose.T_query_from_reference, pose.covariance, unit=False))
        length = np.linalg.norm(pose.T_query_from_reference[:3, 3]) - np.linalg.norm(pair.T[:3, 3])
        lengths.append(length / pose.scale_std)
    assert len(errors) >= RUNS - 2
    low, high = chi2.ppf([0.001, 0.999], 6 * len(errors)) / len(errors)  # twelve cases; cells make it a little wide
    assert low < np.mean(errors) < high
    if scene != "rotation":
        assert 0.6 < np.std(lengths) < 1.5


def test_depth_makes_a_pure_rotation_fully_known(make_pair: Callable) -> None:
    pair = make_pair("rotation", n=300)
    pose = estimate_relative_pose(pair.matches, CAMERA, CAMERA, scale_source=DepthScale(pair.depth))
    assert (pose.geometry, pose.scale) == (Geometry.PANORAMIC, Scale.METRIC)
    assert np.linalg.norm(pose.T_query_from_reference[:3, 3]) < 0.01
    assert np.sqrt(pose.covariance[:3, :3].max()) < 0.01


def test_matches_to_the_right_image_give_the_same_as_a_disparity_image(make_pair: Callable) -> None:
    pair = make_pair("general", n=400, noise=0.1)
    left = pair.matches.reference_xy
    depth = pair.depth[np.rint(left[:, 1]).astype(int), np.rint(left[:, 0]).astype(int)]
    g = np.random.default_rng(0)
    offset = g.uniform(-0.4, 0.4, left.shape).astype(np.float32) * np.float32([1, 1])
    right = left + offset - np.stack([500 * BASELINE / depth, 0 * depth], 1)
    stereo = Correspondences(left + offset, right.astype(np.float32), np.ones(400, np.float32), 1.0, SIZE, SIZE)
    source = StereoScale(BASELINE, matches=stereo.select(np.arange(0, 400, 2)), disparity_std_px=0.1)
    pose = estimate_relative_pose(pair.matches, CAMERA, CAMERA, scale_source=source)
    assert pose.scale is Scale.METRIC
    assert np.linalg.norm(pose.T_query_from_reference[:3, 3]) == pytest.approx(0.5, rel=0.01)
    assert 0 < pose.scale_std < 0.01


def test_a_shifted_principal_point_of_the_right_camera_counts(make_pair: Callable) -> None:
    pair = make_pair("general", n=300, noise=0.1)
    right = Camera.from_matrix([[500, 0, 330], [0, 500, 240], [0, 0, 1]], *SIZE)
    disparity = (500 * BASELINE / pair.depth + 320 - 330).astype(np.float32)
    disparity[disparity <= 0] = np.nan
    source = StereoScale(BASELINE, disparity=disparity, right_camera=right)
    pose = estimate_relative_pose(pair.matches, CAMERA, CAMERA, scale_source=source)
    assert np.linalg.norm(pose.T_query_from_reference[:3, 3]) == pytest.approx(0.5, rel=0.02)


def test_wrong_depths_are_outvoted(make_pair: Callable) -> None:
    pair = make_pair("general", n=400)
    depth = pair.depth.copy()
    depth[:150] *= 1.7  # 30 % of the image
    pose = estimate_relative_pose(pair.matches, CAMERA, CAMERA, scale_source=DepthScale(depth))
    assert np.linalg.norm(pose.T_query_from_reference[:3, 3]) == pytest.approx(0.5, rel=0.02)


def test_a_common_error_of_the_depth_widens_the_length(make_pair: Callable) -> None:
    pair = make_pair("general")
    pose = estimate_relative_pose(pair.matches, CAMERA, CAMERA, scale_source=DepthScale(pair.depth, scale_error=0.05))
    assert pose.scale_std == pytest.approx(0.05 * 0.5, rel=0.05)


def test_without_enough_depth_the_pose_stays_a_direction_and_says_why(make_pair: Callable) -> None:
    pair = make_pair("general")
    pose = estimate_relative_pose(
        pair.matches, CAMERA, CAMERA, scale_source=DepthScale(np.zeros((480, 640), np.float32))
    )
    assert pose.scale is Scale.UNIT
    assert "no metric scale from the depth image: 0 inliers have depth" in pose.status


def test_a_prior_that_contradicts_the_images_is_not_used(make_pair: Callable) -> None:
    pair = make_pair("general")
    against = pair.T.copy()
    against[:3, 3] *= -1
    pose = estimate_relative_pose(pair.matches, CAMERA, CAMERA, scale_source=PriorScale(against, 0.01))
    assert pose.scale is Scale.UNIT
    assert "differs from the images' by 1" in pose.status


def test_no_pose_stays_no_pose() -> None:
    empty = Correspondences.empty(SIZE, SIZE)
    pose = estimate_relative_pose(empty, CAMERA, CAMERA, scale_source=PriorScale(np.eye(4), 0.1))
    assert pose.geometry is Geometry.DEGENERATE


def test_depth_is_not_interpolated_across_an_edge_or_beside_a_hole() -> None:
    depth = np.ones((4, 6), np.float32)
    depth[:, 3:] = 2.0
    depth[0, 0] = 0.0
    xy = np.array([[1.5, 1.5], [2.5, 1.5], [4.0, 1.5], [0.5, 0.5], [-1, 0], [7, 1], [np.nan, 0]], np.float32)
    values = sample_inverse(depth, xy)
    np.testing.assert_allclose(values[[0, 2]], [1.0, 0.5])
    assert np.isnan(values[[1, 3, 4, 5, 6]]).all()


def test_bad_sources_are_refused_by_name(make_pair: Callable) -> None:
    with pytest.raises(ValueError, match="divide millimetres by 1000"):
        DepthScale(np.ones((480, 640), np.uint16))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="baseline must be positive"):
        StereoScale(0.0, disparity=np.ones((480, 640), np.float32))
    with pytest.raises(ValueError, match="either"):
        StereoScale(0.1)
    with pytest.raises(ValueError, match="std must be positive"):
        PriorScale(np.eye(4), 0.0)
    with pytest.raises(ValueError, match="finite 4 x 4"):
        PriorScale(np.full((4, 4), np.nan), 0.1)
    source = DepthScale(np.ones((240, 320), np.float32))
    with pytest.raises(ValueError, match=r"depth image is 320 x 240.*register"):
        estimate_relative_pose(make_pair("general").matches, CAMERA, CAMERA, scale_source=source)


def test_prior_scale_of_a_direction_is_the_projection(make_pair: Callable) -> None:
    pair = make_pair("general", n=1000, noise=0.05)
    prior = poses.make_pose(np.eye(3), 1.1 * pair.T[:3, 3])
    pose = estimate_relative_pose(pair.matches, CAMERA, CAMERA, scale_source=PriorScale(prior, 0.05))
    assert np.linalg.norm(pose.T_query_from_reference[:3, 3]) == pytest.approx(0.55, rel=1e-3)
    assert pose.scale_std == pytest.approx(0.05, rel=0.01)
