"""Stage 2 of `eval trajectory`: ATE, RPE, coverage, relocalisation and cost from stored tracks; no matcher runs.

ATE and RPE: Sturm et al., IROS 2012, section IV, of the segment with most poses, after a similarity alignment (Umeyama
1991); where the tracker states metres, also after a rigid one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from ros2_densematch.arrays import Float64
from ros2_densematch.evaluation import trajectory as errors
from ros2_densematch.evaluation.accuracy import MAX_GAP_NS, assess
from ros2_densematch.evaluation.plots import TrajectoryView
from ros2_densematch.evaluation.predictions.entries import Entry
from ros2_densematch.evaluation.scores.figures import (
    Curve,
    EntryScores,
    Figure,
    FigureGroup,
    PairScore,
    cumulative,
    mean_or_none,
)
from ros2_densematch.evaluation.summary import STAGES, FrameRecord
from ros2_densematch.evaluation.trajectories.dataset import Recording, TrajectoryDataset
from ros2_densematch.evaluation.trajectories.tracking import TrackingRule, jobs
from ros2_densematch.evaluation.trajectories.tracks import Track, TrackStore
from ros2_densematch.geometry.trajectory import Trajectory

CURVE_LIMIT = 10.0  # per cent of the path
LOST_ERROR = 100.0  # per cent of the path: what a sequence without a trajectory is ranked by
FOUND_WITHIN = 10  # frames after the camera is free again
FOUND_M, FOUND_SHARE, FOUND_DEG = 0.25, 0.01, 5.0  # a relocalisation is right below the larger length, and the angle


@dataclass(frozen=True, eq=False)
class Judged:
    """Errors of one track.

    Attributes:
        accuracy: the `accuracy` entry of summary.json, or None where too few poses have a truth.
        view: what a plot of the trajectory shows.
        segment: number of the segment that was judged.
        path_m: length of the true path while the frames were taken.
        position_m, rotation_deg: error of each frame (F,); infinite without a pose in the judged segment, NaN where
            there is no truth.
        rigid_m, scale_error: ATE after a rigid alignment and |s - 1|, where the tracker states metres.
        drift_1_s: translation and rotation error over one second, root mean squares, or None.
    """

    accuracy: dict[str, object] | None
    view: TrajectoryView | None
    segment: int | None
    path_m: float
    position_m: Float64
    rotation_deg: Float64
    rigid_m: float | None = None
    scale_error: float | None = None
    drift_1_s: tuple[float, float] | None = None


def judge(records: Sequence[FrameRecord], truth: Trajectory) -> Judged:
    """Errors of a track against the truth."""
    stamps, first = np.unique([r.stamp_ns for r in records], return_index=True)
    at_frames, served = truth.interpolated(stamps, max_gap_ns=MAX_GAP_NS)
    has_truth = np.zeros(len(records), np.bool_)
    has_truth[first[served]] = True
    path = at_frames.path_length() if len(at_frames) else 0.0
    position, rotation = np.full(len(records), np.nan), np.full(len(records), np.nan)
    position[has_truth] = rotation[has_truth] = np.inf
    assessment = assess(records, truth)
    if assessment.accuracy is None:
        return Judged(None, assessment.view, assessment.main_segment, path, position, rotation)
    true_pose = dict(zip(first[served].tolist(), at_frames.T_world_from_camera, strict=True))
    known = np.array(
        [
            i
            for i, r in enumerate(records)
            if r.segment == assessment.main_segment and r.T_world_from_camera is not None and i in true_pose
        ],
        np.intp,
    )
    T = np.stack([np.asarray(records[i].T_world_from_camera) for i in known])
    T_true = np.stack([true_pose[int(i)] for i in known])
    similarity = errors.align(T[:, :3, 3], T_true[:, :3, 3])
    position[known] = np.linalg.norm(similarity.apply(T[:, :3, 3]) - T_true[:, :3, 3], axis=1)
    rotation[known] = errors.rotation_errors_deg(T[:, :3, :3], T_true[:, :3, :3])
    rigid = scale_error = None
    if records[int(known[-1])].scale == "METRIC":
        moved = errors.align(T[:, :3, 3], T_true[:, :3, 3], with_scale=False).apply(T[:, :3, 3])
        rigid = errors.rms(np.linalg.norm(moved - T_true[:, :3, 3], axis=1))
        scale_error = abs(similarity.scale - 1.0)
    steps = _steps_of_one_second(np.array([records[int(i)].stamp_ns for i in known], np.int64))
    drift = None
    if len(steps):
        translation, angle = errors.relative_errors(T, T_true, steps, similarity.scale)
        drift = errors.rms(translation), errors.rms(angle)
    return Judged(
        accuracy=assessment.accuracy,
        view=assessment.view,
        segment=assessment.main_segment,
        path_m=path,
        position_m=position,
        rotation_deg=rotation,
        rigid_m=rigid,
        scale_error=scale_error,
        drift_1_s=drift,
    )


def _steps_of_one_second(stamps_ns: NDArray[np.int64]) -> NDArray[np.intp]:
    """(K, 2) indices: each pose with the one nearest to a second later, where that is off by half a frame at most."""
    if len(stamps_ns) < 2:
        return np.zeros((0, 2), np.intp)
    wanted = stamps_ns + 10**9
    after = np.searchsorted(stamps_ns, wanted).clip(1, len(stamps_ns) - 1)
    nearest = np.where(wanted - stamps_ns[after - 1] < stamps_ns[after] - wanted, after - 1, after)
    off = np.abs(stamps_ns[nearest] - wanted)
    first = np.flatnonzero((off <= np.median(np.diff(stamps_ns)) / 2) & (off <= 10**8))
    return np.stack([first, nearest[first]], 1)


@dataclass
class _Sums:
    """What is collected over the sequences of an entry."""

    rows: list[PairScore] = field(default_factory=list)
    judged: list[tuple[Track, Judged]] = field(default_factory=list)
    losses: list[bool] = field(default_factory=list)  # whether each ended in the segment that it began in
    covered: list[bool] = field(default_factory=list)  # whether the camera was found again after each interruption


def score_tracks(dataset: TrajectoryDataset, store: TrackStore, entry: Entry, rule: TrackingRule) -> EntryScores:
    """All figures of one entry; the same tracks and truth give the same result."""
    sums = _Sums()
    for index, name, recording, covered in jobs(dataset, rule):
        track = store.read(index, name)
        if track is None or not track.records:
            reason = store.missing_reason(index) if track is None else track.error or "it gave no frame"
            sums.rows.append(PairScore(name, "", "missing", None, reason))
            continue
        judged = judge(track.records, recording.truth)
        if covered:
            sums.covered += found_after_interruptions(track, judged)
        else:
            sums.losses += recovered_losses(track.records)
            sums.judged.append((track, judged))
            sums.rows.append(_row(track, judged))
    sums.rows += [PairScore(name, "", "missing", None, reason) for name, reason in dataset.unusable]
    if not sums.judged:
        return EntryScores(entry.name, entry.facts, (), (), tuple(sums.rows), (), "% of the path")
    label = rule.judged_label
    groups = [
        FigureGroup("trajectory", "Trajectory", label, _figures(sums.judged), _NOTE),
        FigureGroup("robustness", "Losses and relocalisation", label, _robustness(sums, rule), _robustness_note(rule)),
        cost_group([track for track, _ in sums.judged], store),
    ]
    subsets = []
    if len(sums.judged) > 1:
        subsets = [
            (track.name, (FigureGroup("trajectory", "Trajectory", label, _figures([(track, judged)])),))
            for track, judged in sums.judged
        ]
    shares = np.concatenate([_percent_of_path(judged) for _, judged in sums.judged])
    curves: tuple[Curve, ...] = (cumulative(f"position, {label}", shares.tolist(), CURVE_LIMIT),)
    return EntryScores(
        entry.name, entry.facts, tuple(groups), tuple(subsets), tuple(sums.rows), curves, error_unit="% of the path"
    )


_NOTE = (
    "Of the segment with most poses of each sequence, after a similarity alignment with the truth; means over the "
    "sequences. ATE: root mean square of the positions' distances. RPE: the same of the motion over one frame and over "
    "one second. Frames within 1 %: share of all frames whose position is that near, in per cent of the path's length; "
    "a frame without a pose, or in another segment, is not. Rigid: alignment without a scale, where the tracker states "
    "metres."
)


def _figures(judged: Sequence[tuple[Track, Judged]]) -> tuple[Figure, ...]:
    found = [j for _, j in judged]

    def mean(values: Sequence[float | None]) -> float | None:
        return mean_or_none([v for v in values if v is not None])

    def of(*keys: str) -> float | None:
        values: list[float | None] = []
        for j in found:
            value: object = j.accuracy
            for key in keys:
                value = value.get(key) if isinstance(value, dict) else None
            values.append(float(value) if isinstance(value, (int, float)) else None)
        return mean(values)

    posed = [np.mean([r.T_world_from_camera is not None for r in t.records]) for t, _ in judged]
    within = [float((_percent_of_path(j) < 1.0).mean()) if j.path_m > 0 else None for j in found]
    rigid, scale = mean([j.rigid_m for j in found]), mean([j.scale_error for j in found])
    drift = [j.drift_1_s for j in found if j.drift_1_s is not None]
    return (
        Figure("recall_1", "frames within 1 % of the path", _hundred(mean(within)), 1, "%"),
        Figure("ate_m", "ATE", of("ate", "rmse_m"), 4, "m", better="lower"),
        Figure("ate_percent", "ATE of the path", of("ate", "percent_of_path"), 2, "%", better="lower"),
        Figure("rpe_rotation_deg", "RPE a frame, rotation", of("rpe", "rotation_rmse_deg"), 3, "°", better="lower"),
        Figure("rpe_translation_m", "RPE a frame", of("rpe", "translation_rmse_m"), 4, "m", better="lower"),
        Figure("drift_rotation_deg", "RPE 1 s, rotation", mean_or_none([d[1] for d in drift]), 3, "°", better="lower"),
        Figure("drift_translation_m", "RPE 1 s", mean_or_none([d[0] for d in drift]), 4, "m", better="lower"),
        Figure("ate_rigid_m", "ATE, rigid", rigid, 4, "m", better="lower"),
        Figure("scale_error", "scale error", _hundred(scale), 2, "%", better="lower"),
        Figure("coverage", "frames with a pose", _hundred(float(np.mean(posed))), 1, "%"),
    )


def _hundred(value: float | None) -> float | None:
    return None if value is None else 100.0 * value


def _percent_of_path(judged: Judged) -> Float64:
    """Position errors of the frames with a truth, in per cent of the path's length; infinite without a pose."""
    known = judged.position_m[~np.isnan(judged.position_m)]
    return np.asarray(100.0 * known / judged.path_m if judged.path_m > 0 else np.full(len(known), np.inf), np.float64)


def _row(track: Track, judged: Judged) -> PairScore:
    values: dict[str, float | None] = {
        "frames": float(len(track.records)),
        "keyframes": float(sum(r.is_keyframe for r in track.records)),
        "segments": float(len({r.segment for r in track.records if r.T_world_from_camera is not None})),
        **{figure.key: figure.value for figure in _figures([(track, judged)])},
    }
    if judged.accuracy is None:
        why = track.error or "fewer than three poses have a truth at their time"
        return PairScore(track.name, "", "failed", LOST_ERROR, why, values)
    error = values["ate_percent"]
    reason = f"ended early: {track.error}" if track.error else ""
    return PairScore(track.name, "", "scored", LOST_ERROR if error is None else error, reason, values)


def recovered_losses(records: Sequence[FrameRecord]) -> list[bool]:
    """For each stretch of lost frames that ended: whether the next pose belongs to the segment of the last one."""
    found: list[bool] = []
    before: int | None = None  # segment of the last frame with a pose
    lost = False
    for record in records:
        if record.T_world_from_camera is None:
            lost = lost or (before is not None and record.status == "LOST")
            continue
        if before is not None and (lost or record.segment != before):
            found.append(record.segment == before)
        before, lost = record.segment, False
    return found


def found_after_interruptions(track: Track, judged: Judged) -> list[bool]:
    """For each interruption: whether one of the next frames has a right pose in the judged trajectory."""
    near_m = max(FOUND_M, FOUND_SHARE * judged.path_m)
    right = (judged.position_m < near_m) & (judged.rotation_deg < FOUND_DEG)  # false where NaN
    return [bool(right[last + 1 : last + 1 + FOUND_WITHIN].any()) for _, last in track.covered]


def _robustness(sums: _Sums, rule: TrackingRule) -> tuple[Figure, ...]:
    segments = [len({r.segment for r in t.records if r.T_world_from_camera is not None}) for t, _ in sums.judged]
    lost = [np.mean([r.status == "LOST" for r in t.records]) for t, _ in sums.judged]
    recall = mean_or_none([float(v) for v in sums.covered])
    return (
        Figure("lost", "frames lost", _hundred(float(np.mean(lost))), 1, "%", better="lower"),
        Figure("segments", "segments a sequence", float(np.mean(segments)), 1, better="lower"),
        Figure("losses", "losses", float(len(sums.losses)), 0, better="lower"),
        Figure("recovered", "of these found again", _hundred(mean_or_none([float(v) for v in sums.losses])), 0, "%"),
        Figure("interruptions", "interruptions", float(len(sums.covered)), 0, better=""),
        Figure("relocalisation_recall", "relocalisation recall", _hundred(recall), 0, "%"),
    )


def _robustness_note(rule: TrackingRule) -> str:
    text = "A loss is found again when the trajectory goes on in the segment that it was lost in. "
    if not rule.interruptions:
        return text + "Relocalisation recall is measured with --interruptions N."
    return (
        f"{text}Relocalisation recall, from a second pass in which the camera is covered for 5 frames now and then: "
        f"share of the interruptions after which one of the next {FOUND_WITHIN} frames lies within {FOUND_M:g} m (or "
        f"{100 * FOUND_SHARE:g} % of the path) and {FOUND_DEG:g} degrees of the truth in the judged trajectory."
    )


def cost_group(tracks: Sequence[Track], store: TrackStore) -> FigureGroup:
    """Time by stage and memory of an entry's tracks."""
    records = [r for track in tracks for r in track.records if r.timings_ms]
    totals = [sum(r.timings_ms.values()) for r in records]
    stages = []
    for stage in STAGES:
        values = [r.timings_ms[stage] for r in records if stage in r.timings_ms]
        stages.append(
            Figure(f"{stage}_ms", stage, float(np.median(values)) if values else None, 1, "ms", better="lower")
        )
    total = float(np.median(totals)) if totals else None
    mean = float(np.mean(totals)) if totals else 0.0
    cost = store.read_cost()
    figures = (
        *stages,
        Figure("frame_ms", "a frame", total, 1, "ms", better="lower"),
        Figure("frames_per_second", "frames a second", 1e3 / mean if mean > 0 else None, 1),
        Figure(
            "guided", "guided frames", _hundred(mean_or_none([float(r.guided) for r in records])), 0, "%", better=""
        ),
        Figure("peak_memory_mb", "peak memory", cost.get("peak_memory_mb"), 0, "MiB", better="lower"),
    )
    note = (
        "Medians over the frames where a stage ran; frames a second from the mean over all frames, without reading "
        "them. On the machine and under the load of that run; compare within one run only."
    )
    return FigureGroup("cost", "Cost", f"device {cost.get('device', 'not recorded')}", figures, note)


def truth_at_frames(track: Track, recording: Recording) -> Trajectory:
    """The true poses at the times of the frames, for files that others read."""
    stamps = np.unique([r.stamp_ns for r in track.records])
    return recording.truth.interpolated(stamps, max_gap_ns=MAX_GAP_NS)[0]
