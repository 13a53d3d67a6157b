"""Our types survive the way through messages and their bytes; the pose turns round exactly once."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from relative_pose_reading import relative_pose_from_message

from ros2_densematch.geometry import poses
from ros2_densematch.geometry.correspondences import Correspondences
from ros2_densematch.geometry.relative_pose import Geometry, RelativePose, Scale, no_pose
from ros2_densematch.messages import conversions
from ros2_densematch.messages.typestore import ros2_typestore

PLACE = {"stamp_ns": 5_000_000_007, "frame_id": "cam", "reference_stamp_ns": 4_000_000_000}


def yaw_pose(degrees: float = 30.0) -> RelativePose:
    """The query camera stands 1 m right of the reference camera and has turned right (about its y axis, down)."""
    R_reference_from_query = poses.exp_rotation([0.0, np.radians(degrees), 0.0])
    T_reference_from_query = poses.make_pose(R_reference_from_query, [1.0, 0.0, 0.0])
    rng = np.random.default_rng(0)
    A = rng.normal(size=(6, 6))
    return RelativePose(
        T_query_from_reference=poses.inverse(T_reference_from_query),
        geometry=Geometry.CALIBRATED,
        scale=Scale.METRIC,
        scale_std=0.02,
        covariance=A @ A.T * 1e-4,
        inliers=np.array([True, False, True]),
        num_matches=3,
        num_inliers=2,
        inlier_ratio=2 / 3,
        median_epipolar_px=0.4,
        median_triangulation_deg=2.5,
        homography_inlier_ratio=0.3,
        status="calibrated",
    )


def matches(n: int = 3) -> Correspondences:
    rng = np.random.default_rng(1)
    xy = rng.uniform(0, 100, (2, n, 2)).astype(np.float32)
    precision = rng.uniform(0, 1, (n, 3)).astype(np.float32)
    return Correspondences(xy[0], xy[1], rng.random(n).astype(np.float32), 0.75, (640, 480), (320, 240), precision)


def through_bytes(message: object) -> object:
    return ros2_typestore().deserialize_cdr(conversions.to_cdr(message), message.__msgtype__)  # type: ignore[attr-defined]


@pytest.mark.parametrize("n", [0, 3])
def test_correspondences_survive(n: int) -> None:
    m = matches(n)
    inliers = np.arange(n) % 2 == 0
    message = conversions.correspondences_message(
        m, **PLACE, reference_frame_id="cam", keyframe_id=2, matcher="gcm", inliers=inliers
    )
    received = through_bytes(message)
    assert conversions.time_ns(received.header.stamp) == PLACE["stamp_ns"]
    assert received.reference_keyframe_id == 2
    back = conversions.correspondences_from_message(received)
    for name in ("reference_xy", "query_xy", "score", "precision"):
        if n or name != "precision":
            np.testing.assert_array_equal(getattr(back, name), getattr(m, name))
    assert (back.reference_size, back.query_size, back.overlap) == ((640, 480), (320, 240), 0.75)
    if n:
        np.testing.assert_array_equal(conversions.inliers_from_message(received), inliers)
    without = conversions.correspondences_message(
        replace(m, precision=None), **PLACE, reference_frame_id="cam", keyframe_id=2
    )
    assert conversions.correspondences_from_message(through_bytes(without)).precision is None
    assert conversions.inliers_from_message(through_bytes(without)) is None


def test_arrays_that_do_not_fit_together_are_refused() -> None:
    message = conversions.correspondences_message(matches(), **PLACE, reference_frame_id="cam", keyframe_id=0)
    message.query_xy = message.query_xy[:-1]
    with pytest.raises(ValueError, match="got 5, 6 and 9"):
        conversions.correspondences_from_message(message)


def test_the_message_holds_the_inverse_pose() -> None:
    message = conversions.relative_pose_message(yaw_pose(), **PLACE, reference_frame_id="reference", keyframe_id=1)
    received = through_bytes(message)
    assert (received.header.frame_id, received.child_frame_id) == ("reference", "cam")
    p, q = received.pose.pose.position, received.pose.pose.orientation
    np.testing.assert_allclose([p.x, p.y, p.z], [1.0, 0.0, 0.0], atol=1e-12)  # where the query camera stands
    np.testing.assert_allclose(2 * np.degrees(np.arctan2(q.y, q.w)), 30.0)  # turned right by 30 degrees


def test_a_relative_pose_survives_with_its_covariance() -> None:
    pose = yaw_pose()
    message = conversions.relative_pose_message(pose, **PLACE, reference_frame_id="cam", keyframe_id=1)
    back = relative_pose_from_message(through_bytes(message), pose.inliers)
    np.testing.assert_allclose(back.T_query_from_reference, pose.T_query_from_reference, atol=1e-12)
    np.testing.assert_allclose(back.covariance, pose.covariance, rtol=1e-6, atol=1e-12)
    for name in ("geometry", "scale", "num_matches", "num_inliers", "status"):
        assert getattr(back, name) == getattr(pose, name)
    assert back.median_epipolar_px == pytest.approx(pose.median_epipolar_px)


def test_the_message_covariance_is_that_of_the_inverse() -> None:
    """Poses drawn from the covariance, inverted one by one, scatter as the message says."""
    pose = yaw_pose()
    message = conversions.relative_pose_message(pose, **PLACE, reference_frame_id="cam", keyframe_id=1)
    T = conversions.pose_matrix(message.pose.pose)
    scatter = []
    for d in np.random.default_rng(2).multivariate_normal(np.zeros(6), pose.covariance * 1e-2, 4000):
        sample = pose.T_query_from_reference.copy()
        sample[:3, :3] = poses.exp_rotation(d[3:]) @ sample[:3, :3]
        sample[:3, 3] += d[:3]
        inverse = poses.inverse(sample)
        turn = poses.log_rotation(inverse[:3, :3] @ T[:3, :3].T)
        scatter.append(np.concatenate([inverse[:3, 3] - T[:3, 3], turn]))
    expected = message.pose.covariance.reshape(6, 6) * 1e-2
    measured = np.cov(np.array(scatter).T)
    np.testing.assert_allclose(measured, expected, atol=0.12 * np.abs(expected).max())


def test_no_pose_is_sent_as_such_with_huge_finite_variances() -> None:
    message = conversions.relative_pose_message(no_pose(4, "too few"), **PLACE, reference_frame_id="c", keyframe_id=0)
    received = through_bytes(message)
    assert received.geometry == Geometry.DEGENERATE
    assert received.scale == Scale.NONE
    variances = np.diag(received.pose.covariance.reshape(6, 6))
    assert np.all((variances[:3] >= 1e5) & (variances[:3] <= 1e9))
