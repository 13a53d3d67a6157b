"""A tracked frame as messages: status, keyframe, correspondences, relative pose."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from ros2_densematch.geometry.relative_pose import Scale
from ros2_densematch.messages.conversions import (
    correspondences_message,
    header_message,
    pose_message,
    relative_pose_message,
)
from ros2_densematch.messages.typestore import message_class
from ros2_densematch.tracking.tracked_frame import NewKeyframe, TrackedFrame


def frame_correspondences(
    tracked: TrackedFrame, *, frame_id: str, reference_frame_id: str, matcher: str = "", rectified: bool = False
) -> Any | None:
    """densematch/Correspondences of a frame, or None where nothing was matched.

    Args:
        tracked: the frame.
        frame_id, reference_frame_id: optical frames of its image and of its keyframe's.
        matcher: name of the matcher.
        rectified: whether pixels are those of rectified images.
    """
    if tracked.correspondences is None:
        return None
    return correspondences_message(
        tracked.correspondences,
        stamp_ns=tracked.stamp_ns,
        frame_id=frame_id,
        reference_stamp_ns=tracked.keyframe_stamp_ns,
        reference_frame_id=reference_frame_id,
        keyframe_id=tracked.keyframe_id,
        matcher=matcher,
        rectified=rectified,
        inliers=tracked.inliers,
    )


def frame_relative_pose(tracked: TrackedFrame, *, frame_id: str, reference_frame_id: str) -> Any | None:
    """densematch/RelativePose of a frame, or None where none was estimated.

    Args:
        tracked: the frame.
        frame_id, reference_frame_id: optical frames of its image and of its keyframe's.
    """
    if tracked.relative_pose is None:
        return None
    return relative_pose_message(
        tracked.relative_pose,
        stamp_ns=tracked.stamp_ns,
        frame_id=frame_id,
        reference_stamp_ns=tracked.keyframe_stamp_ns,
        reference_frame_id=reference_frame_id,
        keyframe_id=tracked.keyframe_id,
        latency_ms=sum(tracked.timings_ms.values()),
    )


def keyframe_info(
    keyframe: NewKeyframe, *, frame_id: str, num_keyframes: int, world_frame_id: str, T_world: ArrayLike | None
) -> Any:
    """densematch/KeyframeInfo of a keyframe.

    Args:
        keyframe: that was made.
        frame_id: optical frame of its image.
        num_keyframes: keyframes in memory.
        world_frame_id: frame of its pose.
        T_world: (4, 4) pose of its optical frame there; None where it is not known.
    """
    return message_class("densematch/msg/KeyframeInfo")(
        header=header_message(keyframe.stamp_ns, frame_id),
        keyframe_id=int(keyframe.id),
        frame_index=int(keyframe.index),
        width=int(keyframe.size[0]),
        height=int(keyframe.size[1]),
        num_keyframes=int(num_keyframes),
        reason=keyframe.reason,
        world_frame_id=world_frame_id,
        pose=pose_message(np.eye(4) if T_world is None else T_world),
        scale=int(keyframe.scale),
    )


def odometry_reason(tracked: TrackedFrame) -> str:
    """Why a frame has no message on the odometry topic, "" where it has one: only metric poses are published there."""
    if tracked.T_world_from_camera is None:
        return f"no pose: {tracked.reason}" if tracked.reason else "no pose"
    if tracked.scale != Scale.METRIC:
        return "the scale is not metric: give depth, a right image or metric odometry"
    return ""


def status_message(
    tracked: TrackedFrame,
    *,
    frame_id: str,
    matcher: str = "",
    preset: str = "",
    device: str = "",
    frames_processed: int = 0,
    frames_dropped: int = 0,
    frames_refused: int = 0,
    odometry_reason: str = "",
    latency_ms: float = math.nan,
    input_hz: float = math.nan,
    output_hz: float = math.nan,
    gpu_memory: int = 0,
    scale_sources: str = "",
) -> Any:
    """densematch/MatcherStatus of a frame.

    Args:
        tracked: the frame.
        frame_id: its optical frame.
        matcher, preset, device: what runs.
        frames_processed, frames_dropped: since the start.
        frames_refused: of the dropped ones, those that could not be decoded or whose time went back.
        odometry_reason: why the frame has no odometry message, "" where it has one.
        latency_ms: from the image's stamp to this message; NaN in a replay.
        input_hz, output_hz: images received and processed a second; NaN in a replay.
        gpu_memory: bytes held on the GPU.
        scale_sources: inputs that give the metric scale, in words; "" where none was named.
    """
    status = message_class("densematch/msg/MatcherStatus")
    matches = tracked.correspondences
    return status(
        header=header_message(tracked.stamp_ns, frame_id),
        state=int(getattr(status, str(tracked.status), status.UNKNOWN)),
        reason=tracked.reason,
        frame_index=int(tracked.index),
        keyframe_id=max(int(tracked.keyframe_id), 0),
        scale=int(tracked.scale),
        matcher=matcher,
        preset=preset,
        device=device,
        num_matches=0 if matches is None else len(matches),
        num_inliers=int(tracked.num_inliers),
        overlap=0.0 if matches is None else float(matches.overlap),
        encode_ms=float(tracked.timings_ms.get("encode", math.nan)),
        match_ms=float(tracked.timings_ms.get("match", math.nan)),
        pose_ms=float(tracked.timings_ms.get("pose", math.nan)),
        frames_processed=int(frames_processed),
        frames_dropped=int(frames_dropped),
        frames_refused=int(frames_refused),
        odometry_reason=odometry_reason,
        latency_ms=float(latency_ms),
        input_hz=float(input_hz),
        output_hz=float(output_hz),
        gpu_memory=int(gpu_memory),
        scale_sources=scale_sources,
    )
