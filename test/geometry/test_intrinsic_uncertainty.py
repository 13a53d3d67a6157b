"""Errors that all matches share: what a wrong calibration does is in the covariance."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ros2_densematch.geometry.camera import Camera
from ros2_densematch.geometry.intrinsics import EXACT, IntrinsicUncertainty
from ros2_densematch.geometry.shared_errors import shared_derivatives
from ros2_densematch.geometry.two_view import PoseConfig, Scale, estimate_relative_pose

INDEPENDENT = PoseConfig(drift_px=0.0)


def wrong(camera: Camera, std: IntrinsicUncertainty, g: np.random.Generator) -> Camera:
    K = camera.K.copy()
    error = g.normal(0, 1, 4)
    K[[0, 1], [0, 1]] *= 1 + std.focal * error[0]
    K[:2, 2] += std.principal_point * camera.K[0, 0] * error[1:3]
    distortion = np.array([std.distortion * error[3], 0, 0, 0, 0])
    return Camera(*camera.size, K, "plumb_bob", distortion, uncertainty=std)


def test_a_camera_drawn_from_its_uncertainty_gives_a_true_covariance(
    make_pair: Callable, squared_error: Callable
) -> None:
    std = IntrinsicUncertainty(0.01, 0.01, 0.01)
    stated, ignored = [], []
    for seed in range(40):
        pair = make_pair("general", n=300, noise=0.2, seed=seed)
        camera = wrong(pair.camera, std, np.random.default_rng(seed + 500))
        for cameras, errors in ((camera, stated), (replace(camera, uncertainty=EXACT), ignored)):
            pose = estimate_relative_pose(pair.matches, cameras, cameras, config=INDEPENDENT, seed=seed)
            if pose.scale is Scale.UNIT:
                errors.append(squared_error(pair.T, pose.T_query_from_reference, pose.covariance, unit=True) / 5)
    assert 0.4 < np.median(stated) < 1.3
    assert np.median(ignored) > 2 * np.median(stated)


def test_derivatives_are_those_of_the_camera() -> None:
    """Against central differences of the camera itself, for a distorted camera."""
    std = IntrinsicUncertainty(0.001, 0.001, 0.001)
    K, D = np.array([[500.0, 0, 320], [0, 510, 240], [0, 0, 1]]), np.array([-0.1, 0.02, 0, 0, 0])
    camera = Camera(640, 480, K, "plumb_bob", D, uncertainty=std)
    xy = np.array([[40.0, 60], [320, 240], [600, 100], [200, 450]])
    normalised = camera.normalise(xy)
    J = np.linalg.inv(camera.pixel_jacobian(normalised)).transpose(1, 2, 0)
    found, second = shared_derivatives(camera, camera, (xy, xy), (normalised, normalised), (J, J), EXACT)
    np.testing.assert_array_equal(found, second)  # one camera took both images
    for k in range(4):
        ends = []
        for sign in (1, -1):
            K2, D2 = K.copy(), D.copy()
            if k == 0:
                K2[[0, 1], [0, 1]] *= 1 + sign * std.focal
            elif k < 3:
                K2[k - 1, 2] += sign * std.principal_point * K[k - 1, k - 1]
            else:
                D2[0] += sign * std.distortion
            ends.append(Camera(640, 480, K2, "plumb_bob", D2).normalise(xy))
        # k1 acts on the distorted radius to first order only
        np.testing.assert_allclose(found[k].T, (ends[0] - ends[1]) / 2, atol=2e-5 if k < 3 else 2e-4)


def test_two_cameras_err_independently() -> None:
    a = Camera.from_matrix([[500, 0, 320], [0, 500, 240], [0, 0, 1]], 640, 480)
    b = Camera.from_matrix([[520, 0, 320], [0, 520, 240], [0, 0, 1]], 640, 480)
    xy = np.array([[40.0, 60], [600, 100]])
    J = np.repeat(np.eye(2)[..., None] / 500, 2, 2)
    points = (a.normalise(xy), b.normalise(xy))
    first, second = shared_derivatives(a, b, (xy, xy), points, (J, J), IntrinsicUncertainty(rolling_shutter=0.01))
    assert first.shape == second.shape == (4 + 4 + 3 + 3, 2, 2)
    assert not (np.abs(first).sum((1, 2)) * np.abs(second).sum((1, 2))).any()


def test_a_camera_file_states_its_uncertainty(tmp_path: Path) -> None:
    camera = Camera(
        640, 480, np.array([[500.0, 0, 320], [0, 500, 240], [0, 0, 1]]), uncertainty=IntrinsicUncertainty(0.01)
    )
    camera.to_yaml(tmp_path / "camera.yaml")
    assert Camera.from_yaml(tmp_path / "camera.yaml").uncertainty == camera.uncertainty
    text = (tmp_path / "camera.yaml").read_text()
    (tmp_path / "bad.yaml").write_text(text.replace("principal_point:", "centre:"))
    with pytest.raises(ValueError, match=r"bad\.yaml.*intrinsic_uncertainty.*principal_point.*centre"):
        Camera.from_yaml(tmp_path / "bad.yaml")
    assert camera.resized(320, 240).uncertainty == camera.uncertainty
    with pytest.raises(ValueError, match="focal must be 0 or more, got -1"):
        IntrinsicUncertainty(focal=-1)
