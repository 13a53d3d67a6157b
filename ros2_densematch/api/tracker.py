"""The tracker for use from Python: it keeps the trajectory of all its frames."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ros2_densematch.geometry.trajectory import Trajectory
from ros2_densematch.matchers.base import Matcher
from ros2_densematch.tracking import tracker
from ros2_densematch.tracking.config import TrackerConfig
from ros2_densematch.tracking.frame import Frame
from ros2_densematch.tracking.tracked_frame import TrackedFrame

if TYPE_CHECKING:
    from ros2_densematch.evaluation.summary import FrameRecord

_ENDINGS = (".png", ".jpg", ".jpeg", ".svg", ".pdf")


class Tracker(tracker.Tracker):
    __doc__ = tracker.Tracker.__doc__

    def __init__(self, matcher: Matcher, config: TrackerConfig | None = None) -> None:
        super().__init__(matcher, config)
        self._records: list[FrameRecord] = []

    def process(self, frame: Frame) -> TrackedFrame:
        """Tracks a frame and keeps its pose and status for `trajectory`; see the tracker's own `process`."""
        from ros2_densematch.evaluation.summary import FrameRecord

        tracked = super().process(frame)
        self._records.append(FrameRecord.of(tracked))
        return tracked

    def reset(self) -> None:
        """Discards all keyframes and the trajectory."""
        super().reset()
        self._records = []

    @property
    def trajectory(self) -> TrackedTrajectory:
        """The trajectory of the camera so far."""
        return TrackedTrajectory(tuple(self._records))


class TrackedTrajectory:
    """The poses of a tracker's frames by segment; segments have no common scale and no known relation.

    Args:
        records: all frames, in order.
    """

    def __init__(self, records: Sequence[FrameRecord]) -> None:
        self._records = records

    @property
    def segments(self) -> dict[int, Trajectory]:
        """T_world_from_camera over time for each segment, by number, the segment with the most poses first."""
        rows: dict[int, list[FrameRecord]] = {}
        for record in self._records:
            if record.T_world_from_camera is not None:
                rows.setdefault(record.segment, []).append(record)
        longest_first = sorted(rows, key=lambda segment: (-len(rows[segment]), segment))
        return {segment: _trajectory(rows[segment]) for segment in longest_first}

    def __len__(self) -> int:
        return sum(record.T_world_from_camera is not None for record in self._records)

    def __repr__(self) -> str:
        segments = self.segments
        parts = f" in {len(segments)} segments" if len(segments) > 1 else ""
        return f"<{len(self)} poses{parts} of {len(self._records)} frames>"

    def to_tum(self, path: str | Path) -> list[Path]:
        """Writes lines `stamp tx ty tz qx qy qz qw`, camera to world: the segment with the most poses into `path`,
        every other one into NAME_segment_N next to it. Returns the files.

        Raises:
            ValueError: no frame has a pose.
        """
        from ros2_densematch.io.results.tum import write_tum_segments

        return write_tum_segments(path, self.segments)

    def plot(self, path: str | Path | None = None) -> NDArray[np.uint8]:
        """Draws the segment with the most poses from two sides and in 3-D, with a gap where frames are lost.

        Args:
            path: file to write (.png, .jpg, .svg or .pdf), or None.

        Returns:
            uint8 (H, W, 3) RGB.

        Raises:
            ValueError: no frame has a pose, or the extension of the file is not supported.
        """
        import io

        from ros2_densematch.evaluation.accuracy import assess
        from ros2_densematch.evaluation.plots import picture_of, trajectory_figure
        from ros2_densematch.files.atomic import write_bytes

        if path is not None and Path(path).suffix.lower() not in _ENDINGS:
            raise ValueError(f"{path} does not end in {', '.join(_ENDINGS)}")
        assessment = assess(self._records, None)
        if assessment.view is None:
            raise ValueError("no frame has a pose yet: process frames of a calibrated camera first")
        figure = trajectory_figure(assessment.view)
        if assessment.warnings:
            figure.text(0.01, 0.985, assessment.warnings[0], fontsize=8, va="top", color="#6b7280")
        if path is not None:
            buffer = io.BytesIO()
            figure.savefig(buffer, format=Path(path).suffix[1:].lower(), dpi=110)
            write_bytes(path, buffer.getvalue())
        return picture_of(figure)


def _trajectory(rows: Sequence[FrameRecord]) -> Trajectory:
    stamps = np.array([row.stamp_ns for row in rows], np.int64)
    return Trajectory(stamps, np.stack([np.asarray(row.T_world_from_camera) for row in rows]))
