"""The test of the focal length (geometry.focal_fit) beside a tracker: fed with its answers, asked now and then."""

from __future__ import annotations

from ros2_densematch.geometry.focal_fit import FocalFit
from ros2_densematch.tracking.frame import Frame
from ros2_densematch.tracking.tracked_frame import TrackedFrame

ASK_EVERY = 5  # keyframes
_IN_A_ROW = 2  # so many answers must agree before a running camera's calibration is doubted


class FocalWatch:
    """Takes tracked frames; at most four a keyframe are looked at.

    Attributes:
        doubt: what is wrong with the focal length, said while the frames still come; "" where nothing is, or the
            motion does not show it. It is asked for once every `ASK_EVERY` keyframes.
    """

    def __init__(self) -> None:
        self.doubt = ""
        self._fit = FocalFit()
        self._keyframe = -1
        self._keyframes = 0
        self._doubts = 0

    def add(self, frame: Frame, tracked: TrackedFrame) -> None:
        """Takes a frame and the tracker's answer as a witness."""
        m, pose, inliers = tracked.correspondences, tracked.relative_pose, tracked.inliers
        if frame.camera is None or m is None or pose is None or inliers is None or not pose.ok:
            return
        self._fit.add(m, inliers, frame.camera, pose, frame=tracked.index, reference=tracked.keyframe_index)
        if tracked.keyframe_index == self._keyframe:
            return
        self._keyframe = tracked.keyframe_index
        self._keyframes += 1
        if self._keyframes % ASK_EVERY == 0:
            found = self._fit.doubt()
            self._doubts = self._doubts + 1 if found else 0
            self.doubt = found if self._doubts >= _IN_A_ROW else ""

    def warning(self) -> str:
        """As `doubt`, of all frames so far: asked when there are no more."""
        return self._fit.doubt()
