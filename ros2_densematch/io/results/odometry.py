"""Velocity and covariance of metric odometry, from one frame to the next."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ros2_densematch.geometry import poses
from ros2_densematch.geometry.relative_pose import Scale
from ros2_densematch.tracking.tracked_frame import TrackedFrame

Float64 = NDArray[np.float64]

# RTAB-Map reads exactly this variance of a twist as "not known" and takes the pose's instead; any other large value
# would become the weight of its odometry links. (nav2 refuses covariances above 1e9.)
_UNKNOWN_VELOCITY_VARIANCE = 9999.0


@dataclass(frozen=True)
class MetricState:
    """Attributes: pose (4, 4) T_world_from_camera and its covariance (6, 6); velocity (6,) in the camera's frame and
    its covariance (6, 6)."""

    T_world_from_camera: Float64
    covariance: Float64
    velocity: Float64
    velocity_covariance: Float64


class OdometryChain:
    """Adds what an Odometry message needs to the tracker's metric poses.

    The covariance of a pose is that of its keyframe's pose and of the relative pose to it, both carried to the world's
    axes: it grows with every keyframe. The refinement over several frames makes the true error smaller.
    """

    def __init__(self) -> None:
        self._segment = -1
        self._keyframes: dict[int, tuple[Float64, Float64]] = {}  # frame index -> pose and covariance
        self._last: tuple[int, Float64, Float64] | None = None  # time, pose, covariance relative to its keyframe

    def add(self, tracked: TrackedFrame) -> MetricState | None:
        """The state at a frame, or None while there is no metric pose. To be called for every frame, in order."""
        if tracked.segment != self._segment:
            self._segment, self._last = tracked.segment, None
            self._keyframes.clear()
        T = tracked.T_world_from_camera
        if T is None or tracked.scale != Scale.METRIC:
            self._last = None
            return None
        covariance, step = np.zeros((6, 6)), np.zeros((6, 6))
        pose = tracked.relative_pose
        if pose is not None and pose.ok and tracked.keyframe_index != tracked.index:
            T_key, covariance_key = self._keyframes.get(tracked.keyframe_index, (T, np.zeros((6, 6))))
            _, relative = poses.invert_with_covariance(pose.T_query_from_reference, pose.covariance)
            turn = np.zeros((6, 6))
            turn[:3, :3] = turn[3:, 3:] = T_key[:3, :3]
            lever = np.eye(6)
            lever[:3, 3:] = -poses.skew(T[:3, 3] - T_key[:3, 3])
            step = turn @ relative @ turn.T
            covariance = lever @ covariance_key @ lever.T + step
        if tracked.is_keyframe:
            self._keyframes[tracked.index] = (T, covariance)
        velocity, velocity_covariance = self._velocity(tracked.stamp_ns, T, step)
        self._last = (tracked.stamp_ns, T, step)
        return MetricState(T, covariance, velocity, velocity_covariance)

    def _velocity(self, stamp_ns: int, T: Float64, step: Float64) -> tuple[Float64, Float64]:
        """Mean velocity since the frame before, in the axes of the present frame."""
        if self._last is None or stamp_ns <= self._last[0]:
            return np.zeros(6), np.eye(6) * _UNKNOWN_VELOCITY_VARIANCE
        before_ns, before, step_before = self._last
        seconds = (stamp_ns - before_ns) * 1e-9
        R = T[:3, :3]
        linear = R.T @ (T[:3, 3] - before[:3, 3]) / seconds
        angular = R.T @ poses.log_rotation(R @ before[:3, :3].T) / seconds
        turn = np.zeros((6, 6))
        turn[:3, :3] = turn[3:, 3:] = R.T
        covariance = turn @ (step + step_before) @ turn.T / seconds**2
        return np.concatenate([linear, angular]), np.minimum(covariance, _UNKNOWN_VELOCITY_VARIANCE)
