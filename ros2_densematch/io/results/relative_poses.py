"""`relative_poses.csv`: one line a frame. No timings and no clock: two runs on the same input give the same bytes."""

from __future__ import annotations

import csv
import math
from pathlib import Path
from typing import Any

import numpy as np

from ros2_densematch.files.atomic import AtomicFile
from ros2_densematch.geometry import poses
from ros2_densematch.tracking.tracked_frame import Status, TrackedFrame

_COVARIANCE = [f"cov_{i}{j}" for i in range(6) for j in range(i, 6)]
COLUMNS = (
    *("index", "stamp_ns", "status", "segment", "is_keyframe"),
    *("keyframe_id", "keyframe_index", "keyframe_stamp_ns"),
    *("geometry", "scale", "scale_std", "tx", "ty", "tz", "qx", "qy", "qz", "qw"),
    *("num_matches", "num_inliers", "inlier_ratio", "overlap"),
    *("median_epipolar_px", "median_triangulation_deg", "homography_inlier_ratio"),
    *_COVARIANCE,
    *("pose_status", "reason"),
)


class RelativePosesCsv:
    """Writes the file while frames come in; see docs/formats.md for the columns. Used as a context manager."""

    def __init__(self, path: str | Path):
        self._file = AtomicFile(path)
        self._writer = csv.writer(self._file.stream, lineterminator="\n")
        self._writer.writerow(COLUMNS)
        self._waiting: list[dict[str, Any]] = []

    def write(self, tracked: TrackedFrame) -> None:
        """One line. Cells of what is not known are empty; the pose is T_query_from_reference.

        Lines appear one frame later: the next frame may make this one a keyframe.
        """
        for keyframe in tracked.new_keyframes:
            for row in self._waiting:
                if row["index"] == keyframe.index:
                    row["is_keyframe"] = 1
        if tracked.status is not Status.REJECTED:
            self._put_waiting()
        self._waiting.append(_row(tracked))

    def _put_waiting(self) -> None:
        for row in self._waiting:
            self._writer.writerow([row.get(name, "") for name in COLUMNS])
        self._waiting.clear()

    def close(self) -> None:
        """Put the file in its place."""
        self._put_waiting()
        self._file.close()

    def __enter__(self) -> RelativePosesCsv:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _row(tracked: TrackedFrame) -> dict[str, Any]:
    row: dict[str, Any] = {
        "index": tracked.index,
        "stamp_ns": tracked.stamp_ns,
        "status": str(tracked.status),
        "segment": tracked.segment,
        "is_keyframe": int(tracked.is_keyframe),
        "keyframe_id": tracked.keyframe_id if tracked.keyframe_id >= 0 else "",
        "keyframe_index": tracked.keyframe_index if tracked.keyframe_index >= 0 else "",
        "keyframe_stamp_ns": tracked.keyframe_stamp_ns if tracked.keyframe_stamp_ns >= 0 else "",
        "reason": tracked.reason,
    }
    if tracked.correspondences is not None:
        row["num_matches"] = len(tracked.correspondences)
        row["overlap"] = _number(tracked.correspondences.overlap)
    pose = tracked.relative_pose
    if pose is not None:
        row |= {
            "geometry": pose.geometry.name,
            "scale": pose.scale.name,
            "num_matches": pose.num_matches,
            "num_inliers": pose.num_inliers,
            "pose_status": pose.status,
        }
        for name in ("inlier_ratio", "median_epipolar_px", "median_triangulation_deg", "homography_inlier_ratio"):
            row[name] = _number(getattr(pose, name))
        if pose.ok:
            T = pose.T_query_from_reference
            numbers = (*T[:3, 3], *poses.quaternion_from_matrix(T))
            row["scale_std"] = _number(pose.scale_std)
            row |= zip(("tx", "ty", "tz", "qx", "qy", "qz", "qw"), map(_number, numbers), strict=True)
            row |= zip(_COVARIANCE, map(_number, pose.covariance[np.triu_indices(6)]), strict=True)
    return row


def _number(value: float) -> str:
    # + 0.0 turns a negative zero into zero.
    return f"{value + 0.0:.9g}" if math.isfinite(value) else ""
