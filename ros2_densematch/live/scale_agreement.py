"""Whether the robot's odometry and the depth measure the same lengths: one that contradicts the other is refused."""

from __future__ import annotations

from collections import deque

import numpy as np

from ros2_densematch.arrays import Float64

_STRETCH_M = 0.3  # lengths are compared over motions of at least this
_COMPARED, _ENOUGH = 7, 4  # of the last motions, the median counts once there are so many
_CONTRADICTION = 1.25  # times which one length may be the other


class ScaleAgreement:
    """Compares motions as the depth measures them with those of other odometry."""

    def __init__(self) -> None:
        self._start: tuple[Float64, Float64] | None = None
        self._ratios: deque[float] = deque(maxlen=_COMPARED)

    def interrupt(self) -> None:
        """A frame has no measured pose, or the odometry none: the next motion restarts."""
        self._start = None

    def add(self, position: Float64, odometry: Float64) -> str:
        """Takes a frame.

        Args:
            position: (3,) of the camera by depth, metres.
            odometry: (3,) of the same camera by other odometry, in any world.

        Returns:
            Why the odometry contradicts the depth, in words; "" while it does not.
        """
        if self._start is None:
            self._start = position, odometry
            return ""
        by_depth, by_odometry = (
            float(np.linalg.norm(b - a)) for a, b in zip(self._start, (position, odometry), strict=True)
        )
        if max(by_depth, by_odometry) >= _STRETCH_M:
            self._ratios.append(by_odometry / max(by_depth, 1e-3))
            self._start = position, odometry
        if len(self._ratios) < _ENOUGH:
            return ""
        ratio = float(np.median(self._ratios))
        if 1.0 / _CONTRADICTION <= ratio <= _CONTRADICTION:
            return ""
        return f"its lengths are {ratio:.2f} times those of the depth or stereo images"
