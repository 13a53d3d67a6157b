"""Everything that the tracker knows between two frames."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np

from ros2_densematch.arrays import Float64
from ros2_densematch.geometry import poses
from ros2_densematch.tracking.attempt import Attempt
from ros2_densematch.tracking.background import Pending
from ros2_densematch.tracking.config import TrackerConfig
from ros2_densematch.tracking.guidance import Guide
from ros2_densematch.tracking.keyframe import Counts, Keyframe
from ros2_densematch.tracking.keyframes import Keyframes
from ros2_densematch.tracking.segments import LengthSource, Segments
from ros2_densematch.tracking.shutter import Shutter
from ros2_densematch.tracking.static_mask import StaticMask
from ros2_densematch.tracking.turning import Turning
from ros2_densematch.tracking.view import View

_GAP_S = 0.6  # frames further apart say nothing of the speed
_SPEED_GAIN = 0.3  # share of a new frame in the running mean of the speed


@dataclass(frozen=True, eq=False)
class Tracked:
    """A frame that was tracked against the current keyframe.

    Attributes:
        attempt: that was committed.
        T_from_keyframe: (4, 4) T_frame_from_keyframe in map units, after the refinement.
    """

    attempt: Attempt
    T_from_keyframe: Float64


@dataclass(frozen=True, eq=False)
class MotionState:
    """The camera when it was last seen.

    Attributes:
        stamp_ns: time.
        segment: number of the segment.
        T_world_from_camera: (4, 4).
        speed, rate: how fast it moved and turned lately: map units a second, radians a second.
    """

    stamp_ns: int
    segment: int
    T_world_from_camera: Float64
    speed: float = 0.0
    rate: float = 0.0

    def then(self, stamp_ns: int, segment: int, T_world_from_camera: Float64) -> MotionState:
        """The next time that it is seen; after a gap or in another segment it keeps its speed."""
        seconds = (stamp_ns - self.stamp_ns) * 1e-9
        speed, rate = self.speed, self.rate
        if segment == self.segment and 0.0 < seconds < _GAP_S:
            moved = float(np.linalg.norm(T_world_from_camera[:3, 3] - self.T_world_from_camera[:3, 3]))
            turned = float(np.radians(poses.rotation_angle_deg(T_world_from_camera, self.T_world_from_camera)))
            speed += _SPEED_GAIN * (moved / seconds - speed)
            rate += _SPEED_GAIN * (turned / seconds - rate)
        return MotionState(stamp_ns, segment, T_world_from_camera, speed, rate)


@dataclass(frozen=True, eq=False)
class Place:
    """Where a keyframe puts a frame.

    Attributes:
        keyframe_id: of the keyframe.
        T_world_from_camera: (4, 4).
        explained: cells of the frame in which a match agrees.
    """

    keyframe_id: int
    T_world_from_camera: Float64
    explained: int


@dataclass(frozen=True, eq=False)
class Candidate:
    """A return to a known place that waits for a second frame.

    Attributes:
        view: the frame.
        places: where it may be, likeliest first; one or more.
    """

    view: View
    places: tuple[Place, ...]


@dataclass(frozen=True, eq=False)
class Revisit:
    """A keyframe of an older segment and a frame that are matched beside the tracking.

    Attributes:
        keyframe_id: of the keyframe.
        stamp_ns: time of the frame.
        pending: the matches; None once they have been looked at.
    """

    keyframe_id: int
    stamp_ns: int
    pending: Pending | None


@dataclass(frozen=True, eq=False)
class State:
    """What the tracker knows. It never changes: a frame that is committed leads from one state to the next, and what is
    tried and not used leads nowhere.

    Attributes:
        keyframes: in memory.
        next_id: number of the next keyframe.
        segments: stretches of trajectory and their units of length.
        turning: how the camera turns.
        current_id: number of the keyframe that frames are tracked against, or None before the first.
        last: the previous frame, when it was tracked against the current keyframe.
        tentative: a lost frame that may begin a new segment.
        T_world_from_camera: (4, 4) of the last frame with a pose.
        seen: the camera at that frame, or None.
        candidate: a return that waits for a second frame, or None.
        stamp_ns: time of the last frame, or None.
        lost_frames: in a row until now.
        typical_depth: median depth of the last known points, map units: the unit of a new segment.
        usual_inliers: of the frames so far, the last ones most.
        turn: which older keyframe is tried next.
        revisit: the last look for an older segment beside the tracking, or None.
        guide: what the next frame can be guided by, or None.
        static: what the camera carries along in its image.
        asked_for: why the next frame becomes a keyframe whatever it shows, in words; "" = nobody asked.
    """

    keyframes: Keyframes
    turning: Turning
    next_id: int = 0
    segments: Segments = field(default_factory=Segments)
    current_id: int | None = None
    last: Tracked | None = None
    tentative: View | None = None
    T_world_from_camera: Float64 = field(default_factory=lambda: np.eye(4))
    seen: MotionState | None = None
    candidate: Candidate | None = None
    stamp_ns: int | None = None
    lost_frames: int = 0
    typical_depth: float = 1.0
    usual_inliers: Counts = field(default_factory=Counts)
    turn: int = 0
    revisit: Revisit | None = None
    guide: Guide | None = None
    static: StaticMask = field(default_factory=StaticMask)
    asked_for: str = ""

    @staticmethod
    def beginning(config: TrackerConfig, next_id: int = 0) -> State:
        """Before the first frame."""
        return State(Keyframes(config.max_keyframes), Turning(Shutter(config.readout_s)), next_id)

    @property
    def keyframe(self) -> Keyframe:
        """The one that frames are tracked against."""
        assert self.current_id is not None
        return self.keyframes[self.current_id]

    @property
    def segment_was_tracked(self) -> bool:
        """Whether any frame was tracked in the present segment."""
        return any(k.tracked > 0 for k in self.keyframes.of_segment(self.segments.current))

    def older(self, *others: Keyframe) -> list[Keyframe]:
        """The keyframes that can give a pose, likeliest first, without the current one and `others`."""
        without = {self.current_id, *(k.id for k in others)}
        ordered = self.keyframes.nearest(self.T_world_from_camera, self.segments.current)
        return [k for k in ordered if k.id not in without and k.camera is not None]

    def with_keyframe(self, keyframe: Keyframe) -> State:
        """With a new keyframe, which is the current one from now on."""
        guide = self.guide or Guide(keyframe.id, keyframe.query, keyframe.stamp_ns)
        return replace(
            self,
            keyframes=self.keyframes.added(keyframe),
            next_id=keyframe.id + 1,
            current_id=keyframe.id,
            last=None,
            guide=guide.at_keyframe(keyframe),
        )

    def with_last(self, tracked: Tracked) -> State:
        """With a frame that was tracked against the current keyframe."""
        attempt = tracked.attempt
        guide = self.guide or Guide(attempt.keyframe.id, attempt.view.encoding, attempt.view.frame.stamp_ns)
        return replace(self, last=tracked, guide=guide.after(attempt))

    def with_source_of(self, keyframe: Keyframe) -> State:
        """The present segment gets its unit from this keyframe's own measurements, or none."""
        measured = keyframe.structure is not None and keyframe.structure.measured
        source = LengthSource.DEPTH if measured else LengthSource.NOTHING
        return replace(self, segments=self.segments.with_source(source))

    def with_new_segment(self, keyframe: Keyframe, *, whole: bool = False) -> State:
        """A segment begins with this keyframe; `whole`: with all keyframes of the present one."""
        old, segments = self.segments.current, self.segments.begun()

        def renamed(k: Keyframe) -> Keyframe:
            joins = k.id == keyframe.id or (whole and k.segment == old)
            return replace(k, segment=segments.current) if joins else k

        return replace(self, segments=segments, keyframes=self.keyframes.changed(renamed))

    def after(self, view: View, T_world_from_camera: Float64) -> State:
        """After a frame whose pose is (4, 4)."""
        turning = self.turning.passed(view, T_world_from_camera)
        stamp_ns, segment = view.frame.stamp_ns, self.segments.current
        seen = self.seen or MotionState(stamp_ns, segment, T_world_from_camera)
        return replace(
            self,
            T_world_from_camera=T_world_from_camera,
            turning=turning,
            seen=seen.then(stamp_ns, segment, T_world_from_camera),
        )

    def pose_of(self, keyframe: Keyframe, tracked: Tracked) -> Float64:
        """T_world_from_camera (4, 4) of a frame that was tracked against `keyframe`."""
        return poses.compose(keyframe.T_world_from_camera, poses.inverse(tracked.T_from_keyframe))
