"""Camera trajectories out of a bag's pose topics and transforms."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ros2_densematch.geometry import poses
from ros2_densematch.geometry.trajectory import Trajectory
from ros2_densematch.geometry.transform_tree import TransformTree
from ros2_densematch.io.sources.log import SourceLog
from ros2_densematch.io.sources.records import BagError, Records
from ros2_densematch.io.sources.stamps import stamp_of

Float64 = NDArray[np.float64]
TF_TYPES = ("tf2_msgs/msg/TFMessage", "tf/msg/tfMessage")
POSE_TYPES = (
    "nav_msgs/msg/Odometry",
    "geometry_msgs/msg/PoseStamped",
    "geometry_msgs/msg/PoseWithCovarianceStamped",
    "geometry_msgs/msg/TransformStamped",
    *TF_TYPES,
)
# A pose is used for an image only when measured within this time of it, or between two poses this close together.
MAX_POSE_GAP_S = 0.25


class StaticTransforms:
    """The fixed transforms of /tf_static (or latched ones on /tf_static topics of any namespace)."""

    def __init__(self, records: Records, log: SourceLog):
        self._tree = TransformTree()
        topics = [t.name for t in records.topics.values() if t.type in TF_TYPES and t.name.endswith("tf_static")]
        for record in records.read(topics):
            try:
                transforms = records.decode(record).transforms
            except BagError as error:
                log.count("transforms could not be read", str(error))
                continue
            for item in transforms:
                parent, child, T = _named_transform(item, log)
                if T is not None:
                    self._tree.add(parent, child, T)

    def find(self, target: str, source: str) -> Float64 | None:
        """T_target_from_source (4, 4), or None where the fixed transforms do not join the two frames."""
        return self._tree.find(target, source)


def read_trajectory(
    records: Records, topic: str, camera_frame: str, static: StaticTransforms, log: SourceLog, role: str
) -> Trajectory | None:
    """The camera's trajectory from a topic of `POSE_TYPES`, or None with a warning that says why.

    Where the topic's poses are those of another frame than the camera's (Odometry and TransformStamped name it), the
    fixed transform between the two is taken from /tf_static; without it the poses say nothing about the camera and are
    not used. PoseStamped names no frame: its poses are taken as the camera's.

    Args:
        records: the bag.
        topic: the topic.
        camera_frame: optical frame of the images, "" if they name none.
        static: the bag's fixed transforms.
        log: takes warnings and notes.
        role: what the poses are for ("ground truth", "odometry"), for messages.
    """
    if records.topics[topic].type in TF_TYPES:
        found = _from_tf(records, topic, camera_frame, static, log)
        if found is None:
            log.warn(f"{role}: {topic} does not join {camera_frame or 'the camera'} to a moving frame: not used")
        return found
    stamps: list[int] = []
    matrices: list[Float64] = []
    body = ""
    named = True
    for record in records.read([topic]):
        try:
            msg = records.decode(record)
            body, T = _pose(msg)
        except ValueError as error:
            log.count(f"poses on {topic} could not be read", str(error))
            continue
        named = named and bool(body)
        stamps.append(stamp_of(msg, record.log_time_ns))
        matrices.append(T)
    if not stamps:
        log.warn(f"{role}: {topic} holds no pose that can be read: not used")
        return None
    T_world_from_body = np.stack(matrices)
    if not named or not camera_frame:
        log.note(f"{role}: the poses of {topic} are taken as those of the camera (the topic or image names no frame)")
    elif body.lstrip("/") != camera_frame.lstrip("/"):
        extrinsics = static.find(body, camera_frame)
        if extrinsics is None:
            log.warn(
                f"{role}: {topic} gives poses of {body}, the images are of {camera_frame}, and /tf_static does not "
                "join the two: not used; record /tf_static with the bag"
            )
            return None
        log.note(f"{role}: {topic} gives poses of {body}; /tf_static places {camera_frame} on it")
        T_world_from_body = T_world_from_body @ extrinsics
    return _sorted_trajectory(np.array(stamps, np.int64), T_world_from_body)


def pose_at(trajectory: Trajectory, stamp_ns: int, max_gap_s: float = MAX_POSE_GAP_S) -> Float64 | None:
    """The pose (4, 4) at a time: between two poses interpolated, beyond the ends the nearest; None beyond the gap."""
    stamps = trajectory.stamps_ns
    if len(stamps) == 0:
        return None
    gap = max_gap_s * 1e9
    after = int(np.searchsorted(stamps, stamp_ns))
    if 0 < after < len(stamps) and stamps[after] - stamps[after - 1] <= gap:
        span = int(stamps[after] - stamps[after - 1])
        fraction = (stamp_ns - int(stamps[after - 1])) / span
        before, behind = trajectory.T_world_from_camera[after - 1], trajectory.T_world_from_camera[after]
        return poses.interpolate(before, behind, fraction)
    nearest = min((i for i in (after - 1, after) if 0 <= i < len(stamps)), key=lambda i: abs(int(stamps[i]) - stamp_ns))
    if abs(int(stamps[nearest]) - stamp_ns) > gap:
        return None
    return np.array(trajectory.T_world_from_camera[nearest])


def _sorted_trajectory(stamps: NDArray[np.int64], matrices: Float64) -> Trajectory:
    unique, index = np.unique(stamps, return_index=True)
    return Trajectory(unique, np.ascontiguousarray(matrices[index]))


def _pose(msg: Any) -> tuple[str, Float64]:
    """(name of the frame whose pose it is, T_world_from_frame) of one message.

    Raises:
        ValueError: a number is not finite or the quaternion has no length.
    """
    body = str(getattr(msg, "child_frame_id", ""))
    if hasattr(msg, "transform"):
        return body, _matrix(msg.transform.translation, msg.transform.rotation)
    pose = msg.pose.pose if hasattr(msg.pose, "pose") else msg.pose
    return body, _matrix(pose.position, pose.orientation)


def _matrix(position: Any, rotation: Any) -> Float64:
    t = np.array([position.x, position.y, position.z], np.float64)
    if not np.all(np.isfinite(t)):
        raise ValueError(f"the position {t.tolist()} is not finite")
    return poses.pose_from_quaternion(t, [rotation.x, rotation.y, rotation.z, rotation.w])


def _named_transform(item: Any, log: SourceLog) -> tuple[str, str, Float64 | None]:
    parent, child = str(item.header.frame_id).lstrip("/"), str(item.child_frame_id).lstrip("/")
    try:
        return parent, child, _matrix(item.transform.translation, item.transform.rotation)
    except ValueError as error:
        log.count("transforms could not be read", f"{child} in {parent}: {error}")
        return parent, child, None


def _from_tf(
    records: Records, topic: str, camera_frame: str, static: StaticTransforms, log: SourceLog
) -> Trajectory | None:
    """Climb from the camera to the root of the tree; poses at the times of the moving transforms on the way."""
    moving: dict[str, tuple[str, list[int], list[Float64]]] = {}
    for record in records.read([topic]):
        try:
            transforms = records.decode(record).transforms
        except BagError as error:
            log.count("transforms could not be read", str(error))
            continue
        for item in transforms:
            parent, child, T = _named_transform(item, log)
            if T is not None:
                _, stamps, matrices = moving.setdefault(child, (parent, [], []))
                stamps.append(stamp_of(item, record.log_time_ns))
                matrices.append(T)
    # The frames from which a moving transform leads up, and how the camera sits on the first of them.
    mount = next(((f, T) for f in moving if (T := static.find(f, camera_frame.lstrip("/"))) is not None), None)
    if mount is None:
        return None
    chain: list[Trajectory | Float64] = []
    frame = mount[0]
    seen: set[str] = set()
    while frame in moving and frame not in seen:
        seen.add(frame)
        parent, stamps, matrices = moving[frame]
        chain.append(_sorted_trajectory(np.array(stamps, np.int64), np.stack(matrices)))
        joined = next(((f, T) for f in moving if f not in seen and (T := static.find(f, parent)) is not None), None)
        if joined is None:
            break
        chain.append(joined[1])
        frame = joined[0]
    tracks = [link for link in chain if isinstance(link, Trajectory)]
    times = np.unique(np.concatenate([track.stamps_ns for track in tracks]))
    kept: list[int] = []
    result: list[Float64] = []
    for time in times:
        pose: Float64 | None = mount[1]
        for link in chain:
            step = pose_at(link, int(time)) if isinstance(link, Trajectory) else link
            pose = None if step is None or pose is None else step @ pose
        if pose is not None:
            kept.append(int(time))
            result.append(pose)
    if not kept:
        return None
    log.note(f"the transforms of {topic} are followed from {camera_frame} up to {moving[frame][0]}")
    return Trajectory(np.array(kept, np.int64), np.stack(result))
