"""The result of a replay as a rosbag2 (MCAP): what the live node publishes, on the same topics."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rosbags.interfaces import Qos, QosDurability, QosHistory, QosLiveliness, QosReliability, QosTime
from rosbags.rosbag2 import StoragePlugin, Writer

from ros2_densematch.files.atomic import AtomicFolder
from ros2_densematch.geometry import poses
from ros2_densematch.io.results.odometry import T_BODY_FROM_OPTICAL, OdometryChain, of_base
from ros2_densematch.messages.conversions import odometry_message, to_cdr
from ros2_densematch.messages.tracked import (
    frame_correspondences,
    frame_relative_pose,
    keyframe_info,
    odometry_reason,
    status_message,
)
from ros2_densematch.messages.typestore import ros2_typestore
from ros2_densematch.tracking.tracked_frame import TrackedFrame

TOPICS = {
    "/matcher/correspondences": "densematch/msg/Correspondences",
    "/matcher/relative_pose": "densematch/msg/RelativePose",
    "/matcher/odometry": "nav_msgs/msg/Odometry",
    "/matcher/keyframe": "densematch/msg/KeyframeInfo",
    "/matcher/status": "densematch/msg/MatcherStatus",
}
_LATCHED = ("/matcher/keyframe",)


class ResultBag:
    """Writes a bag folder; it appears in its place, complete, with `close`. Used as a context manager.

    Args:
        folder: the bag's folder to be made; an older result bag there is replaced.
        frame_id: optical frame of the images.
        world_frame_id: frame of the odometry: where the first camera was, x forward, y left, z up (REP 103).
        matcher: name of the matcher, with the checksum of its weights where it has any.
        preset, device: what runs, for the status messages.
        scale_sources: inputs that give the metric scale, in words, for the status messages.
        rectified: whether pixels are those of rectified images.

    Raises:
        FileExistsError: `folder` exists and is no result bag.
    """

    def __init__(
        self,
        folder: str | Path,
        *,
        frame_id: str,
        world_frame_id: str = "odom",
        matcher: str = "",
        preset: str = "",
        device: str = "",
        scale_sources: str = "",
        rectified: bool = False,
    ):
        self.folder = Path(folder)
        if self.folder.exists() and not _is_result(self.folder):
            raise FileExistsError(f"{self.folder} exists and is not a result bag: choose another output folder")
        self._frame_id, self._world = frame_id, world_frame_id
        self._matcher, self._preset, self._device, self._rectified = matcher, preset, device, rectified
        self._scale_sources = scale_sources
        self._odometry = OdometryChain()
        self._frames = self._keyframes = 0
        self._place = AtomicFolder(self.folder)
        # Version 8 of the metadata is read from Humble on; 9 names its QoS values in a way that only Jazzy knows.
        self._writer: Writer | None = Writer(self._place.filling, version=8, storage_plugin=StoragePlugin.MCAP)
        self._writer.open()
        store = ros2_typestore()
        self._connections = {
            topic: self._writer.add_connection(
                topic, kind, typestore=store, offered_qos_profiles=[_qos(latched=topic in _LATCHED)]
            )
            for topic, kind in TOPICS.items()
        }

    def write(
        self,
        tracked: TrackedFrame,
        *,
        frames_dropped: int = 0,
        num_keyframes: int | None = None,
        odometry: NDArray[np.float64] | None = None,
    ) -> None:
        """All messages of a frame.

        Args:
            tracked: the tracker's answer.
            frames_dropped: frames of the source left out so far.
            num_keyframes: keyframes in the tracker's memory; None = all so far.
            odometry: (4, 4) pose of the camera by other odometry, in any world, or None.
        """
        self._frames += 1
        state = self._odometry.add(tracked, odometry)
        self._put("/matcher/status", tracked, self._status(tracked, frames_dropped))
        for keyframe in tracked.new_keyframes:
            self._keyframes += 1
            T = keyframe.T_world_from_camera
            info = keyframe_info(
                keyframe,
                frame_id=self._frame_id,
                num_keyframes=self._keyframes if num_keyframes is None else num_keyframes,
                world_frame_id=self._world,
                T_world=None if T is None else poses.compose(T_BODY_FROM_OPTICAL, self._odometry.in_odom(T)),
            )
            self._put("/matcher/keyframe", tracked, info)
        names = {"frame_id": self._frame_id, "reference_frame_id": self._frame_id}
        self._put(
            "/matcher/correspondences",
            tracked,
            frame_correspondences(tracked, **names, matcher=self._matcher, rectified=self._rectified),
        )
        self._put("/matcher/relative_pose", tracked, frame_relative_pose(tracked, **names))
        if state is not None:
            state = of_base(state, np.eye(4), T_BODY_FROM_OPTICAL)
            message = odometry_message(
                state.T_world_from_camera,
                state.covariance,
                state.velocity,
                state.velocity_covariance,
                stamp_ns=tracked.stamp_ns,
                world_frame_id=self._world,
                frame_id=self._frame_id,
            )
            self._put("/matcher/odometry", tracked, message)

    def close(self) -> None:
        """Finish the bag and put it in its place."""
        if self._writer is None:
            return
        writer, self._writer = self._writer, None
        try:
            writer.close()
            self._place.close()
        finally:  # a full disk leaves no part behind
            self._place.discard()

    def __enter__(self) -> ResultBag:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _status(self, tracked: TrackedFrame, frames_dropped: int) -> Any:
        return status_message(
            tracked,
            frame_id=self._frame_id,
            matcher=self._matcher,
            preset=self._preset,
            device=self._device,
            frames_processed=self._frames,
            frames_dropped=frames_dropped,
            frames_refused=frames_dropped,  # a replay drops nothing else
            odometry_reason=odometry_reason(tracked),
            scale_sources=self._scale_sources,
        )

    def _put(self, topic: str, tracked: TrackedFrame, message: Any | None) -> None:
        if message is None:
            return
        if self._writer is None:
            raise ValueError(f"the bag {self.folder} is closed: no more frames can be written")
        self._writer.write(self._connections[topic], tracked.stamp_ns, to_cdr(message))


def _is_result(folder: Path) -> bool:
    """Whether a folder is a bag that was written here, and may be replaced."""
    metadata = folder / "metadata.yaml"
    return metadata.is_file() and "/matcher/status" in metadata.read_text("utf-8", errors="replace")


def _qos(*, latched: bool) -> Qos:
    """Reliable, the last 10 messages; keyframes also for those who subscribe late."""
    unset = QosTime(sec=9223372036, nsec=854775807)  # for ever
    return Qos(
        history=QosHistory.KEEP_LAST,
        depth=10,
        reliability=QosReliability.RELIABLE,
        durability=QosDurability.TRANSIENT_LOCAL if latched else QosDurability.VOLATILE,
        deadline=unset,
        lifespan=unset,
        liveliness=QosLiveliness.AUTOMATIC,
        liveliness_lease_duration=unset,
        avoid_ros_namespace_conventions=False,
    )
