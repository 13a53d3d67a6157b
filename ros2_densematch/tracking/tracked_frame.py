"""What the tracker says about a frame."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

import numpy as np
from numpy.typing import NDArray

from ros2_densematch.geometry.correspondences import Correspondences
from ros2_densematch.geometry.intrinsics import IntrinsicUncertainty
from ros2_densematch.geometry.two_view import RelativePose, Scale


class Status(str, Enum):
    """State of a frame. The value is the name, so that it can be written to messages and files as it is."""

    INITIALISED = "INITIALISED"
    """The frame became the first keyframe."""
    TRACKED = "TRACKED"
    """Its pose is known relative to the keyframe."""
    NEW_KEYFRAME = "NEW_KEYFRAME"
    """Tracked, and it replaces the keyframe; or it begins a new segment after a loss (the reason says which)."""
    RELOCALISED = "RELOCALISED"
    """Tracking was lost, and the frame was found again by an older keyframe."""
    LOST = "LOST"
    """No keyframe fits; there is no pose."""
    NO_CALIBRATION = "NO_CALIBRATION"
    """Matched, but without a calibration there is no pose."""
    REJECTED = "REJECTED"
    """The frame cannot be used; nothing was computed."""

    def __str__(self) -> str:
        return self.value


@dataclass(frozen=True, eq=False)
class NewKeyframe:
    """A keyframe that was made.

    Attributes:
        id: number of the keyframe.
        index, stamp_ns, size: of its frame; size is (width, height) in pixels.
        T_world_from_camera: (4, 4), or None without a calibration.
        scale: what a length of it means.
        reason: why that frame became a keyframe, in words.
    """

    id: int
    index: int
    stamp_ns: int
    size: tuple[int, int]
    T_world_from_camera: NDArray[np.float64] | None
    scale: Scale
    reason: str


@dataclass(frozen=True)
class TrackedFrame:
    """The tracker's answer for one frame.

    Attributes:
        index, stamp_ns: of the frame.
        status: see `Status`.
        reason: why this status, in words; never empty.
        keyframe_id: number of the keyframe that the frame was matched against (its own when it is the first of a
            segment); -1 where there was none.
        keyframe_index, keyframe_stamp_ns: frame index and time of that keyframe; -1 where there was none.
        correspondences: matches between that keyframe (reference) and this frame (query), or None.
        relative_pose: two-view estimate from these matches, or None. Its scale is METRIC, with the tracker's length, in
            a metric segment.
        T_world_from_camera: (4, 4) pose in the frame of the first camera, or None when lost. While `scale` is NONE only
            the rotation is known and the position is held.
        scale: of `T_world_from_camera`: NONE (no length is known yet), UNIT (one arbitrary unit over the whole
            segment), METRIC (metres).
        scale_std: relative standard deviation of the length unit where METRIC, else NaN.
        pose_noise: (6, 6) covariance of T_frame_from_keyframe by the noise of the matches and of the keyframe's points
            alone, conventions as in `RelativePose.covariance`; without the error of the unit of length, which all
            frames share. None where the keyframe's points gave no length.
        calibration: how well the camera's calibration is known, as it says itself or as the settings say.
        is_keyframe: the frame is a keyframe from now on.
        new_keyframes: keyframes made with this frame: itself, or the frame before, a frame late.
        segment: number of the stretch of trajectory, from 0; poses of different segments have no common scale and no
            known relation.
        num_inliers: matches that agree with the pose.
        inliers: bool (N,) which of `correspondences` these are, or None.
        guided: the matches were carried on from the frame before, without the network; otherwise they were made anew.
        static_mask: bool (rows, columns), tiles of the image, True where it shows what the camera carries along, which
            is not matched; None as long as no such part is known.
        timings_ms: milliseconds by stage: encode, match, pose.
        T_frame_from_keyframe: (4, 4) in the segment's unit, or None where the frame is at a keyframe's place or has
            no pose.
        points_noise: (6, 6) covariance of T_frame_from_keyframe by what the keyframe's points are off together, because
            the same few frames triangulated them; None where they were measured or gave no length.
        unit_drift: relative standard deviation of the change of the unit of length from this frame's keyframe to the
            next one: 0 where depth or stereo measure it again and again.
    """

    index: int
    stamp_ns: int
    status: Status
    reason: str
    keyframe_id: int = -1
    keyframe_index: int = -1
    keyframe_stamp_ns: int = -1
    correspondences: Correspondences | None = None
    relative_pose: RelativePose | None = None
    T_world_from_camera: NDArray[np.float64] | None = None
    scale: Scale = Scale.NONE
    scale_std: float = float("nan")
    pose_noise: NDArray[np.float64] | None = None
    calibration: IntrinsicUncertainty = field(default_factory=IntrinsicUncertainty)
    is_keyframe: bool = False
    new_keyframes: tuple[NewKeyframe, ...] = ()
    segment: int = 0
    num_inliers: int = 0
    inliers: NDArray[np.bool_] | None = None
    guided: bool = False
    static_mask: NDArray[np.bool_] | None = None
    timings_ms: dict[str, float] = field(default_factory=dict)
    T_frame_from_keyframe: NDArray[np.float64] | None = None
    points_noise: NDArray[np.float64] | None = None
    unit_drift: float = 0.0

    def __repr__(self) -> str:
        return f"<frame {self.index} {self.status.value}, {self.num_inliers} inliers: {self.reason}>"
