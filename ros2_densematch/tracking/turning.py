"""How fast the camera turns, and the cameras of frames and keyframes that follow from it under a rolling shutter."""

from __future__ import annotations

from dataclasses import dataclass, replace

from ros2_densematch.arrays import Float64
from ros2_densematch.geometry import poses
from ros2_densematch.geometry.correspondences import Correspondences
from ros2_densematch.geometry.rolling_shutter import shift_px
from ros2_densematch.tracking.keyframe import Keyframe
from ros2_densematch.tracking.localisation import Localisation
from ros2_densematch.tracking.shutter import Shutter
from ros2_densematch.tracking.view import View

_GAP_NS = (1_000_000, 200_000_000)  # between two frames whose poses say how fast the camera turns
_FASTEST = 20.0  # rad/s; a camera that turns faster shows nothing, and a pose that says so is wrong
_NOTABLE_PX = 0.3  # rays that move by less stay as they are


@dataclass(frozen=True, eq=False)
class Pair:
    """A frame and the keyframe that it is compared with, both with the cameras of their turning."""

    view: View
    keyframe: Keyframe


@dataclass(frozen=True, eq=False)
class _Before:
    """The last frame with a pose: T_world_from_camera (4, 4), its time, its angular velocity (3,) or None."""

    T_world: Float64
    stamp_ns: int
    rate: Float64 | None


@dataclass(frozen=True, eq=False)
class Turning:
    """Follows the turning of one camera from frame to frame. It never changes: what a frame teaches makes another one.

    Attributes:
        shutter: of the camera.
    """

    shutter: Shutter
    _before: _Before | None = None

    def expected(self, view: View, keyframe: Keyframe) -> Pair:
        """Cameras for the first look at a frame: as if it turned like the frame before."""
        before = self._recent(view)
        return self._with_cameras(Pair(replace(view, rate=before.rate if before is not None else None), keyframe))[0]

    def measured(self, pair: Pair, matches: Correspondences, found: Localisation) -> tuple[Pair, bool]:
        """Takes the frame's angular velocity from the pose that was found, and the cameras from that.

        A keyframe whose own rate is not known, as the first one's, is taken to turn like the frame after it.

        Returns:
            The frame and the keyframe with these cameras, and whether any ray moved notably, so that the pose should
            be estimated again.
        """
        view, keyframe, before = pair.view, pair.keyframe, self._recent(pair.view)
        if before is None:
            return pair, False
        assert keyframe.structure is not None
        assert view.camera is not None
        T_world = poses.compose(keyframe.T_world_from_camera, poses.inverse(found.T_frame_from_keyframe))
        rate = self.shutter.rate(
            found,
            matches,
            keyframe.structure,
            view.camera,
            view.rate,
            before.T_world[:3, :3].T @ T_world[:3, :3],
            1e-9 * (view.frame.stamp_ns - before.stamp_ns),
        )
        if not float(rate @ rate) < _FASTEST**2:
            return pair, False
        if keyframe.rate is None and keyframe.stamp_ns == before.stamp_ns:
            keyframe = replace(keyframe, rate=rate)
        return self._with_cameras(Pair(replace(view, rate=rate), keyframe))

    def learned(self, pair: Pair, matches: Correspondences, found: Localisation) -> Turning:
        """With the evidence about the readout time of a frame that was tracked against points of measured depth.

        Points that were triangulated from the same images have taken up the skew themselves and say nothing.
        """
        structure, camera = pair.keyframe.structure, pair.view.camera
        if structure is None or camera is None:
            return self
        shutter = self.shutter.learned(found, matches, structure, camera, pair.keyframe.rate, pair.view.rate)
        return replace(self, shutter=shutter)

    def passed(self, view: View, T_world_from_camera: Float64) -> Turning:
        """After a frame with a pose (4, 4): it is the frame before from now on."""
        return replace(self, _before=_Before(T_world_from_camera, view.frame.stamp_ns, view.rate))

    def _recent(self, view: View) -> _Before | None:
        if self._before is None:
            return None
        low, high = _GAP_NS
        return self._before if low <= view.frame.stamp_ns - self._before.stamp_ns <= high else None

    def _with_cameras(self, pair: Pair) -> tuple[Pair, bool]:
        view, keyframe, moved = pair.view, pair.keyframe, False
        assert view.frame.camera is not None
        assert view.camera is not None
        assert keyframe.camera is not None
        camera = self.shutter.camera(view.frame.camera, view.rate)
        if shift_px(view.camera, camera) > _NOTABLE_PX:
            view, moved = replace(view, camera=camera), True
        camera = self.shutter.camera(keyframe.camera, keyframe.rate)
        if shift_px(keyframe.camera, camera) > _NOTABLE_PX:
            keyframe, moved = keyframe.with_camera(camera), True
        return Pair(view, keyframe), moved
