"""Which frame is the base of the odometry, and where the camera sits on it: decided once (REP 105)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ros2_densematch.arrays import Float64
from ros2_densematch.configuration import Configuration, pose_of_text
from ros2_densematch.geometry.transform_tree import TransformTree
from ros2_densematch.io.results.odometry import T_BODY_FROM_OPTICAL


@dataclass(frozen=True)
class Mount:
    """Where a camera sits.

    Attributes:
        base: the base's frame.
        T: (4, 4) T_base_from_camera.
        is_optical: the base is the camera's optical frame itself.
    """

    base: str
    T: Float64
    is_optical: bool = False

    @property
    def T_odom_from_start(self) -> Float64:
        """(4, 4) pose of the first camera in `odom`, which has x forward and z up."""
        start: Float64 = T_BODY_FROM_OPTICAL if self.is_optical else self.T
        return start


class BaseFrame:
    """Decides which frame is the base: `base_frame` where it is set, else the topmost frame of the camera's own tree on
    /tf_static, `tf_wait_s` after the first image, else the camera's optical frame.

    Args:
        transforms: those of /tf_static.
        clock: seconds that never go back.
    """

    def __init__(self, transforms: TransformTree, clock: Callable[[], float]) -> None:
        self.transforms = transforms
        self._clock = clock
        self._asked_first: float | None = None
        self._topmost = ""

    def settled(self, settings: Configuration) -> bool:
        """Whether `tf_wait_s` has passed since the first image."""
        if self._asked_first is None:
            self._asked_first = self._clock()
        return self._clock() - self._asked_first >= settings.tf_wait_s

    def mount(self, camera_frame: str, settings: Configuration) -> tuple[Mount | None, str]:
        """Where a camera sits.

        Args:
            camera_frame: optical frame of an image.
            settings: of the node.

        Returns:
            The mount, or None and why it is not known, in words with the remedy.
        """
        settled, base = self.settled(settings), settings.base_frame.lstrip("/")
        written = settings.base_from_camera.strip()
        if written and not base:
            return (
                None,
                "base_from_camera is set but base_frame is not: set base_frame to the frame of that pose",
            )
        if written:
            return Mount(base, pose_of_text(written)), ""
        camera = camera_frame.lstrip("/")
        if not base and not self._topmost:
            if not settled:
                return None, f"waiting for /tf_static until {settings.tf_wait_s:g} s after the first image (tf_wait_s)"
            self._topmost = self.transforms.topmost(camera)
        base = base or self._topmost
        if base == camera:
            return Mount(base, np.eye(4), is_optical=True), ""
        T = self.transforms.find(base, camera)
        if T is None:
            return (
                None,
                f"the pose of the camera in {base} is unknown: publish it on /tf_static, or set base_from_camera",
            )
        return Mount(base, T), ""
