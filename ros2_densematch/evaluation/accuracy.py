"""Errors of a tracked sequence against ground truth, and what its trajectory plots show."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ros2_densematch.evaluation.plots import TrajectoryView
from ros2_densematch.evaluation.summary import FrameRecord
from ros2_densematch.geometry.trajectory import Trajectory

Float64 = NDArray[np.float64]

MIN_POSES = 3  # a similarity has 7 unknowns, three positions give 9 numbers
MAX_GAP_S = 0.1  # ground truth further from an image in time says nothing about it


@dataclass(frozen=True)
class Assessment:
    """What is known about the trajectory of a replay.

    Attributes:
        trajectory: the `trajectory` entry of summary.json; None where no frame has a pose.
        accuracy: its `accuracy` entry; None without ground truth.
        view: what the plots show, or None.
        main_segment: the segment that both speak of, the one with most poses.
        warnings: what limits the figures, one sentence each.
    """

    trajectory: dict[str, Any] | None = None
    accuracy: dict[str, Any] | None = None
    view: TrajectoryView | None = None
    main_segment: int | None = None
    warnings: list[str] = field(default_factory=list)


def assess(records: Sequence[FrameRecord], ground_truth: Trajectory | None) -> Assessment:
    """Trajectory facts, errors against ground truth and what the plots show, of the segment with most poses.

    Args:
        records: all frames, in order.
        ground_truth: true camera poses at any times, or None.
    """
    posed = [r for r in records if r.T_world_from_camera is not None]
    if not posed:
        return Assessment()
    segments = [r.segment for r in posed]
    main = max(sorted(set(segments)), key=segments.count)
    rows = [r for r in posed if r.segment == main]
    warnings = []
    if len(rows) < len(posed):
        warnings.append(
            f"the trajectory falls into {len(set(segments))} segments without a common scale: figures and plots are of "
            f"the longest one, {len(rows)} of {len(records)} frames"
        )
    estimated = Trajectory(
        np.array([r.stamp_ns for r in rows], np.int64), np.stack([np.asarray(r.T_world_from_camera) for r in rows])
    )
    scale = rows[-1].scale
    trajectory = {
        "segment": main,
        "poses": len(rows),
        "coverage": len(rows) / len(records),
        "scale": scale,
        "path_length": _path_length(estimated.T_world_from_camera[:, :3, 3]),
    }
    stamps_s = (estimated.stamps_ns - records[0].stamp_ns) * 1e-9
    keyframes = np.array([r.is_keyframe for r in rows], np.bool_)
    view = TrajectoryView(
        stamps_s,
        estimated.T_world_from_camera[:, :3, 3],
        np.full(len(rows), main, np.int64),
        keyframes,
        unit="m" if scale == "METRIC" else "units",
    )
    return Assessment(trajectory, None, view, main, warnings)


def _path_length(positions: Float64) -> float:
    return float(np.linalg.norm(np.diff(positions, axis=0), axis=1).sum())
