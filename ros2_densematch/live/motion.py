"""From the camera's metric poses to the robot's odometry: extrinsics on pose, twist and covariances (REP 105)."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ros2_densematch.geometry import poses
from ros2_densematch.geometry.relative_pose import UNKNOWN_LENGTH_VARIANCE, Scale
from ros2_densematch.io.results.odometry import MetricState, OdometryChain
from ros2_densematch.messages.tracked import odometry_reason
from ros2_densematch.tracking.tracked_frame import TrackedFrame

Float64 = NDArray[np.float64]


def of_base(state: MetricState, T_base_from_camera: ArrayLike) -> MetricState:
    """The state of the robot's base, from that of the camera which is fixed on it.

    The world of the answer is where the base was when the camera was at the origin of its own world. Covariances are
    carried over to first order; pose: perturbation on the left, fixed axes of the world, position and rotation apart;
    twist: in the axes of the moving frame.

    Args:
        state: T_world_from_camera and the camera's twist in its own axes.
        T_base_from_camera: (4, 4) pose of the camera on the base.
    """
    E = np.asarray(T_base_from_camera, np.float64)
    R = E[:3, :3]
    base_in_camera = poses.inverse(E)[:3, 3]
    T = poses.compose(E, state.T_world_from_camera, poses.inverse(E))
    of_pose = _carry(R, state.T_world_from_camera[:3, :3] @ base_in_camera)
    of_twist = _carry(R, base_in_camera)
    return MetricState(
        T,
        of_pose @ state.covariance @ of_pose.T,
        of_twist @ state.velocity,
        of_twist @ state.velocity_covariance @ of_twist.T,
    )


def _carry(R: Float64, lever: Float64) -> Float64:
    """Adjoint-like (6, 6): what a small motion of the camera is for a point at `lever` from it, in axes turned by R."""
    J = np.zeros((6, 6))
    J[:3, :3] = J[3:, 3:] = R
    J[:3, 3:] = -R @ poses.skew(lever)
    return J


class Motion:
    """The odometry of the base, frame by frame."""

    def __init__(self) -> None:
        self._chain = OdometryChain()

    def add(self, tracked: TrackedFrame, T_base_from_camera: Float64 | None, *, unscaled: bool) -> MetricState | None:
        """The base's state at a frame, or None where there is none to be published. Called for every frame, in order.

        Args:
            tracked: the tracker's answer.
            T_base_from_camera: (4, 4), or None where it is not known.
            unscaled: lengths in an arbitrary unit are wanted too; their variance says that they are not known.
        """
        invented = unscaled and tracked.scale is Scale.UNIT and tracked.T_world_from_camera is not None
        state = self._chain.add(replace(tracked, scale=Scale.METRIC) if invented else tracked)
        if state is None or T_base_from_camera is None:
            return None
        if invented:
            covariance = state.covariance.copy()
            covariance[:3] = covariance[:, :3] = 0.0
            covariance[range(3), range(3)] = UNKNOWN_LENGTH_VARIANCE
            of_velocity = state.velocity_covariance.copy()
            of_velocity[:3] = of_velocity[:, :3] = 0.0
            of_velocity[range(3), range(3)] = UNKNOWN_LENGTH_VARIANCE
            state = replace(state, covariance=covariance, velocity_covariance=of_velocity)
        return of_base(state, T_base_from_camera)


def why_no_odometry(tracked: TrackedFrame, *, extrinsics: bool, base_frame: str, unscaled: bool) -> str:
    """Why nothing is published on ~/odometry for a frame; "" where something is."""
    if unscaled and tracked.T_world_from_camera is not None and tracked.scale is Scale.UNIT:
        reason = ""
    else:
        reason = odometry_reason(tracked)
    if reason or extrinsics:
        return reason
    return f"nothing places the camera on {base_frame}: publish it on /tf_static, or set base_from_camera"
