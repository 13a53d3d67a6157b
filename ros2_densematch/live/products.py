"""What is published for one image, as messages of the typestore; costly ones only while somebody wants them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from ros2_densematch.configuration import Configuration
from ros2_densematch.evaluation.pictures import match_picture
from ros2_densematch.io.results.odometry import MetricState
from ros2_densematch.live.core import FrameOutcome
from ros2_densematch.live.memory import gpu_memory
from ros2_densematch.live.topics import TF
from ros2_densematch.messages.conversions import header_message, odometry_message, pose_message
from ros2_densematch.messages.tracked import frame_correspondences, frame_relative_pose, keyframe_info, status_message
from ros2_densematch.messages.typestore import message_class

# names the optical frame of the first camera, standing still, where nothing says how that lies in odom_frame
CAMERA_WORLD = "first_camera"

_JPEG_QUALITY = 85


@dataclass(frozen=True)
class Place:
    """Where the robot is at an image.

    Attributes:
        state: of the base.
        base: its frame.
        with_tf: odom_frame -> base is sent on /tf.
        with_map_tf: map_frame -> odom_frame is sent on /tf.
    """

    state: MetricState
    base: str
    with_tf: bool
    with_map_tf: bool


def messages_of(
    outcome: FrameOutcome,
    place: Place | None,
    configuration: Configuration,
    *,
    in_odom: Callable[[NDArray[np.float64]], NDArray[np.float64] | None],
    why_no_odometry: str,
    wanted: Callable[[str], bool],
    now_ns: Callable[[], int],
    scale_sources: str = "",
) -> Iterator[tuple[str, Any]]:
    """(topic, message) of an image in the order of their use: matches and pose first, pictures last.

    Args:
        outcome: of the image.
        place: where the robot is, or None.
        configuration: of the node.
        in_odom: brings a camera's pose (4, 4) from the tracker's world to odom_frame; None where that is not known.
        why_no_odometry: said in the status where `place` is None.
        wanted: whether somebody listens to a topic.
        now_ns: the node's clock, for the latency.
        scale_sources: inputs that give the metric scale, in words, for the status.
    """
    tracked, frame_id = outcome.tracked, outcome.frame_id
    reference_frame_id = outcome.frame_ids.get(tracked.keyframe_index, frame_id)
    camera = None if outcome.frame is None else outcome.frame.camera
    rectified = camera is not None and camera.distortion_model == "none"
    matches = frame_correspondences(
        tracked,
        frame_id=frame_id,
        reference_frame_id=reference_frame_id,
        matcher=outcome.loaded.identity,
        rectified=rectified,
    )
    if matches is not None:
        yield "~/correspondences", matches
    pose = frame_relative_pose(tracked, frame_id=frame_id, reference_frame_id=reference_frame_id)
    if pose is not None:
        pose.latency_ms = latency_ms(tracked.stamp_ns, now_ns())
        yield "~/relative_pose", pose
    if place is not None:
        yield from place_messages(place, configuration, tracked.stamp_ns)
    for keyframe in tracked.new_keyframes:
        T = keyframe.T_world_from_camera
        T_odom = None if T is None else in_odom(T)
        info = keyframe_info(
            keyframe,
            frame_id=outcome.frame_ids.get(keyframe.index, frame_id),
            num_keyframes=outcome.num_keyframes,
            world_frame_id=configuration.odom_frame if T_odom is not None else CAMERA_WORLD,
            T_world=T if T_odom is None else T_odom,
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
    raw, compressed = wanted("~/matches_image"), wanted("~/matches_image/compressed")
    if outcome.reference_image is not None and (raw or compressed):
        picture = match_picture(outcome.reference_image, frame.image, found, tracked.inliers)
        if raw:
            yield "~/matches_image", image_message(picture, "rgb8", tracked.stamp_ns, frame_id)
        if compressed:
            yield "~/matches_image/compressed", compressed_message(picture, tracked.stamp_ns, frame_id)


def place_messages(place: Place, configuration: Configuration, stamp_ns: int) -> Iterator[tuple[str, Any]]:
    """(topic, message) of where the robot is: odometry, its pose alone, the pose in the map, transforms."""
    state, odom, map_frame = place.state, configuration.odom_frame, configuration.map_frame
    with_covariance = message_class("geometry_msgs/msg/PoseWithCovariance")
    stamped = message_class("geometry_msgs/msg/PoseWithCovarianceStamped")
    odometry = odometry_message(
        state.T_world_from_camera,
        state.covariance,
        state.velocity,
        state.velocity_covariance,
        stamp_ns=stamp_ns,
        world_frame_id=odom,
        frame_id=place.base,
    )
    yield "~/odometry", odometry
    yield "~/pose", stamped(header=odometry.header, pose=odometry.pose)
    in_map = with_covariance(pose=pose_message(state.T_map_from_camera), covariance=state.map_covariance.ravel())
    yield "~/map_pose", stamped(header=header_message(stamp_ns, map_frame), pose=in_map)
    if place.with_map_tf:
        yield TF, transform_message(state.T_map_from_odom, stamp_ns, map_frame, odom)
    if place.with_tf:
        yield TF, transform_message(state.T_world_from_camera, stamp_ns, odom, place.base)


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


def compressed_message(image: NDArray[np.uint8], stamp_ns: int, frame_id: str) -> Any:
    """sensor_msgs/CompressedImage (JPEG) of a picture (H, W, 3) RGB."""
    _, data = cv2.imencode(".jpg", image[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])
    return message_class("sensor_msgs/msg/CompressedImage")(
        header=header_message(stamp_ns, frame_id),
        format="rgb8; jpeg compressed bgr8",  # as image_transport writes it: colours before and in the file
        data=np.asarray(data, np.uint8).reshape(-1),
    )


def transform_message(T_parent_from_child: NDArray[np.float64], stamp_ns: int, parent: str, child: str) -> Any:
    """tf2_msgs/TFMessage with the pose (4, 4) of `child` in `parent`."""
    pose = pose_message(T_parent_from_child)
    vector = message_class("geometry_msgs/msg/Vector3")(x=pose.position.x, y=pose.position.y, z=pose.position.z)
    transform = message_class("geometry_msgs/msg/TransformStamped")(
        header=header_message(stamp_ns, parent),
        child_frame_id=child,
        transform=message_class("geometry_msgs/msg/Transform")(translation=vector, rotation=pose.orientation),
    )
    return message_class("tf2_msgs/msg/TFMessage")(transforms=[transform])
