"""Rigid motions, quaternions and covariances."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ros2_densematch.geometry import poses

vectors = st.tuples(*[st.floats(-3, 3)] * 3).map(np.array)


@given(w=vectors)
def test_quaternion_and_rotation_vector_go_there_and_back(w: np.ndarray) -> None:
    R = poses.exp_rotation(w)
    np.testing.assert_allclose(R @ R.T, np.eye(3), atol=1e-12)
    np.testing.assert_allclose(poses.matrix_from_quaternion(poses.quaternion_from_matrix(R)), R, atol=1e-12)
    np.testing.assert_allclose(poses.exp_rotation(poses.log_rotation(R)), R, atol=1e-9)


def test_quaternion_order_is_xyzw_and_a_yaw_is_about_z() -> None:
    half = np.radians(15.0)
    R = poses.matrix_from_quaternion([0, 0, np.sin(half), np.cos(half)])
    np.testing.assert_allclose(R @ [1, 0, 0], [np.cos(2 * half), np.sin(2 * half), 0])
    assert poses.rotation_angle_deg(R) == pytest.approx(30.0)
    np.testing.assert_allclose(poses.quaternion_from_matrix(R), [0, 0, np.sin(half), np.cos(half)])


def test_half_turns_have_a_quaternion() -> None:
    for axis in np.eye(3):
        R = poses.exp_rotation(np.pi * axis)
        np.testing.assert_allclose(np.abs(poses.quaternion_from_matrix(R)[:3]), axis, atol=1e-12)


@pytest.mark.parametrize("q", [[0, 0, 0, 0], [np.nan, 0, 0, 1], [0, 0, 1]])
def test_a_quaternion_without_length_is_refused(q: list[float]) -> None:
    with pytest.raises(ValueError, match="non-zero length"):
        poses.matrix_from_quaternion(q)


@given(w=vectors, t=vectors, v=vectors)
def test_inverse_and_compose(w: np.ndarray, t: np.ndarray, v: np.ndarray) -> None:
    T = poses.make_pose(poses.exp_rotation(w), t)
    np.testing.assert_allclose(poses.compose(T, poses.inverse(T)), np.eye(4), atol=1e-12)
    np.testing.assert_allclose(
        poses.transform_points(poses.inverse(T), poses.transform_points(T, v[None])), v[None], atol=1e-9
    )
    stack = np.stack([T, np.eye(4)])
    np.testing.assert_allclose(poses.inverse(stack)[0], poses.inverse(T))


def test_interpolation_turns_and_moves_evenly() -> None:
    A = poses.make_pose(np.eye(3), [0, 0, 0])
    B = poses.make_pose(poses.exp_rotation([0, 0, 1.2]), [4, 0, 0])
    quarter = poses.interpolate(A, B, 0.25)
    np.testing.assert_allclose(quarter[:3, 3], [1, 0, 0])
    np.testing.assert_allclose(poses.log_rotation(quarter[:3, :3]), [0, 0, 0.3], atol=1e-12)


@given(w=vectors, t=vectors, seed=st.integers(0, 1000))
def test_covariance_of_the_inverse_is_that_of_inverted_samples(w: np.ndarray, t: np.ndarray, seed: int) -> None:
    """A small perturbation of the pose, inverted exactly, equals the Jacobian's prediction."""
    T = poses.make_pose(poses.exp_rotation(w), t)
    d = np.random.default_rng(seed).normal(0, 1e-6, 6)
    moved = poses.make_pose(poses.exp_rotation(d[3:]) @ T[:3, :3], T[:3, 3] + d[:3])
    inverse, inverse_moved = poses.inverse(T), poses.inverse(moved)
    change = np.concatenate(
        [inverse_moved[:3, 3] - inverse[:3, 3], poses.log_rotation(inverse_moved[:3, :3] @ inverse[:3, :3].T)]
    )
    np.testing.assert_allclose(poses.inverse_covariance_jacobian(T) @ d, change, atol=1e-9)


def test_inverting_twice_gives_the_covariance_back() -> None:
    g = np.random.default_rng(1)
    A = g.normal(size=(6, 6))
    T = poses.make_pose(poses.exp_rotation([0.4, -1.0, 0.3]), [1, 2, 3])
    back, covariance = poses.invert_with_covariance(*poses.invert_with_covariance(T, A @ A.T))
    np.testing.assert_allclose(back, T, atol=1e-12)
    np.testing.assert_allclose(covariance, A @ A.T, atol=1e-9)


def test_angles_between_directions() -> None:
    assert poses.direction_angle_deg([1, 0, 0], [0, 2, 0]) == pytest.approx(90)
    assert poses.direction_angle_deg([1, 0, 0], [-3, 0, 0]) == pytest.approx(180)
    assert np.isnan(poses.direction_angle_deg([1, 0, 0], [0, 0, 0]))
