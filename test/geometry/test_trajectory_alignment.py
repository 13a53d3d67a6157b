"""Trajectories: association by time, alignment, interpolation, path length."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ros2_densematch.geometry import poses
from ros2_densematch.geometry.trajectory import Similarity, Trajectory, align, associate


def walk(n: int = 20, seed: int = 0) -> Trajectory:
    g = np.random.default_rng(seed)
    T = np.array([poses.make_pose(poses.exp_rotation(g.normal(0, 1, 3)), g.normal(0, 2, 3)) for _ in range(n)])
    return Trajectory(np.arange(n) * 100_000_000, T)


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 10**6), scale=st.floats(0.01, 100), n=st.integers(4, 30))
def test_alignment_finds_the_similarity_that_was_applied(seed: int, scale: float, n: int) -> None:
    g = np.random.default_rng(seed)
    truth = Similarity(poses.exp_rotation(g.normal(0, 1.5, 3)), g.normal(0, 5, 3), scale)
    points = g.normal(0, 1, (n, 3))
    found = align(points, truth.apply(points))
    assert found.scale == pytest.approx(scale)
    np.testing.assert_allclose(found.R, truth.R, atol=1e-7)
    np.testing.assert_allclose(found.t, truth.t, atol=1e-6 * max(1, scale))


def test_rigid_alignment_keeps_the_scale_and_is_no_worse_than_any_neighbour() -> None:
    g = np.random.default_rng(0)
    x, y = g.normal(size=(15, 3)), g.normal(size=(15, 3))
    found = align(x, y, with_scale=False)
    assert found.scale == 1.0
    best = ((found.apply(x) - y) ** 2).sum()
    for _ in range(50):
        other = Similarity(poses.exp_rotation(g.normal(0, 0.05, 3)) @ found.R, found.t + g.normal(0, 0.05, 3), 1.0)
        assert ((other.apply(x) - y) ** 2).sum() >= best


def test_mirrored_points_are_aligned_by_a_rotation_never_by_a_mirror() -> None:
    x = np.random.default_rng(0).normal(size=(20, 3))
    assert np.linalg.det(align(x, x * [1, 1, -1]).R) == pytest.approx(1.0)


def test_alignment_of_degenerate_points_is_defined() -> None:
    line = np.outer(np.arange(5.0), [1, 2, 3])
    found = align(line, 2 * line + 1)
    np.testing.assert_allclose(found.apply(line), 2 * line + 1, atol=1e-9)
    point = align(np.ones((3, 3)), np.zeros((3, 3)))
    assert point.scale == 1.0
    np.testing.assert_allclose(point.apply(np.ones((3, 3))), 0, atol=1e-12)
    with pytest.raises(ValueError, match="0 and 0"):
        align(np.zeros((0, 3)), np.zeros((0, 3)))
    with pytest.raises(ValueError, match="2 and 3"):
        align(np.zeros((2, 3)), np.zeros((3, 3)))


def test_association_is_one_to_one_and_nearest() -> None:
    a = np.array([0, 100, 200, 300, 1000])
    b = np.array([8, 95, 105, 203, 295])
    i, j = associate(a, b, max_difference_ns=10)
    assert list(zip(i.tolist(), j.tolist(), strict=True)) == [(0, 0), (1, 1), (2, 3), (3, 4)]
    assert [len(x) for x in associate([], b)] == [0, 0]


@given(a=st.lists(st.integers(0, 1000), unique=True), b=st.lists(st.integers(0, 1000), unique=True))
def test_association_never_uses_a_stamp_twice(a: list[int], b: list[int]) -> None:
    a, b = sorted(a), sorted(b)
    i, j = associate(a, b, max_difference_ns=15)
    assert len(set(i.tolist())) == len(i) == len(set(j.tolist()))
    assert all(abs(a[p] - b[q]) <= 15 for p, q in zip(i, j, strict=True))
    assert np.all(np.diff(i) > 0)


def test_interpolation_serves_times_between_and_makes_nothing_up() -> None:
    T = np.array([np.eye(4), poses.make_pose(poses.exp_rotation([0, 0, 0.4]), [2, 0, 0]), np.eye(4)])
    trajectory = Trajectory(np.array([0, 100, 10**10]), T)
    at, served = trajectory.interpolated([-5, 0, 25, 100, 5 * 10**9, 10**10, 2 * 10**10])
    np.testing.assert_array_equal(served, [False, True, True, True, False, True, False])
    np.testing.assert_allclose(at.positions[1], [0.5, 0, 0])
    assert poses.rotation_angle_deg(at.T_world_from_camera[1]) == pytest.approx(np.degrees(0.1))


def test_path_length_and_alignment_of_a_moved_trajectory() -> None:
    trajectory = walk()
    similarity = Similarity(poses.exp_rotation([0.1, 0.2, 0.3]), np.array([1.0, 2, 3]), 2.5)
    T = trajectory.T_world_from_camera.copy()
    T[:, :3, 3] = similarity.apply(trajectory.positions)
    moved = Trajectory(trajectory.stamps_ns, T)
    assert moved.path_length() == pytest.approx(2.5 * trajectory.path_length())
    back = align(trajectory.positions, moved.positions)
    np.testing.assert_allclose(back.R, similarity.R, atol=1e-9)
    assert trajectory.select(np.array([0])).path_length() == 0.0


def test_bad_trajectories_are_refused() -> None:
    T = np.stack([np.eye(4)] * 3)
    with pytest.raises(ValueError, match="2 stamps and 3 poses"):
        Trajectory(np.arange(2), T)
    with pytest.raises(ValueError, match="at pose 2"):
        Trajectory(np.array([0, 5, 5]), T)
    with pytest.raises(ValueError, match="not finite"):
        Trajectory(np.arange(3), T * np.nan)
