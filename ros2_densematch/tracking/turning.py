"""How fast the camera turns, and the cameras of frames and keyframes that follow from it under a rolling shutter."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ros2_densematch.geometry import poses
from ros2_densematch.geometry.rolling_shutter import shift_px
from ros2_densematch.tracking.keyframe import Keyframe
from ros2_densematch.tracking.keyframe_maker import Seen
from ros2_densematch.tracking.localisation import Localisation
from ros2_densematch.tracking.refinement import Float
from ros2_densematch.tracking.shutter import Shutter

_GAP_NS = (1_000_000, 200_000_000)  # between two frames whose poses say how fast the camera turns
_FASTEST = 20.0  # rad/s; a camera that turns faster shows nothing, and a pose that says so is wrong
_NOTABLE_PX = 0.3  # rays that move by less stay as they are


@dataclass(frozen=True)
class _Before:
    """The last frame with a pose: T_world_from_camera (4, 4), its time, its angular velocity (3,) or None."""

    T_world: Float
    stamp_ns: int
    rate: Float | None


class Turning:
    """Follows the turning of one camera from frame to frame.

    Args:
        readout_s: seconds from the first row to the last; None = estimated, beginning with a global shutter.
    """

    def __init__(self, readout_s: float | None) -> None:
        self.shutter = Shutter(readout_s)
        self._before: _Before | None = None

    def prepare(self, seen: Seen, keyframe: Keyframe) -> None:
        """Cameras for the first look at a frame: as if it turned like the frame before."""
        before = self._recent(seen)
        seen.rate = before.rate if before is not None else None
        self._set_cameras(seen, keyframe)

    def measure(self, seen: Seen, keyframe: Keyframe, found: Localisation) -> bool:
        """Takes the frame's angular velocity from the pose that was found, and sets the cameras accordingly.

        A keyframe whose own rate is not known, as the first one's, is taken to turn like the frame after it.

        Returns:
            Whether that moved any ray notably, so that the pose should be estimated again.
        """
        before = self._recent(seen)
        if before is None:
            return False
        assert keyframe.structure is not None
        assert seen.matches is not None
        assert seen.camera is not None
        T_world = poses.compose(keyframe.T_world_from_camera, poses.inverse(found.T_frame_from_keyframe))
        rate = self.shutter.rate(
            found,
            seen.matches,
            keyframe.structure,
            seen.camera,
            seen.rate,
            before.T_world[:3, :3].T @ T_world[:3, :3],
            1e-9 * (seen.frame.stamp_ns - before.stamp_ns),
        )
        if not np.linalg.norm(rate) < _FASTEST:
            return False
        seen.rate = rate
        if keyframe.rate is None and keyframe.stamp_ns == before.stamp_ns:
            keyframe.rate = rate
        return self._set_cameras(seen, keyframe)

    def learn(self, seen: Seen, keyframe: Keyframe, found: Localisation) -> None:
        """Takes a frame that was tracked against points of measured depth as evidence about the readout time.

        Points that were triangulated from the same images have taken up the skew themselves and say nothing.
        """
        if keyframe.structure is not None and seen.matches is not None and seen.camera is not None:
            self.shutter.learn(found, seen.matches, keyframe.structure, seen.camera, keyframe.rate, seen.rate)

    def passed(self, seen: Seen, T_world_from_camera: Float) -> None:
        """The frame has a pose (4, 4) and is the frame before from now on."""
        self._before = _Before(T_world_from_camera, seen.frame.stamp_ns, seen.rate)

    def _recent(self, seen: Seen) -> _Before | None:
        if self._before is None:
            return None
        low, high = _GAP_NS
        return self._before if low <= seen.frame.stamp_ns - self._before.stamp_ns <= high else None

    def _set_cameras(self, seen: Seen, keyframe: Keyframe) -> bool:
        assert seen.frame.camera is not None
        assert seen.camera is not None
        assert keyframe.camera is not None
        camera = self.shutter.camera(seen.frame.camera, seen.rate)
        moved = shift_px(seen.camera, camera) > _NOTABLE_PX
        if moved:
            seen.camera = camera
        camera = self.shutter.camera(keyframe.camera, keyframe.rate)
        if shift_px(keyframe.camera, camera) > _NOTABLE_PX:
            keyframe.set_camera(camera)
            moved = True
        return moved
