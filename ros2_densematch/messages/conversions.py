"""Between our types and message fields, both ways; array fields are NumPy arrays on one buffer each.

The classes come from the rosbags typestore and are written to bags, or serialised with `to_cdr` and published as
bytes. The way back reads attributes only, so rclpy's messages work as well.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ros2_densematch.arrays import Float64
from ros2_densematch.geometry import poses
from ros2_densematch.geometry.correspondences import Correspondences
from ros2_densematch.geometry.relative_pose import RelativePose
from ros2_densematch.messages.typestore import message_class, ros2_typestore


def to_cdr(message: Any) -> bytes:
    """A message of this module as the bytes that ROS 2 sends and records."""
    return bytes(ros2_typestore().serialize_cdr(message, message.__msgtype__))


def time_message(stamp_ns: int) -> Any:
    """builtin_interfaces/Time of nanoseconds since the epoch."""
    seconds, nanoseconds = divmod(int(stamp_ns), 10**9)
    return message_class("builtin_interfaces/msg/Time")(sec=seconds, nanosec=nanoseconds)


def time_ns(stamp: Any) -> int:
    """Nanoseconds of a builtin_interfaces/Time."""
    return int(stamp.sec) * 10**9 + int(stamp.nanosec)


def header_message(stamp_ns: int, frame_id: str) -> Any:
    """std_msgs/Header."""
    return message_class("std_msgs/msg/Header")(stamp=time_message(stamp_ns), frame_id=frame_id)


def pose_message(T_parent_from_child: ArrayLike) -> Any:
    """geometry_msgs/Pose of the child frame in the parent frame, from a (4, 4) matrix."""
    T = np.asarray(T_parent_from_child, np.float64)
    x, y, z, w = (float(v) for v in poses.quaternion_from_matrix(T))
    position = message_class("geometry_msgs/msg/Point")(x=float(T[0, 3]), y=float(T[1, 3]), z=float(T[2, 3]))
    orientation = message_class("geometry_msgs/msg/Quaternion")(x=x, y=y, z=z, w=w)
    return message_class("geometry_msgs/msg/Pose")(position=position, orientation=orientation)


def pose_matrix(pose: Any) -> Float64:
    """(4, 4) T_parent_from_child of a geometry_msgs/Pose.

    Raises:
        ValueError: the quaternion has no length.
    """
    p, q = pose.position, pose.orientation
    return poses.pose_from_quaternion([p.x, p.y, p.z], [q.x, q.y, q.z, q.w])


def transform_matrix(transform: Any) -> Float64:
    """(4, 4) T_parent_from_child of a geometry_msgs/Transform.

    Raises:
        ValueError: a number is not finite or the quaternion has no length.
    """
    t, q = transform.translation, transform.rotation
    T = poses.pose_from_quaternion([t.x, t.y, t.z], [q.x, q.y, q.z, q.w])
    if not np.isfinite(T).all():
        raise ValueError(f"the translation {[t.x, t.y, t.z]} is not finite")
    return T


def correspondences_message(
    m: Correspondences,
    *,
    stamp_ns: int,
    frame_id: str,
    reference_stamp_ns: int,
    reference_frame_id: str,
    keyframe_id: int,
    matcher: str = "",
    rectified: bool = False,
    inliers: NDArray[np.bool_] | None = None,
) -> Any:
    """densematch/Correspondences.

    Args:
        m: the matches.
        stamp_ns, frame_id: of the query image.
        reference_stamp_ns, reference_frame_id, keyframe_id: of the keyframe.
        matcher: name of the matcher with the checksum of its weights.
        rectified: whether the pixels are those of a rectified image.
        inliers: bool (N,), matches that agree with the pose, or None.
    """
    none = np.zeros(0, np.float32)
    return message_class("densematch/msg/Correspondences")(
        header=header_message(stamp_ns, frame_id),
        reference_stamp=time_message(reference_stamp_ns),
        reference_frame_id=reference_frame_id,
        reference_keyframe_id=int(keyframe_id),
        query_width=int(m.query_size[0]),
        query_height=int(m.query_size[1]),
        reference_width=int(m.reference_size[0]),
        reference_height=int(m.reference_size[1]),
        rectified=bool(rectified),
        matcher=matcher,
        query_xy=_flat(m.query_xy),
        reference_xy=_flat(m.reference_xy),
        score=_flat(m.score),
        precision=none if m.precision is None else _flat(m.precision),
        track_id=np.zeros(0, np.int32),
        inlier=np.zeros(0, np.uint8) if inliers is None else np.ascontiguousarray(inliers).astype(np.uint8),
        overlap=float(m.overlap),
    )


def correspondences_from_message(msg: Any) -> Correspondences:
    """The matches of a densematch/Correspondences message.

    Raises:
        ValueError: the arrays' lengths do not fit together.
    """
    xy = np.asarray(msg.query_xy, np.float32)
    reference_xy, precision = np.asarray(msg.reference_xy, np.float32), np.asarray(msg.precision, np.float32)
    n = len(msg.score)
    if len(xy) != 2 * n or len(reference_xy) != 2 * n or len(precision) not in (0, 3 * n):
        raise ValueError(
            f"Correspondences with {n} scores must have {2 * n} query_xy and reference_xy and 0 or {3 * n} precision "
            f"values, got {len(xy)}, {len(reference_xy)} and {len(precision)}: check the publisher"
        )
    return Correspondences(
        reference_xy=reference_xy.reshape(n, 2),
        query_xy=xy.reshape(n, 2),
        score=np.asarray(msg.score, np.float32),
        overlap=float(msg.overlap),
        reference_size=(int(msg.reference_width), int(msg.reference_height)),
        query_size=(int(msg.query_width), int(msg.query_height)),
        precision=precision.reshape(n, 3) if len(precision) else None,
    )


def inliers_from_message(msg: Any) -> NDArray[np.bool_] | None:
    """bool (N,) of a densematch/Correspondences message, or None where it has none."""
    inlier = np.asarray(msg.inlier, np.uint8)
    return inlier.astype(np.bool_) if len(inlier) == len(msg.score) and len(inlier) else None


def relative_pose_message(
    pose: RelativePose,
    *,
    stamp_ns: int,
    frame_id: str,
    reference_stamp_ns: int,
    reference_frame_id: str,
    keyframe_id: int,
    latency_ms: float = 0.0,
) -> Any:
    """densematch/RelativePose: the inverse of `pose`, the query camera in the reference frame, with its covariance.

    Args:
        pose: T_query_from_reference with its covariance in the query frame.
        stamp_ns, frame_id: of the query image.
        reference_stamp_ns, reference_frame_id, keyframe_id: of the keyframe.
        latency_ms: from the image to this message.
    """
    T, covariance = poses.invert_with_covariance(pose.T_query_from_reference, pose.covariance)
    with_covariance = message_class("geometry_msgs/msg/PoseWithCovariance")(
        pose=pose_message(T), covariance=np.ascontiguousarray(covariance, np.float64).ravel()
    )
    return message_class("densematch/msg/RelativePose")(
        header=header_message(stamp_ns, reference_frame_id),
        child_frame_id=frame_id,
        reference_stamp=time_message(reference_stamp_ns),
        reference_keyframe_id=int(keyframe_id),
        pose=with_covariance,
        geometry=int(pose.geometry),
        scale=int(pose.scale),
        scale_std=float(pose.scale_std),
        num_matches=int(pose.num_matches),
        num_inliers=int(pose.num_inliers),
        inlier_ratio=float(pose.inlier_ratio),
        median_epipolar_px=float(pose.median_epipolar_px),
        median_triangulation_deg=float(pose.median_triangulation_deg),
        homography_inlier_ratio=float(pose.homography_inlier_ratio),
        status=pose.status,
        latency_ms=float(latency_ms),
    )


def odometry_message(
    T_world_from_camera: ArrayLike,
    covariance: ArrayLike,
    velocity: ArrayLike,
    velocity_covariance: ArrayLike,
    *,
    stamp_ns: int,
    world_frame_id: str,
    frame_id: str,
) -> Any:
    """nav_msgs/Odometry in metres.

    Args:
        T_world_from_camera: (4, 4).
        covariance: (6, 6), order x y z, rotation x y z, fixed axes of the world frame.
        velocity: (6,) linear (m/s) and angular (rad/s) velocity of the camera in its own frame.
        velocity_covariance: (6, 6) of it.
        stamp_ns: of the image.
        world_frame_id, frame_id: header.frame_id and child_frame_id.
    """
    vector = message_class("geometry_msgs/msg/Vector3")
    vx, vy, vz, wx, wy, wz = (float(v) for v in np.asarray(velocity, np.float64))
    twist = message_class("geometry_msgs/msg/Twist")(linear=vector(x=vx, y=vy, z=vz), angular=vector(x=wx, y=wy, z=wz))
    return message_class("nav_msgs/msg/Odometry")(
        header=header_message(stamp_ns, world_frame_id),
        child_frame_id=frame_id,
        pose=message_class("geometry_msgs/msg/PoseWithCovariance")(
            pose=pose_message(T_world_from_camera), covariance=np.asarray(covariance, np.float64).ravel()
        ),
        twist=message_class("geometry_msgs/msg/TwistWithCovariance")(
            twist=twist, covariance=np.asarray(velocity_covariance, np.float64).ravel()
        ),
    )


def _flat(array: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.ascontiguousarray(array, np.float32).ravel()
