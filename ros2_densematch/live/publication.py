"""What happens with an outcome: odometry of the base, messages, and the order in which they go out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ros2_densematch.configuration import Configuration, pose_of_text
from ros2_densematch.geometry.transform_tree import TransformTree
from ros2_densematch.live.core import Outcome
from ros2_densematch.live.motion import Motion, why_no_odometry
from ros2_densematch.live.products import messages_of
from ros2_densematch.tracking.tracked_frame import Status, TrackedFrame


class Log(Protocol):
    """The part of a logger that is used."""

    def info(self, text: str, /) -> Any: ...

    def warning(self, text: str, /) -> Any: ...


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
        self.last: TrackedFrame | None = None
        self._publish, self._wanted, self._now_ns, self._log = publish, wanted, now_ns, log
        self._motion = Motion()
        self._why_no_odometry = ""

    def publish(self, outcome: Outcome) -> None:
        """Sends everything that is known of an image."""
        tracked, settings = outcome.tracked, self.configuration
        self.last = tracked
        mount = self.base_from_camera(outcome.frame_id)
        unscaled = settings.publish_unscaled_odometry
        state = None
        if tracked.status is not Status.REJECTED:
            state = self._motion.add(tracked, mount, unscaled=unscaled)
        why = ""
        if state is None:
            base = settings.base_frame
            why = why_no_odometry(tracked, extrinsics=mount is not None, base_frame=base, unscaled=unscaled)
            if mount is None and why != self._why_no_odometry and tracked.T_world_from_camera is not None:
                self._log.warning(f"no odometry: {why}")
            self._why_no_odometry = why
        for topic, message in messages_of(
            outcome,
            state,
            settings,
            mount=mount,
            why_no_odometry=why,
            wanted=self._wanted,
            now_ns=self._now_ns,
            with_tf=settings.publish_tf,
            scale_sources=self.scale_sources,
        ):
            self._publish(topic, message)

    def base_from_camera(self, frame_id: str) -> NDArray[np.float64] | None:
        """T_base_from_camera (4, 4) for images of this frame: of the parameter, or of the fixed transforms."""
        settings = self.configuration
        if settings.base_from_camera.strip():
            return pose_of_text(settings.base_from_camera)
        if not settings.base_frame or settings.base_frame.lstrip("/") == frame_id.lstrip("/"):
            return np.eye(4)
        return self.transforms.find(settings.base_frame, frame_id)

    def began_anew(self, reason: str) -> None:
        """Everything known was forgotten."""
        self._motion = Motion()
        self.last = None
        self._log.info(f"begun anew: {reason}")

    def complain(self, text: str) -> None:
        """Something went wrong for the first time."""
        self._log.warning(f"{text} (later cases are counted in /diagnostics)")
