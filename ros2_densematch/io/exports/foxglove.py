"""Matches as Foxglove's image annotations, in an MCAP file that is opened beside the recording.

Foxglove's pixels begin at the corner of the top-left pixel, so half a pixel is added.
"""

from __future__ import annotations

from collections.abc import Iterable
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ros2_densematch.files.atomic import replacing
from ros2_densematch.files.results_folder import refuse_foreign
from ros2_densematch.geometry import poses
from ros2_densematch.io.exports.colours import score_colours
from ros2_densematch.io.exports.replay_result import FrameResult
from ros2_densematch.io.sources.mcap_file import McapFile

ANNOTATIONS, POSE, LOG = "/matcher/annotations", "/matcher/pose", "/matcher/log"
_THICKNESS = 2.0


def write_foxglove(path: Path, frames: Iterable[FrameResult], *, world_frame_id: str = "first_camera") -> int:
    """Writes annotations, poses and the tracker's words for every frame, atomically; returns the number of frames.

    Args:
        path: the .mcap file.
        frames: in order.
        world_frame_id: frame of the poses: the optical frame of the first camera, standing still.

    Raises:
        ModuleNotFoundError: foxglove-sdk is not installed.
        ForeignFileError: the file exists and is no earlier export.
    """
    refuse_foreign(path, ours=_is_export(path))
    foxglove, channels = import_module("foxglove"), import_module("foxglove.channels")
    messages = import_module("foxglove.messages")
    context = foxglove.Context()
    made = [
        getattr(channels, kind)(topic, context=context)
        for kind, topic in (("ImageAnnotationsChannel", ANNOTATIONS), ("PoseInFrameChannel", POSE), ("LogChannel", LOG))
    ]
    count = 0
    with replacing(path) as file:
        writer = foxglove.open_mcap(str(file), allow_overwrite=True, context=context)
        for frame in frames:
            stamp = messages.Timestamp(sec=frame.stamp_ns // 10**9, nsec=frame.stamp_ns % 10**9)
            made[0].log(_annotations(messages, frame, stamp), log_time=frame.stamp_ns)
            if frame.T_world_from_camera is not None:
                pose = _pose(messages, frame.T_world_from_camera)
                made[1].log(
                    messages.PoseInFrame(timestamp=stamp, frame_id=world_frame_id, pose=pose), log_time=frame.stamp_ns
                )
            level = messages.LogLevel.Warning if frame.T_world_from_camera is None else messages.LogLevel.Info
            words = f"{frame.status}: {frame.reason}"
            made[2].log(
                messages.Log(timestamp=stamp, level=level, message=words, name="matcher"), log_time=frame.stamp_ns
            )
            count += 1
        writer.close()
        for channel in made:
            channel.close()
    return count


def _is_export(path: Path) -> bool:
    """Whether the file is an MCAP file with our three topics and no other."""
    try:
        topics = McapFile(path).topics.keys()
    except Exception:  # noqa: BLE001  (mcap raises struct, codec and its own errors)
        return False
    return ANNOTATIONS in topics and topics <= {ANNOTATIONS, POSE, LOG}


def _annotations(messages: Any, frame: FrameResult, stamp: Any) -> Any:
    a, b = frame.reference_xy[frame.inlier] + 0.5, frame.query_xy[frame.inlier] + 0.5
    rgba = score_colours(frame.score[frame.inlier]).astype(float) / 255.0
    colours = [messages.Color(**dict(zip("rgba", values, strict=True))) for values in rgba.tolist()]
    trails = np.stack([a, b], 1).reshape(-1, 2)
    kinds = messages.PointsAnnotationType
    lost = frame.T_world_from_camera is None
    text = messages.TextAnnotation(
        timestamp=stamp,
        position=messages.Point2(x=8.0, y=24.0),
        text=f"{frame.status.lower().replace('_', ' ')}, {len(b)} matches",
        font_size=16.0,
        text_color=messages.Color(r=1.0, g=0.3, b=0.3, a=1.0) if lost else messages.Color(r=1.0, g=1.0, b=1.0, a=1.0),
        background_color=messages.Color(r=0.0, g=0.0, b=0.0, a=0.6),
    )
    points = [
        messages.PointsAnnotation(
            timestamp=stamp, type=kind, points=_points(messages, xy), outline_colors=colours, thickness=_THICKNESS
        )
        for kind, xy in ((kinds.LineList, trails), (kinds.Points, b))
        if len(xy)
    ]
    return messages.ImageAnnotations(points=points, texts=[text])


def _points(messages: Any, xy: NDArray[np.float32]) -> list[Any]:
    return [messages.Point2(x=float(x), y=float(y)) for x, y in xy]


def _pose(messages: Any, T: NDArray[np.float64]) -> Any:
    x, y, z, w = (float(v) for v in poses.quaternion_from_matrix(T))
    position = messages.Vector3(x=float(T[0, 3]), y=float(T[1, 3]), z=float(T[2, 3]))
    return messages.Pose(position=position, orientation=messages.Quaternion(x=x, y=y, z=z, w=w))
