"""A recording whose clock may be set back: tracking restarts there, in a segment of its own."""

from __future__ import annotations

from dataclasses import replace

from ros2_densematch.tracking.frame import Frame
from ros2_densematch.tracking.tracked_frame import TrackedFrame
from ros2_densematch.tracking.tracker import Tracker


class RestartingTracker:
    """Passes frames to a tracker and resets it where a time stamp does not lie after the one before.

    The segments are numbered on across restarts, so that poses that have nothing in common never share a number.

    Args:
        tracker: as made or reset.
    """

    def __init__(self, tracker: Tracker) -> None:
        self._tracker = tracker
        self._last_stamp_ns: int | None = None
        self._first_segment = 0  # since the last restart
        self._last_segment = 0

    def process(self, frame: Frame) -> TrackedFrame:
        """The tracker's answer, as of `Tracker.process`."""
        if self._last_stamp_ns is not None and frame.stamp_ns <= self._last_stamp_ns:
            self._tracker.reset()
            self._first_segment = 1 + self._last_segment
        self._last_stamp_ns = frame.stamp_ns
        tracked = self._tracker.process(frame)
        if self._first_segment:
            tracked = replace(tracked, segment=tracked.segment + self._first_segment)
        self._last_segment = max(self._last_segment, tracked.segment)
        return tracked
