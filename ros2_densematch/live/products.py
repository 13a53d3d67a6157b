"""What is published for one image, as messages of the typestore; costly ones only while somebody wants them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ros2_densematch.configuration import Configuration
from ros2_densematch.evaluation.pictures import match_picture
from ros2_densematch.geometry import poses
from ros2_densematch.io.results.odometry import MetricState
from ros2_densematch.live.core import Outcome
from ros2_densematch.live.memory import gpu_memory
from ros2_densematch.messages.conversions import header_message, odometry_message, pose_message
from ros2_densematch.messages.tracked import frame_correspondences, frame_relative_pose, keyframe_info, status_message
from ros2_densematch.messages.typestore import message_class

# names the optical frame of the first camera, standing still, where nothing says how that lies in odom_frame
CAMERA_WORLD = "first_camera"


def messages_of(
    outcome: Outcome,
    state: MetricState | None,
    configuration: Configuration,
    *,
    mount: NDArray[np.float64] | None,
    why_no_odometry: str,
    wanted: Callable[[str], bool],
    now_ns: Callable[[], int],
    with_tf: bool,
    scale_sources: str = "",
) -> Iterator[tuple[str, Any]]:
    """(topic, message) of an image in the order of their use: matches and pose first, pictures last.

    Args:
        outcome: of the image.
        state: the base's metric state, or None.
        configuration: of the node.
        mount: (4, 4) T_base_from_camera, or None where it is not known.
        why_no_odometry: said in the status where `state` is None.
        wanted: whether somebody listens to a topic.
        now_ns: the node's clock, for the latency.
        with_tf: TF is published.
        scale_sources: inputs that give the metric scale, in words, for the status.
    """
    tracked, frame_id = outcome.tracked, outcome.frame_id
    camera = None if outcome.frame is None else outcome.frame.camera
    rectified = camera is not None and camera.distortion_model == "none"
    matches = frame_correspondences(tracked, frame_id=frame_id, matcher=outcome.loaded.identity, rectified=rectified)
    if matches is not None:
        yield "~/correspondences", matches
    pose = frame_relative_pose(tracked, frame_id=frame_id)
    if pose is not None:
        pose.latency_ms = latency_ms(tracked.stamp_ns, now_ns())
        yield "~/relative_pose", pose
    child = configuration.base_frame or frame_id
    if state is not None:
        odometry = odometry_message(
            state.T_world_from_camera,
            state.covariance,
            state.velocity,
            state.velocity_covariance,
            stamp_ns=tracked.stamp_ns,
            world_frame_id=configuration.odom_frame,
            frame_id=child,
        )
        yield "~/odometry", odometry
        yield (
            "~/pose",
            message_class("geometry_msgs/msg/PoseWithCovarianceStamped")(header=odometry.header, pose=odometry.pose),
        )
        if with_tf:
            yield "/tf", transform_message(state, tracked.stamp_ns, configuration.odom_frame, child)
    for keyframe in outcome.new_keyframes:
        T = keyframe.T_world_from_camera if mount is None else poses.compose(mount, keyframe.T_world_from_camera)
        made_of = replace(
            tracked,
            index=keyframe.frame_index,
            stamp_ns=keyframe.stamp_ns,
            T_world_from_camera=None if keyframe.camera is None else T,
        )
        info = keyframe_info(
            made_of,
            frame_id=frame_id,
            keyframe_id=keyframe.id,
            size=keyframe.size,
            num_keyframes=outcome.num_keyframes,
            world_frame_id=configuration.odom_frame if mount is not None else CAMERA_WORLD,
        )
        yield "~/keyframe", info
    yield (
        "~/status",
        status_message(
            tracked,
            frame_id=frame_id,
            matcher=outcome.loaded.identity,
            preset=configuration.preset,
            device=outcome.loaded.device,
            frames_processed=outcome.counts.processed,
            frames_dropped=outcome.counts.dropped,
            frames_refused=outcome.counts.refused,
            odometry_reason=why_no_odometry,
            latency_ms=latency_ms(tracked.stamp_ns, now_ns()),
            input_hz=outcome.counts.input_hz,
            output_hz=outcome.counts.output_hz,
            gpu_memory=gpu_memory(),
            scale_sources=scale_sources,
        ),
    )
    found, frame = tracked.correspondences, outcome.frame
    if found is None or frame is None:
        return
    if found.warp is not None and wanted("~/warp"):
        dense = np.dstack([found.warp.xy, found.warp.certainty]).astype(np.float32)
        yield "~/warp", image_message(dense, "32FC3", tracked.keyframe_stamp_ns, frame_id)
    if outcome.reference_image is not None and wanted("~/matches_image"):
        picture = match_picture(outcome.reference_image, frame.image, found, tracked.inliers)
        yield "~/matches_image", image_message(picture, "rgb8", tracked.stamp_ns, frame_id)


def latency_ms(stamp_ns: int, now_ns: int) -> float:
    """Milliseconds from an image's stamp to now; NaN where the two cannot be of one clock.

    That is so when a bag plays without `use_sim_time`: its stamps are of the day of the recording. An image that is an
    hour old, or comes a second before its time, is taken for such a one.
    """
    latency = (now_ns - stamp_ns) * 1e-6
    return latency if -1e3 <= latency <= 3.6e6 else float("nan")


def image_message(image: NDArray[Any], encoding: str, stamp_ns: int, frame_id: str) -> Any:
    """sensor_msgs/Image of an array (H, W) or (H, W, C), little-endian."""
    data = np.ascontiguousarray(image)
    return message_class("sensor_msgs/msg/Image")(
        header=header_message(stamp_ns, frame_id),
        height=data.shape[0],
        width=data.shape[1],
        encoding=encoding,
        is_bigendian=0,
        step=data.strides[0],
        data=data.view(np.uint8).reshape(-1),
    )


def transform_message(state: MetricState, stamp_ns: int, parent: str, child: str) -> Any:
    """tf2_msgs/TFMessage with the pose of `child` in `parent`."""
    pose = pose_message(state.T_world_from_camera)
    vector = message_class("geometry_msgs/msg/Vector3")(x=pose.position.x, y=pose.position.y, z=pose.position.z)
    transform = message_class("geometry_msgs/msg/TransformStamped")(
        header=header_message(stamp_ns, parent),
        child_frame_id=child,
        transform=message_class("geometry_msgs/msg/Transform")(translation=vector, rotation=pose.orientation),
    )
    return message_class("tf2_msgs/msg/TFMessage")(transforms=[transform])
