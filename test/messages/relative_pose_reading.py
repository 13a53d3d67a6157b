"""Reads densematch/RelativePose messages back: only tests need it, consumers of the topic have their own types."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ros2_densematch.geometry import poses
from ros2_densematch.geometry.relative_pose import Geometry, RelativePose, Scale
from ros2_densematch.messages.conversions import pose_matrix


def relative_pose_from_message(msg: Any, inliers: NDArray[np.bool_] | None = None) -> RelativePose:
    """The relative pose of a densematch/RelativePose message, as T_query_from_reference.

    Args:
        msg: the message.
        inliers: bool (num_matches,), from the Correspondences message of the same stamp; None = none known.

    Raises:
        ValueError: the pose or a class number cannot be read.
    """
    covariance = np.asarray(msg.pose.covariance, np.float64).reshape(6, 6)
    T, covariance = poses.invert_with_covariance(pose_matrix(msg.pose.pose), covariance)
    return RelativePose(
        T_query_from_reference=T,
        geometry=Geometry(int(msg.geometry)),
        scale=Scale(int(msg.scale)),
        scale_std=float(msg.scale_std),
        covariance=covariance,
        inliers=np.zeros(int(msg.num_matches), np.bool_) if inliers is None else inliers,
        num_matches=int(msg.num_matches),
        num_inliers=int(msg.num_inliers),
        inlier_ratio=float(msg.inlier_ratio),
        median_epipolar_px=float(msg.median_epipolar_px),
        median_triangulation_deg=float(msg.median_triangulation_deg),
        homography_inlier_ratio=float(msg.homography_inlier_ratio),
        status=str(msg.status),
    )
