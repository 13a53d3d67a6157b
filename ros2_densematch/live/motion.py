"""From the camera's metric poses to the robot's odometry: extrinsics on pose, twist and covariances (REP 105)."""

from __future__ import annotations

import numpy as np

from ros2_densematch.arrays import Float64
from ros2_densematch.geometry import poses
from ros2_densematch.geometry.relative_pose import Scale
from ros2_densematch.io.results.odometry import MetricState, OdometryChain, of_base
from ros2_densematch.live.base_frame import Mount
from ros2_densematch.messages.tracked import odometry_reason
from ros2_densematch.tracking.tracked_frame import TrackedFrame


class Motion:
    """The odometry of the base, frame by frame."""

    def __init__(self) -> None:
        self._chain = OdometryChain()
        self._first_mount: Mount | None = None
        self._mount: Mount | None = None

    def forget_worlds(self) -> None:
        """The tracker forgot everything; the odometry goes on from the last pose."""
        self._chain.forget_worlds()

    def add(
        self, tracked: TrackedFrame, mount: Mount | None, odometry: Float64 | None = None, *, unscaled: bool
    ) -> MetricState | None:
        """The base's state at a frame, or None where there is none to be published. Called for every frame, in order.

        Args:
            tracked: the tracker's answer.
            mount: where the camera sits on the base, or None where that is not known.
            odometry: (4, 4) pose of the camera by other odometry, or None.
            unscaled: lengths in an arbitrary unit are wanted too.
        """
        if mount is not None and self._mount is not None and not np.array_equal(mount.T, self._mount.T):
            self._chain.forget_velocity()  # of another camera
        self._mount = mount if mount is not None else self._mount
        state = self._chain.add(tracked, odometry, unscaled=unscaled)
        if state is None or mount is None:
            return None
        return of_base(state, mount.T, self._start(mount))

    def in_odom(self, T_world_from_camera: Float64) -> Float64 | None:
        """A camera's pose (4, 4) in the tracker's world, in `odom`; None while nothing says how that lies."""
        if self._mount is None:
            return None
        return poses.compose(self._start(self._mount), self._chain.in_odom(T_world_from_camera))

    def base_in_odom(self, T_world_from_camera: Float64) -> Float64 | None:
        """The base's pose (4, 4) in `odom` where the camera has this pose in the tracker's world, as `in_odom`."""
        T = self.in_odom(T_world_from_camera)
        return None if T is None or self._mount is None else poses.compose(T, poses.inverse(self._mount.T))

    def move_map(self, T_map_from_base: Float64) -> bool:
        """Says where the base was in the map (4, 4) at the last frame; False where no frame has a pose yet."""
        if self._mount is None:
            return False
        start = poses.inverse(self._start(self._mount))
        return self._chain.move_map(poses.compose(start, T_map_from_base, self._mount.T))

    def _start(self, mount: Mount) -> Float64:
        """The first camera in `odom`, from the first mount on: another camera later moves neither world nor base."""
        if self._first_mount is None:
            self._first_mount = mount
        return self._first_mount.T_odom_from_start


def why_no_odometry(tracked: TrackedFrame, *, no_mount: str, unscaled: bool) -> str:
    """Why nothing is published on ~/odometry for a frame; "" where something is.

    Args:
        tracked: the tracker's answer.
        no_mount: why it is not known where the camera sits on the base; "" where it is known.
        unscaled: lengths in an arbitrary unit are published too.
    """
    if unscaled and tracked.T_world_from_camera is not None and tracked.scale is Scale.UNIT:
        return no_mount
    return odometry_reason(tracked) or no_mount
