"""What happens with an outcome: odometry of the base, messages, and the order in which they go out."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ros2_densematch.configuration import Configuration
from ros2_densematch.geometry.transform_tree import TransformTree
from ros2_densematch.io.results.odometry import MetricState
from ros2_densematch.live.base_frame import BaseFrame, Mount
from ros2_densematch.live.core import FrameOutcome
from ros2_densematch.live.keyframe_path import KeyframePath
from ros2_densematch.live.motion import Motion, why_no_odometry
from ros2_densematch.live.products import Place, messages_of
from ros2_densematch.live.scale_agreement import ScaleAgreement
from ros2_densematch.live.tf_tree import Authorship
from ros2_densematch.live.topics import PATH
from ros2_densematch.messages.conversions import pose_matrix
from ros2_densematch.tracking.segments import LengthSource
from ros2_densematch.tracking.tracked_frame import Status, TrackedFrame


class Log(Protocol):
    """The part of a logger that is used."""

    def info(self, text: str, /) -> Any: ...

    def warning(self, text: str, /) -> Any: ...

    def error(self, text: str, /) -> Any: ...


class Publication:
    """The core's `Sink`: runs in the worker's thread.

    Args:
        configuration: of the node; replaced when a parameter changes.
        publish: sends a message of the typestore on a topic.
        wanted: whether somebody listens to a topic.
        now_ns: the node's clock.
        log: for what people should read.
    """

    def __init__(
        self,
        configuration: Configuration,
        publish: Callable[[str, Any], None],
        wanted: Callable[[str], bool],
        now_ns: Callable[[], int],
        log: Log,
    ) -> None:
        self.configuration = configuration
        self.transforms = TransformTree()
        self.scale_sources = ""  # inputs that give the metric scale, in words
        self.refuse_odometry: Callable[[str], None] = lambda _: None  # told why the odometry contradicts the depth
        self._agreement: ScaleAgreement | None = None  # None once it was refused
        self.last: TrackedFrame | None = None
        self._publish, self._wanted, self._now_ns, self._log = publish, wanted, now_ns, log
        self._motion = Motion()
        self._path = KeyframePath()
        self._why_no_odometry = ""
        self.begin()

    def begin(self) -> None:
        """The node was activated: base and transforms are decided anew."""
        self._motion.forget_worlds()
        self._agreement = ScaleAgreement()
        self._segment = -1
        self._base = BaseFrame(self.transforms, time.monotonic)
        self._base_name = ""
        self._authorships = {
            "publish_tf": Authorship("publish_tf", "set base_frame to the top of that tree, or leave publish_tf off"),
            "publish_map_tf": Authorship(
                "publish_map_tf", "set odom_frame or map_frame to unused names, or leave it off"
            ),
        }

    def publish(self, outcome: FrameOutcome) -> None:
        """Sends everything that is known of an image."""
        tracked, settings = outcome.tracked, self.configuration
        self.last = tracked
        unscaled = settings.publish_unscaled_odometry
        mount, no_mount = self._base.mount(outcome.frame_id, settings) if outcome.frame_id else (None, "no frame_id")
        state = None
        if tracked.status is not Status.REJECTED:
            odometry = None if outcome.frame is None else outcome.frame.odometry
            state = self._motion.add(tracked, mount, odometry, unscaled=unscaled)
            self._compare_lengths(tracked, odometry)
        why = "" if state is not None else why_no_odometry(tracked, no_mount=no_mount, unscaled=unscaled)
        self._say(tracked, mount, why)
        place = None
        if state is not None and mount is not None:
            if state.apart:
                self._log.warning(
                    f"the odometry cannot continue after a gap: {settings.odom_frame} restarts from its last pose"
                )
            place = Place(
                state, mount.base, *(self._may_send(name, state, tracked, mount) for name in self._authorships)
            )
        for topic, message in messages_of(
            outcome,
            place,
            settings,
            in_odom=self._motion.in_odom,
            why_no_odometry=why,
            wanted=self._wanted,
            now_ns=self._now_ns,
            scale_sources=self.scale_sources,
        ):
            self._publish(topic, message)
        self._send_path(tracked, mount, known=state is not None)

    def _send_path(self, tracked: TrackedFrame, mount: Mount | None, *, known: bool) -> None:
        """Takes the frame's keyframes where the odometry is known, and sends the path to those who listen."""
        for keyframe in tracked.new_keyframes if known and mount is not None else ():
            T = (
                None
                if keyframe.T_world_from_camera is None
                else self._motion.base_in_odom(keyframe.T_world_from_camera)
            )
            if T is not None and mount is not None:
                self._path.add(keyframe.stamp_ns, T, mount.base)
        path = self._path.message(self.configuration.odom_frame, wanted=self._wanted(PATH))
        if path is not None:
            self._publish(PATH, path)

    def _compare_lengths(self, tracked: TrackedFrame, odometry: NDArray[np.float64] | None) -> None:
        """Where depth or stereo measure the metre, the odometry's may not be another one."""
        if self._agreement is None:
            return
        T = tracked.T_world_from_camera
        if (
            T is None
            or odometry is None
            or tracked.scale_std != LengthSource.DEPTH.std
            or tracked.segment != self._segment
        ):
            self._segment = tracked.segment
            self._agreement.interrupt()
            return
        problem = self._agreement.add(T[:3, 3], odometry[:3, 3])
        if problem:
            self._agreement = None
            self.refuse_odometry(problem)

    def _say(self, tracked: TrackedFrame, mount: Mount | None, why: str) -> None:
        """What was decided about the base, and why there is no odometry, each once."""
        if mount is not None and mount.base != self._base_name:
            self._log.info(f"odometry describes {mount.base} in {self.configuration.odom_frame}")
            self._base_name = mount.base
        if mount is None and why != self._why_no_odometry and tracked.T_world_from_camera is not None:
            self._log.warning(f"no odometry: {why}")
        self._why_no_odometry = why

    def _may_send(self, option: str, state: MetricState, tracked: TrackedFrame, mount: Mount) -> bool:
        """Whether a transform was asked for, and may be sent."""
        settings, authorship = self.configuration, self._authorships[option]
        if not getattr(settings, option) or not self._base.settled(settings):
            return False
        parent, child = self._edge(option, mount.base)
        already = authorship.refused
        if authorship.may_send(parent, child):
            authorship.sent(parent, child, tracked.stamp_ns)
            return True
        if not already:
            self._log.error(authorship.refused)
        return False

    def _edge(self, option: str, base: str) -> tuple[str, str]:
        settings = self.configuration
        return (settings.odom_frame, base) if option == "publish_tf" else (settings.map_frame, settings.odom_frame)

    def refusals(self) -> list[str]:
        """Why transforms that were asked for are not sent."""
        return [authorship.refused for authorship in self._authorships.values() if authorship.refused]

    def heard_transform(self, parent: str, child: str, stamp_ns: int, topic: str) -> None:
        """Takes a transform that somebody sent on /tf or /tf_static, from any thread."""
        for authorship in self._authorships.values():
            authorship.heard(parent, child, stamp_ns, topic)

    def initial_pose(self, message: Any) -> str:
        """Moves the map so that the base is where a geometry_msgs/PoseWithCovarianceStamped says.

        Returns:
            "" or why it cannot be done, in one line. Not while a frame is published.
        """
        frame = str(message.header.frame_id).lstrip("/")
        if frame != self.configuration.map_frame.lstrip("/"):
            return f"it is a pose in {frame}, not in {self.configuration.map_frame} (map_frame)"
        try:
            T = pose_matrix(message.pose.pose)
        except ValueError as error:
            return str(error)
        return "" if self._motion.move_map(T) else "no odometry has been published yet"

    def began_anew(self, reason: str) -> None:
        """The tracker forgot everything."""
        if self._agreement is not None:
            self._agreement.interrupt()
        self._motion.forget_worlds()
        self.last = None
        self._log.info(f"begun anew: {reason}")

    def complain(self, text: str) -> None:
        """Something went wrong for the first time."""
        self._log.warning(f"{text} (later cases are counted in /diagnostics)")
