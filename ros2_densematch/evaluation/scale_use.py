"""Whether the inputs that were to give the metric scale gave it, and what they held where they did not."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ros2_densematch.geometry.relative_pose import Scale
from ros2_densematch.tracking.frame import Frame
from ros2_densematch.tracking.tracked_frame import TrackedFrame

_LEAST_POSES = 3  # frames with a relative pose, before a missing scale is worth a word


class ScaleUse:
    """Takes the frames of a replay one by one."""

    def __init__(self) -> None:
        self._posed = self._metric = self._with_odometry = self._with_depth = 0
        self._first: NDArray[np.float64] | None = None
        self._farthest_m = 0.0
        self._known_depth = 0.0

    def add(self, frame: Frame, tracked: TrackedFrame) -> None:
        """Takes a frame and the tracker's answer."""
        pose = tracked.relative_pose
        if pose is not None and pose.ok:
            self._posed += 1
            self._metric += tracked.scale is Scale.METRIC or pose.scale is Scale.METRIC
        if frame.odometry is not None:
            place = frame.odometry[:3, 3]
            self._first = place if self._first is None else self._first
            self._farthest_m = max(self._farthest_m, float(np.linalg.norm(place - self._first)))
            self._with_odometry += 1
        if frame.depth is not None and not self._metric:  # looked at only while it has been of no use
            values = frame.depth[::8, ::8]
            self._known_depth += float((np.isfinite(values) & (values > 0)).mean())
            self._with_depth += 1

    def problem(self, sources: str) -> str:
        """Why no frame has a metric scale although there are inputs for it, in one sentence; "" where one has.

        Args:
            sources: the inputs in use, in words.
        """
        if self._metric or self._posed < _LEAST_POSES or not sources:
            return ""
        why = []
        if self._with_odometry:
            why.append(f"the odometry moves by {self._farthest_m:.3g} m at most")
        if self._with_depth:
            share = 100.0 * self._known_depth / self._with_depth
            why.append(f"{share:.0f} % of the depth values are known")
        found = f": {', '.join(why)}" if why else ""
        return f"no frame has a metric scale, although {sources} is there{found}"
