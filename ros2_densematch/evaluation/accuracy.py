"""Errors of a tracked sequence against ground truth, and what its trajectory plots show."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from ros2_densematch.arrays import Float64
from ros2_densematch.evaluation import trajectory as errors
from ros2_densematch.evaluation.plots import TrajectoryView
from ros2_densematch.evaluation.summary import FrameRecord
from ros2_densematch.geometry.trajectory import Similarity, Trajectory, align

MIN_POSES = 3  # a similarity has 7 unknowns, three positions give 9 numbers
MAX_GAP_NS = 200_000_000  # between two true poses further apart than this nothing is interpolated


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
            f"the trajectory consists of {len(set(segments))} segments without a common scale: figures and plots show "
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
        "path_length": estimated.path_length(),
    }
    compared = None if ground_truth is None else _compare(records, rows, estimated, ground_truth)
    if ground_truth is not None and compared is None:
        warnings.append(
            f"ground truth covers the times of fewer than {MIN_POSES} poses: no errors are computed; check its topic "
            f"and "
            "its stamps"
        )
    own = estimated.T_world_from_camera[:, :3, 3]
    place = [i for i, r in enumerate(records) if r.T_world_from_camera is not None and r.segment == main]
    view = TrajectoryView(
        np.asarray((estimated.stamps_ns - records[0].stamp_ns) * 1e-9, np.float64),
        own if compared is None else compared.similarity.apply(own),
        np.cumsum(np.diff(place, prepend=place[0]) > 1).astype(np.int64),
        np.array([r.is_keyframe for r in rows], np.bool_),
        unit="m" if scale == "METRIC" or compared is not None else "units",
    )
    if compared is None:
        return Assessment(trajectory, None, view, main, warnings)
    view = replace(
        view,
        ground_truth=compared.truth_shown,
        position_error=compared.position_error,
        rotation_error_deg=compared.rotation_error_deg,
    )
    return Assessment(trajectory, compared.accuracy, view, main, warnings)


@dataclass(frozen=True)
class _Comparison:
    similarity: Similarity
    accuracy: dict[str, Any]
    truth_shown: Float64  # (M, 3)
    position_error: Float64  # (N,), NaN without ground truth
    rotation_error_deg: Float64  # (N,)


def _compare(
    records: Sequence[FrameRecord], rows: Sequence[FrameRecord], estimated: Trajectory, truth: Trajectory
) -> _Comparison | None:
    """Errors of one segment; None where too few of its poses have ground truth at their time."""
    at_poses, served = truth.interpolated(estimated.stamps_ns, max_gap_ns=MAX_GAP_NS)
    known, T_true = np.flatnonzero(served), at_poses.T_world_from_camera
    if len(known) < MIN_POSES:
        return None
    T = estimated.T_world_from_camera[known]
    similarity = align(T[:, :3, 3], T_true[:, :3, 3])
    distance = np.linalg.norm(similarity.apply(T[:, :3, 3]) - T_true[:, :3, 3], axis=1)
    angle = errors.rotation_errors_deg(T[:, :3, :3], T_true[:, :3, :3])

    # A step joins poses of frames that follow each other in the recording, so a loss is no step.
    place = {record.stamp_ns: i for i, record in enumerate(records)}
    at = np.array([place[rows[int(i)].stamp_ns] for i in known])
    first = np.flatnonzero(np.diff(at) == 1)
    translation, rotation = errors.relative_errors(T, T_true, np.stack([first, first + 1], 1), similarity.scale)

    path = at_poses.path_length()
    accuracy = {
        "poses": len(known),
        "alignment": "similarity",
        "scale_factor": similarity.scale,
        "path_length_m": path,
        "ate": {
            "rmse_m": errors.rms(distance),
            "median_m": float(np.median(distance)),
            "max_m": float(distance.max()),
            "percent_of_path": 100.0 * errors.rms(distance) / path if path > 0 else None,
        },
        "rpe_delta": f"1 frame ({np.median(np.diff(estimated.stamps_ns)) * 1e-9:.3g} s)",
        "rpe": {
            "rotation_rmse_deg": errors.rms(rotation) if len(first) else None,
            "rotation_median_deg": float(np.median(rotation)) if len(first) else None,
            "translation_rmse_m": errors.rms(translation) if len(first) else None,
            "translation_median_m": float(np.median(translation)) if len(first) else None,
        },
    }
    during = (truth.stamps_ns >= records[0].stamp_ns) & (truth.stamps_ns <= records[-1].stamp_ns)
    position_error, rotation_error = np.full(len(rows), np.nan), np.full(len(rows), np.nan)
    position_error[known], rotation_error[known] = distance, angle
    shown = truth.T_world_from_camera[during][:, :3, 3]
    return _Comparison(similarity, accuracy, shown, position_error, rotation_error)
