"""The files that a replay writes while it runs: they appear in their place when it ends, also after an interruption."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ros2_densematch.files.results_folder import ResultsFolder

if TYPE_CHECKING:
    from ros2_densematch.evaluation.summary import FrameRecord
    from ros2_densematch.tracking.frame import Frame
    from ros2_densematch.tracking.tracked_frame import TrackedFrame

BAG, POSES, TRAJECTORY = "bag", "relative_poses.csv", "trajectory.tum"
PLANNED = (BAG, POSES, TRAJECTORY, "trajectory_segment_*.tum", "report.html")


class ResultFiles:
    """The result bag and relative_poses.csv, opened with the first frame. Used as a context manager.

    Args:
        folder: where they go.
        frame_id: optical frame of the images.
        matcher, preset, device: what runs, for the messages.
        scale_sources: gives the inputs of metric scale, in words, when the first frame is there.
        also: names of further files that the command is going to write.
        reads: the recording, which is not to be replaced.
        claimed: the results in the folder, where the calling command has begun them.
    """

    def __init__(
        self,
        folder: Path,
        *,
        frame_id: str,
        matcher: str,
        preset: str,
        device: str,
        scale_sources: Callable[[], str],
        also: Sequence[str] = (),
        reads: Sequence[Path] = (),
        claimed: ResultsFolder | None = None,
    ):
        self._folder, self._frame_id, self._scale_sources = folder, frame_id, scale_sources
        self._matcher, self._preset, self._device = matcher, preset, device
        self._stack = ExitStack()
        self._opened = False
        self._results = claimed or ResultsFolder(folder, [*PLANNED, *also], reads)

    @property
    def written_before(self) -> list[str]:
        """Names of the files that the calling command has added to the results."""
        return self._results.written

    def write(self, frame: Frame, tracked: TrackedFrame, *, frames_dropped: int = 0) -> None:
        """All that is written of one frame; with the first one the results of an earlier run are removed.

        Raises:
            ForeignFileError: a file of the name of a result exists and is none.
        """
        if not self._opened:
            self._results.begin()
            self._open(rectified=frame.camera is not None and frame.camera.distortion_model == "none")
        self._bag.write(tracked, frames_dropped=frames_dropped, odometry=frame.odometry)
        self._poses.write(tracked)

    def _open(self, *, rectified: bool) -> None:
        from ros2_densematch.io.results.relative_poses import RelativePosesCsv
        from ros2_densematch.io.results.result_bag import ResultBag

        self._bag = self._stack.enter_context(
            ResultBag(
                self._folder / BAG,
                frame_id=self._frame_id,
                matcher=self._matcher,
                preset=self._preset,
                device=self._device,
                scale_sources=self._scale_sources(),
                rectified=rectified,
            )
        )
        self._poses = self._stack.enter_context(RelativePosesCsv(self._folder / POSES))
        self._opened = True

    def finish(self) -> None:
        """All results are in their place, summary.json last."""
        self._results.finish()

    def __enter__(self) -> ResultFiles:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()


def write_trajectories(folder: Path, records: list[FrameRecord], main_segment: int | None) -> list[str]:
    """Writes trajectory.tum (the main segment) and trajectory_segment_N.tum for each other one; returns their names.

    Segments have no common scale and no known relation, so they do not go into one file.
    """
    from ros2_densematch.geometry.trajectory import Trajectory
    from ros2_densematch.io.results.tum import write_tum_segments

    posed = [r for r in records if r.T_world_from_camera is not None]
    segments = {}
    for segment in sorted({r.segment for r in posed}, key=lambda number: (number != main_segment, number)):
        rows = [r for r in posed if r.segment == segment]
        stamps = np.array([r.stamp_ns for r in rows], np.int64)
        segments[segment] = Trajectory(stamps, np.stack([np.asarray(r.T_world_from_camera) for r in rows]))
    files = write_tum_segments(folder / TRAJECTORY, segments) if segments else []
    return sorted(file.name for file in files)
