"""From what the tracker did with a frame to its answer."""

from __future__ import annotations

from dataclasses import dataclass

from ros2_densematch.arrays import Float64
from ros2_densematch.geometry import poses
from ros2_densematch.geometry.correspondences import Correspondences
from ros2_densematch.geometry.relative_pose import RelativePose, Scale
from ros2_densematch.tracking.attempt import Attempt
from ros2_densematch.tracking.frame import Frame
from ros2_densematch.tracking.keyframe import Keyframe
from ros2_densematch.tracking.state import State
from ros2_densematch.tracking.tracked_frame import Status, TrackedFrame
from ros2_densematch.tracking.view import View

_WITH_POSE = (Status.INITIALISED, Status.TRACKED, Status.NEW_KEYFRAME, Status.RELOCALISED)


@dataclass(frozen=True, eq=False)
class Outcome:
    """What became of a frame.

    Attributes:
        state: after it.
        view: the frame.
        status, reason: as in `TrackedFrame`.
        reference: the keyframe that it was compared with, or itself where it begins a segment.
        matches: with that keyframe, or None.
        attempt: against that keyframe, or None.
        T_from_keyframe: (4, 4) T_frame_from_keyframe in map units; None = at the keyframe's place.
        is_keyframe: the frame is a keyframe from now on.
    """

    state: State
    view: View
    status: Status
    reason: str
    reference: Keyframe
    matches: Correspondences | None = None
    attempt: Attempt | None = None
    T_from_keyframe: Float64 | None = None
    is_keyframe: bool = False

    @property
    def T_world_from_camera(self) -> Float64 | None:
        """(4, 4) pose of the frame, or None."""
        if self.status not in _WITH_POSE or self.reference.camera is None:
            return None
        T_world = self.reference.T_world_from_camera
        return T_world if self.T_from_keyframe is None else poses.compose(T_world, poses.inverse(self.T_from_keyframe))

    def tracked_frame(self, timings_ms: dict[str, float]) -> TrackedFrame:
        """The tracker's answer."""
        frame: Frame = self.view.frame
        T_world, segments, reference = self.T_world_from_camera, self.state.segments, self.reference
        found = self.attempt.found if self.attempt is not None and self.status in _WITH_POSE else None
        note = self.state.keyframe.note if self.is_keyframe else ""
        return TrackedFrame(
            index=frame.index,
            stamp_ns=frame.stamp_ns,
            status=self.status,
            reason=self.reason + self._how() + note + self.state.static.note,
            keyframe_id=reference.id,
            keyframe_index=reference.frame_index,
            keyframe_stamp_ns=reference.stamp_ns,
            correspondences=self.matches,
            relative_pose=self._relative_pose(),
            T_world_from_camera=T_world,
            T_frame_from_keyframe=self.T_from_keyframe if T_world is not None else None,
            scale=segments.scale if T_world is not None else Scale.NONE,
            scale_std=segments.source.std if T_world is not None else float("nan"),
            points_noise=self._points_noise() if found is not None else None,
            unit_drift=segments.source.drift if T_world is not None else 0.0,
            pose_noise=found.covariance if found is not None else None,
            is_keyframe=self.is_keyframe,
            segment=segments.current,
            num_inliers=int(found.inliers.sum()) if found is not None else 0,
            inliers=found.inliers if found is not None else None,
            guided=self.attempt is not None and self.attempt.guided,
            static_mask=self.state.static.tiles,
            timings_ms=timings_ms,
        )

    def _points_noise(self) -> Float64 | None:
        widest, T = self.reference.widest, self.T_from_keyframe
        if widest is None or T is None or not self.state.segments.source.may_drift:
            return None
        return widest.noise_at(T)

    def _how(self) -> str:
        """How the frame was matched, in words, where the matcher can be guided."""
        if self.attempt is None:
            return ""
        if self.attempt.guided:
            return f"; guided match {self.attempt.check}".rstrip()
        return f"; full match: {self.attempt.why_full}" if self.attempt.why_full else ""

    def _relative_pose(self) -> RelativePose | None:
        if self.attempt is None:
            return None
        found, source = self.attempt.found, self.state.segments.source
        if source.scale is Scale.METRIC and found.has_length and found.ok and self.T_from_keyframe is not None:
            return found.metric_pose(self.T_from_keyframe, source.std)
        return found.two_view
