"""Camera trajectories out of a bag's pose topics and transforms."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ros2_densematch.arrays import Float64
from ros2_densematch.geometry import poses
from ros2_densematch.geometry.trajectory import Trajectory
from ros2_densematch.geometry.transform_tree import TransformTree
from ros2_densematch.io.sources.account import Account
from ros2_densematch.io.sources.clocks import SAMPLE, Times, doubtful_clock, other_clock
from ros2_densematch.io.sources.log import SourceLog
from ros2_densematch.io.sources.records import BagError, Records
from ros2_densematch.io.sources.stamps import stamp_of
from ros2_densematch.io.sources.timeline import Judged, StampLabel, TimeLine

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
    """The fixed transforms of /tf_static (or latched ones on /tf_static topics of any namespace).

    Where those do not join two frames, transforms of /tf that never change are taken as well: ROS 1's
    static_transform_publisher repeats them there.
    """

    def __init__(self, records: Records, log: SourceLog):
        self._records, self._log = records, log
        self._tree = TransformTree()
        self._joined: list[str] = []
        self._moving_read = False
        for parent, child, T in self._read("tf_static"):
            self._add(parent, child, T)

    def find(self, target: str, source: str) -> Float64 | None:
        """T_target_from_source (4, 4), or None where the fixed transforms do not join the two frames."""
        target, source = target.lstrip("/"), source.lstrip("/")
        found = self._tree.find(target, source)
        if found is None and not self._moving_read:
            self._moving_read = True
            self._add_what_never_moves()
            found = self._tree.find(target, source)
        return found

    def describe(self) -> str:
        """What there is, where it does not join two frames."""
        if not self._joined:
            return "the bag has no /tf_static"
        return f"/tf_static does not connect the two (it connects {', '.join(dict.fromkeys(self._joined))})"

    def _add(self, parent: str, child: str, T: Float64) -> None:
        self._tree.add(parent, child, T)
        self._joined.append(f"{parent} to {child}")

    def _read(self, name: str) -> Iterator[tuple[str, str, Float64]]:
        topics = [t.name for t in self._records.topics.values() if t.type in TF_TYPES and t.name.endswith(name)]
        for record in self._records.read(topics):
            try:
                transforms = self._records.decode(record).transforms
            except BagError as error:
                self._log.count("transforms could not be read", str(error))
                continue
            for item in transforms:
                parent, child, T = _named_transform(item, self._log)
                if T is not None:
                    yield parent, child, T

    def _add_what_never_moves(self) -> None:
        seen: dict[str, tuple[str, Float64, int]] = {}
        moving: set[str] = set()
        for parent, child, T in self._read("/tf"):
            known = seen.setdefault(child, (parent, T, 0))
            if known[0] != parent or not np.allclose(known[1], T, atol=1e-6):
                moving.add(child)
            seen[child] = (known[0], known[1], known[2] + 1)
        for child, (parent, T, count) in seen.items():
            if child not in moving and count > 1:
                self._add(parent, child, T)


@dataclass(frozen=True)
class PoseTrack:
    """Camera poses of a topic, by the clock of the images.

    Attributes:
        parts: one trajectory for every time that its clock was set back, usually one.
        recorded_ns: when each of them was recorded, first and last.
    """

    parts: tuple[Trajectory, ...]
    recorded_ns: tuple[tuple[int, int], ...]

    @property
    def longest(self) -> Trajectory:
        """The part with most poses."""
        return max(self.parts, key=lambda part: len(part.stamps_ns))

    def at(self, stamp_ns: int, recorded_ns: int = 0) -> Float64 | None:
        """The pose (4, 4) at a time; of several parts, in the one that was recorded with the image."""

        return pose_at(self._part(recorded_ns), stamp_ns)

    def covers(self, stamp_ns: int, recorded_ns: int = 0) -> bool:
        """Whether there is a pose at a time; see `at`."""
        stamps = self._part(recorded_ns).stamps_ns
        after = int(np.searchsorted(stamps, stamp_ns))
        gap = MAX_POSE_GAP_S * 1e9
        if 0 < after < len(stamps) and stamps[after] - stamps[after - 1] <= gap:
            return True
        return any(abs(int(stamps[i]) - stamp_ns) <= gap for i in (after - 1, after) if 0 <= i < len(stamps))

    def _part(self, recorded_ns: int) -> Trajectory:
        if len(self.parts) == 1:
            return self.parts[0]

        def away(i: int) -> int:
            first, last = self.recorded_ns[i]
            return max(first - recorded_ns, recorded_ns - last, 0)

        return self.parts[min(range(len(self.parts)), key=away)]


@dataclass(frozen=True)
class PoseRequest:
    """What poses are wanted for.

    Attributes:
        role: "odometry" or "ground truth", for messages.
        camera_frame: optical frame of the images, "" if they name none.
        images: stamps and recording times of some images, to compare the clocks.
        offset_s: seconds to add to the stamps of the topic; None = the clocks must agree.
    """

    role: str
    camera_frame: str
    images: Times = ()
    offset_s: float | None = None

    @property
    def offset_option(self) -> str:
        """The option that gives the offset."""
        return f"--{self.role.replace(' ', '-')}-time-offset"


def read_poses(
    records: Records, account: Account, request: PoseRequest, static: StaticTransforms, log: SourceLog
) -> PoseTrack | None:
    """The camera's poses from a topic of `POSE_TYPES`, or None; the account then says why.

    Where the topic's poses are those of another frame than the camera's (Odometry and TransformStamped name it), the
    fixed transform between the two is taken from /tf_static; without it the poses say nothing about the camera and are
    not used. PoseStamped names no frame: its poses are taken as the camera's.

    Args:
        records: the bag.
        account: of the topic; its name is read.
        request: what for.
        static: the bag's fixed transforms.
        log: takes warnings and notes.
    """
    if records.topics[account.name].type in TF_TYPES:
        return _from_tf(records, account, request, static, log)
    topic, role, camera_frame = account.name, request.role, request.camera_frame
    lines = _Lines(request.offset_s)
    account.at_opening = True
    body = ""
    named = True
    for record in records.read([topic]):
        try:
            msg = records.decode(record)
            body, T = _pose(msg)
        except ValueError as error:
            account.messages += 1
            account.unused["not readable"] += 1
            log.count(f"poses on {topic} could not be read", str(error))
            continue
        named = named and bool(body)
        stamp_ns = stamp_of(msg, record.log_time_ns)
        account.seen(stamp_ns + lines.offset_ns, stamped=stamp_of(msg, 0) != 0)
        lines.add(topic, stamp_ns, record.log_time_ns, T)
    if not lines.times:
        account.refused = f"{topic} contains no readable pose: not used"
        return None
    account.refused = lines.other_clock(topic, request, log)
    if account.refused:
        return None
    mount = np.eye(4)
    if not named or not camera_frame:
        log.note(f"{role}: the poses of {topic} are taken as those of the camera (the topic or image has no frame_id)")
    elif body.lstrip("/") != camera_frame.lstrip("/"):
        extrinsics = static.find(body, camera_frame)
        if extrinsics is None:
            account.refused = (
                f"{topic} gives poses of {body}, the images are of {camera_frame}, and {static.describe()}: not used; "
                "record /tf_static with the bag"
            )
            return None
        log.note(f"{role}: {topic} gives poses of {body}; /tf_static places {camera_frame} on it")
        mount = extrinsics
    parts = lines.parts(topic, role, log)
    return PoseTrack(
        tuple(Trajectory(part.stamps_ns, part.T_world_from_camera @ mount) for part, _ in parts),
        tuple(span for _, span in parts),
    )


class _Lines:
    """Poses of one moving frame (or several on one topic) by their judged time."""

    def __init__(self, offset_s: float | None) -> None:
        self.times: list[tuple[int, int]] = []  # of the first messages: stamp, recording
        self.offset_ns = round((offset_s or 0.0) * 1e9)
        self._lines: dict[str, TimeLine[tuple[int, Float64]]] = {}
        self._judged: dict[str, list[Judged[tuple[int, Float64]]]] = {}

    def add(self, name: str, stamp_ns: int, recorded_ns: int, T: Float64) -> None:
        if len(self.times) < SAMPLE:
            self.times.append((stamp_ns, recorded_ns))
        line = self._lines.setdefault(name, TimeLine())
        judged = line.push(stamp_ns + self.offset_ns, recorded_ns, (recorded_ns, T))
        self._judged.setdefault(name, []).extend(judged)

    def other_clock(self, topic: str, request: PoseRequest, log: SourceLog) -> str:
        """Why another clock than the images' made the stamps; a small offset is only named."""
        if request.offset_s is not None:
            return ""
        given = request.role, topic, request.offset_option, request.images, self.times
        doubt = doubtful_clock(*given)
        if doubt:
            log.warn(doubt)
        return other_clock(*given)

    def parts(self, name: str, role: str, log: SourceLog) -> list[tuple[Trajectory, tuple[int, int]]]:
        """The poses of each segment of the clock, with the span of recording."""
        line = self._lines[name]
        self._judged[name] += line.finish()
        for decision in line.decisions:
            log.warn(f"{role}: {name}: {decision}")
        for item in self._judged[name]:
            if item.label is StampLabel.OUTLIER:
                log.count(f"poses on {name} have a stamp far from those of their neighbours and are skipped", item.why)
        used = [item for item in self._judged[name] if item.label is StampLabel.USED]
        found = []
        for segment in sorted({item.segment for item in used}):
            rows = [item for item in used if item.segment == segment]
            stamps = np.array([row.stamp_ns for row in rows], np.int64)
            recorded = [row.item[0] for row in rows]
            found.append(
                (_sorted_trajectory(stamps, np.stack([row.item[1] for row in rows])), (min(recorded), max(recorded)))
            )
        return found


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
    records: Records, account: Account, request: PoseRequest, static: StaticTransforms, log: SourceLog
) -> PoseTrack | None:
    """Climb from the camera to the root of the tree; poses at the times of the moving transforms on the way."""
    topic, camera_frame = account.name, request.camera_frame
    parents: dict[str, str] = {}
    lines = _Lines(request.offset_s)
    account.at_opening = True
    for record in records.read([topic]):
        try:
            transforms = records.decode(record).transforms
        except BagError as error:
            log.count("transforms could not be read", str(error))
            continue
        for item in transforms:
            parent, child, T = _named_transform(item, log)
            if T is not None:
                parents[child] = parent
                stamp_ns = stamp_of(item, record.log_time_ns)
                account.seen(stamp_ns + lines.offset_ns, stamped=stamp_of(item, 0) != 0)
                lines.add(child, stamp_ns, record.log_time_ns, T)
    # The frames from which a moving transform leads up, and how the camera sits on the first of them.
    mount = next(((f, T) for f in parents if (T := static.find(f, camera_frame.lstrip("/"))) is not None), None)
    if mount is None:
        links = ", ".join(f"{parent} to {child}" for child, parent in parents.items()) or "nothing"
        account.refused = (
            f"{topic} (it connects {links}) does not reach {camera_frame or 'the camera'}, and {static.describe()}: "
            "not used; record /tf_static with the bag"
        )
        return None
    account.refused = lines.other_clock(topic, request, log)
    if account.refused:
        return None
    chain: list[Trajectory | Float64] = []
    frame = mount[0]
    spans: list[tuple[int, int]] = []
    seen: set[str] = set()
    while frame in parents and frame not in seen:
        seen.add(frame)
        part, span = max(lines.parts(frame, request.role, log), key=lambda item: len(item[0].stamps_ns))
        chain.append(part)
        spans.append(span)
        joined = next(
            ((f, T) for f in parents if f not in seen and (T := static.find(f, parents[frame])) is not None), None
        )
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
        account.refused = f"{topic}: the transforms up to {parents[frame]} do not overlap in time: not used"
        return None
    log.note(f"the transforms of {topic} are followed from {camera_frame} up to {parents[frame]}")
    return PoseTrack((Trajectory(np.array(kept, np.int64), np.stack(result)),), (spans[0],))
