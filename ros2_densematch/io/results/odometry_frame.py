"""Where the tracker's worlds lie in `odom`, which never jumps, and in `map`, which is corrected (REP 105)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ros2_densematch.arrays import Float64
from ros2_densematch.geometry import poses
from ros2_densematch.tracking.tracked_frame import Status, TrackedFrame


@dataclass(frozen=True)
class Placement:
    """Where a frame is.

    Attributes:
        T_odom_from_camera, T_map_from_camera: (4, 4), both with the axes of the first camera's optical frame.
        resumed: nothing but `moved` connects it to the frame before: what came between was not seen.
        moved: (4, 4) T_before_from_now that was assumed then; the identity where the pose was held.
        new_world: no keyframe of its world was seen before.
    """

    T_odom_from_camera: Float64
    T_map_from_camera: Float64
    resumed: bool
    moved: Float64
    new_world: bool

    @property
    def T_map_from_odom(self) -> Float64:
        """(4, 4), what has been corrected so far."""
        return poses.compose(self.T_map_from_camera, poses.inverse(self.T_odom_from_camera))


class OdometryFrame:
    """Places frame after frame.

    While tracking goes on, `odom` and `map` move together. After a reset, a loss, a new segment or a return to an older
    keyframe, `odom` goes on from the last pose, and whatever the tracker knows better is a correction of `map`. A world
    that is seen for the first time (after a reset, a new segment) corrects nothing: nothing relates it to the map but
    `odom`.
    """

    def __init__(self) -> None:
        self._T_odom_from_world: Float64 = np.eye(4)
        self._T_map_from_odom: Float64 = np.eye(4)
        self._maps: dict[int, Float64] = {}  # segment -> T_map_from_world
        self._last: tuple[TrackedFrame, Float64, Float64 | None] | None = None  # with T_odom_from_camera, odometry
        self._interrupted = False

    def forget_worlds(self) -> None:
        """The tracker forgot everything: its next world is another one."""
        self._maps.clear()
        self._interrupted = True

    def interrupt(self) -> None:
        """A frame has no pose."""
        self._interrupted = True

    def move_map(self, T_map_from_camera: Float64) -> bool:
        """Says where the camera of the last frame is in the map (4, 4): `map` moves, `odom` does not.

        Returns:
            Whether there was a frame.
        """
        if self._last is None:
            return False
        T = poses.compose(T_map_from_camera, poses.inverse(self._last[1]))
        change = poses.compose(T, poses.inverse(self._T_map_from_odom))
        self._maps = {segment: poses.compose(change, known) for segment, known in self._maps.items()}
        self._T_map_from_odom = T
        return True

    def place(self, tracked: TrackedFrame, odometry: Float64 | None = None) -> Placement:
        """Places a frame with a pose.

        Args:
            tracked: the tracker's answer.
            odometry: (4, 4) pose of the camera by other odometry (wheels, inertial), in any world; None = not known.
        """
        T_world = tracked.T_world_from_camera
        assert T_world is not None
        resumed, moved = self._is_resumed(tracked), np.eye(4)
        if resumed and self._last is not None:
            _, T_last, then = self._last
            if then is not None and odometry is not None:
                moved = poses.compose(poses.inverse(then), odometry)
            self._T_odom_from_world = poses.compose(T_last, moved, poses.inverse(T_world))
        new_world = tracked.segment not in self._maps
        if new_world:
            self._maps[tracked.segment] = poses.compose(self._T_map_from_odom, self._T_odom_from_world)
        T_odom = poses.compose(self._T_odom_from_world, T_world)
        placement = Placement(T_odom, poses.compose(self._maps[tracked.segment], T_world), resumed, moved, new_world)
        self._T_map_from_odom = placement.T_map_from_odom
        self._last, self._interrupted = (tracked, T_odom, odometry), False
        return placement

    def T_odom_from_world(self) -> Float64:
        """(4, 4) of the tracker's present world."""
        return self._T_odom_from_world

    def _is_resumed(self, tracked: TrackedFrame) -> bool:
        if self._last is None:
            return False
        before = self._last[0]
        returned = tracked.status is Status.RELOCALISED or tracked.keyframe_id < before.keyframe_id
        return self._interrupted or returned or tracked.segment != before.segment
