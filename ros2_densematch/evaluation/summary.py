"""What a replay keeps of every frame, and the summary made from it (the keys of summary.json; see docs/formats.md)."""

from __future__ import annotations

import json
import math
import platform
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ros2_densematch import __version__
from ros2_densematch.files.atomic import write_text

if TYPE_CHECKING:
    from ros2_densematch.tracking.tracked_frame import TrackedFrame

STAGES = ("encode", "match", "pose")
_VERSIONS_OF = ("numpy", "opencv-python-headless", "poselib", "rosbags", "torch")


@dataclass(frozen=True)
class FrameRecord:
    """The figures of one frame, without its arrays: what curves, tables and summaries need.

    Attributes:
        index: number of the frame in its source.
        stamp_ns: time of the image in nanoseconds.
        status: name of the tracker's status.
        reason: why, in words.
        is_keyframe: whether the frame became a keyframe.
        keyframe_index: frame that it was matched against, or None.
        segment: piece of the trajectory; a loss without recovery begins a new one.
        num_matches: matches before the estimator, or None where nothing was matched.
        num_inliers: matches that agree with the pose, or None where no pose was estimated.
        inlier_ratio: share of the two, or None.
        overlap: share of the keyframe's usable area that the frame shows, in [0, 1], or None.
        geometry: name of the two-view class, or None.
        scale: NONE, UNIT or METRIC.
        guided: whether its matches were carried on from the frame before instead of being made anew.
        timings_ms: milliseconds by stage (encode, match, pose).
        T_world_from_camera: (4, 4) or None.
    """

    index: int
    stamp_ns: int
    status: str
    reason: str
    is_keyframe: bool = False
    keyframe_index: int | None = None
    segment: int = 0
    num_matches: int | None = None
    num_inliers: int | None = None
    inlier_ratio: float | None = None
    overlap: float | None = None
    geometry: str | None = None
    scale: str = "NONE"
    guided: bool = False
    timings_ms: Mapping[str, float] = field(default_factory=dict)
    T_world_from_camera: NDArray[np.float64] | None = None

    @staticmethod
    def of(tracked: TrackedFrame) -> FrameRecord:
        """The record of a tracked frame."""
        matches, pose = tracked.correspondences, tracked.relative_pose
        posed = tracked.T_world_from_camera is not None and tracked.inliers is not None
        inliers = tracked.num_inliers if posed else None if pose is None else pose.num_inliers
        count = None if matches is None else len(matches)
        return FrameRecord(
            index=tracked.index,
            stamp_ns=tracked.stamp_ns,
            status=tracked.status.value,
            reason=tracked.reason,
            is_keyframe=tracked.is_keyframe,
            keyframe_index=tracked.keyframe_index if tracked.keyframe_index >= 0 else None,
            segment=tracked.segment,
            num_matches=count,
            num_inliers=inliers,
            inlier_ratio=inliers / count if count and inliers is not None else None,
            overlap=None if matches is None or not math.isfinite(matches.overlap) else float(matches.overlap),
            geometry=None if pose is None else pose.geometry.name,
            scale=tracked.scale.name,
            guided=tracked.guided,
            timings_ms=dict(tracked.timings_ms),
            T_world_from_camera=tracked.T_world_from_camera,
        )


def mark_late_keyframes(records: list[FrameRecord], tracked: TrackedFrame) -> None:
    """Marks in the records so far what this next frame made a keyframe, a frame late."""
    late = {keyframe.index for keyframe in tracked.new_keyframes if keyframe.index != tracked.index}
    for k in range(len(records) - 1, -1, -1):
        if not late:
            break
        if records[k].index in late:
            late.discard(records[k].index)
            records[k] = replace(records[k], is_keyframe=True)


def frame_counts(records: Sequence[FrameRecord]) -> dict[str, Any]:
    """Frames by status with the reasons behind each, most frequent first.

    Reasons that differ only in their numbers count as one; the first one's wording is kept.
    """
    statuses: dict[str, Any] = {}
    for status, count in Counter(r.status for r in records).most_common():
        wording: dict[str, str] = {}
        kinds: Counter[str] = Counter()
        for record in records:
            if record.status == status:
                kind = re.sub(r"[-+]?\d+(\.\d+)?", "#", record.reason)
                wording.setdefault(kind, record.reason)
                kinds[kind] += 1
        reasons = [{"reason": wording[kind], "count": n} for kind, n in kinds.most_common()]
        statuses[status] = {"count": count, "reasons": reasons}
    return {
        "total": len(records),
        "keyframes": sum(r.is_keyframe for r in records),
        "guided": sum(r.guided for r in records),
        "with_pose": sum(r.T_world_from_camera is not None for r in records),
        "segments": len({r.segment for r in records if r.T_world_from_camera is not None}),
        "status": statuses,
    }


def match_counts(records: Sequence[FrameRecord]) -> dict[str, float | None]:
    """Medians over the frames that were matched, or had a pose: matches, inliers, inlier ratio, overlap."""

    def median(values: Iterable[float | None]) -> float | None:
        known = [v for v in values if v is not None]
        return round(float(np.median(known)), 4) if known else None

    return {
        "median": median(r.num_matches for r in records),
        "median_inliers": median(r.num_inliers for r in records),
        "median_inlier_ratio": median(r.inlier_ratio for r in records),
        "median_overlap": median(r.overlap for r in records),
    }


def stage_times(records: Sequence[Mapping[str, float]]) -> dict[str, dict[str, float | None]]:
    """Median and 95th percentile of the milliseconds of each stage and of their sum.

    Args:
        records: milliseconds by stage, one mapping a frame or pair; a stage that did not run is absent from it.
    """
    rows: dict[str, list[float]] = {stage: [r[stage] for r in records if stage in r] for stage in STAGES}
    rows["total"] = [sum(r.get(stage, 0.0) for stage in STAGES) for r in records if r]
    return {
        stage: {
            "median": round(float(np.median(values)), 3) if values else None,
            "p95": round(float(np.percentile(values, 95)), 3) if values else None,
        }
        for stage, values in rows.items()
    }


def versions() -> dict[str, str]:
    """Versions of this package, of Python and of the libraries that decide the figures."""
    found = {"densematch": __version__, "python": platform.python_version()}
    for name in _VERSIONS_OF:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def write_json(path: Path, data: Mapping[str, Any]) -> None:
    """Writes JSON in one step (a reader never sees half a file); NaN and infinity become null."""
    write_text(path, json.dumps(_plain(data), indent=1, allow_nan=False) + "\n")


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, np.ndarray):
        return _plain(value.tolist())
    if isinstance(value, np.generic):
        return _plain(value.item())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Path):
        return str(value)
    return value
