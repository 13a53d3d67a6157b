"""The way of the base from keyframe to keyframe, as nav_msgs/Path: bounded, and sent only while somebody listens."""

from __future__ import annotations

from collections import deque
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ros2_densematch.messages.conversions import header_message, pose_message
from ros2_densematch.messages.typestore import message_class

MAX_POSES = 1000  # the oldest are left out beyond this: a message of some 100 kB


class KeyframePath:
    """Keeps where the base was at each keyframe, in `odom`: places of the odometry, which never jumps."""

    def __init__(self) -> None:
        self._poses: deque[tuple[int, NDArray[np.float64]]] = deque(maxlen=MAX_POSES)
        self._base = ""
        self._is_news = False  # for those who listen

    def add(self, stamp_ns: int, T_odom_from_base: NDArray[np.float64], base: str) -> None:
        """Takes a keyframe's time and the pose (4, 4) of the base there; another base begins another path."""
        if base != self._base:
            self._poses.clear()
            self._base = base
        self._poses.append((stamp_ns, T_odom_from_base))
        self._is_news = True

    def message(self, odom_frame: str, *, wanted: bool) -> Any | None:
        """nav_msgs/Path in `odom_frame` with the stamp of the newest keyframe; None while nobody listens, or nothing is
        new to those who do. Somebody who has just begun to listen gets it whole."""
        if not wanted:
            self._is_news = True
        if not wanted or not self._is_news or not self._poses:
            return None
        self._is_news = False
        stamped = message_class("geometry_msgs/msg/PoseStamped")
        return message_class("nav_msgs/msg/Path")(
            header=header_message(self._poses[-1][0], odom_frame),
            poses=[
                stamped(header=header_message(stamp_ns, odom_frame), pose=pose_message(T))
                for stamp_ns, T in self._poses
            ],
        )
