"""`eval bag`: matchers compared on a recording without true poses, by what can be known without them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ros2_densematch.evaluation.predictions.entries import Entry
from ros2_densematch.evaluation.scores.figures import EntryScores, Figure, FigureGroup, PairScore, bootstrap
from ros2_densematch.evaluation.scores.judging import percent
from ros2_densematch.evaluation.summary import FrameRecord
from ros2_densematch.evaluation.trajectories.consistency import Consistency, consistency
from ros2_densematch.evaluation.trajectories.dataset import Recording, TrajectoryDataset
from ros2_densematch.evaluation.trajectories.scores import cost_group, judge, recovered_losses
from ros2_densematch.evaluation.trajectories.tracking import TrackingRule
from ros2_densematch.evaluation.trajectories.tracks import Track, TrackStore
from ros2_densematch.geometry.trajectory import Trajectory
from ros2_densematch.io.sources.fixes import Fixes, read_fixes
from ros2_densematch.io.sources.opening import open_source
from ros2_densematch.io.sources.options import SourceOptions
from ros2_densematch.io.sources.storage import is_bag
from ros2_densematch.tracking.frame import Frame

NOT_ACCURACIES = (
    "There is no ground truth, so these are not accuracies: a matcher that is always wrong in the same way is "
    "consistent. They show which matcher loses the camera, and where matchers disagree."
)
SPACING_NS = 300_000_000  # between the frames of a triple


@dataclass(frozen=True, eq=False)
class OwnBag:
    """A recording without true poses.

    Attributes:
        dataset: with this one recording.
        triples: images of three frames each, `SPACING_NS` apart, spread over the recording.
        odometry: poses of the camera by wheel or other odometry, or None.
        fixes: of a satellite receiver, or None.
    """

    dataset: TrajectoryDataset
    triples: tuple[tuple[NDArray[np.uint8], ...], ...]
    odometry: Trajectory | None
    fixes: Fixes | None


def open_bag(path: Path, options: SourceOptions, triples: int, max_frames: int | None, gps_topic: str | None) -> OwnBag:
    """Reads the frames once: the images of the triples, and the odometry.

    Raises:
        FileNotFoundError, ValueError: the recording cannot be read, or has no such topic.
    """
    source = open_source(path, options)
    nothing = Trajectory(np.zeros(0, np.int64), np.zeros((0, 4, 4)))
    recording = Recording(path.resolve().name, source, nothing)
    dataset = TrajectoryDataset(
        recording.name, path, (recording,), layout="recording", task="bag", notes=(NOT_ACCURACIES,)
    )
    stamps: list[int] = []
    odometry: dict[int, NDArray[np.float64]] = {}
    for frame in source:
        stamps.append(frame.stamp_ns)
        if frame.odometry is not None:
            odometry[frame.stamp_ns] = frame.odometry
        if len(stamps) == max_frames:
            break
    wanted = _triples_of(np.array(stamps, np.int64), triples)
    images = _images(source, {i for triple in wanted for i in triple})
    fixes = read_fixes(path, gps_topic) if is_bag(path) else None
    known = sorted(odometry)
    return OwnBag(
        dataset,
        tuple(tuple(images[i] for i in triple) for triple in wanted),
        Trajectory(np.array(known, np.int64), np.stack([odometry[s] for s in known])) if known else None,
        fixes,
    )


def _triples_of(stamps_ns: NDArray[np.int64], count: int) -> list[tuple[int, int, int]]:
    """Indices of three frames each; fewer where the recording is short."""
    if len(stamps_ns) < 3:
        return []
    second = np.searchsorted(stamps_ns, stamps_ns + SPACING_NS).clip(np.arange(len(stamps_ns)) + 1)
    third = np.searchsorted(stamps_ns, stamps_ns + 2 * SPACING_NS).clip(second + 1)
    possible = np.flatnonzero(third < len(stamps_ns))
    if not len(possible):
        return [(0, len(stamps_ns) // 2, len(stamps_ns) - 1)]
    chosen = np.unique(possible[np.linspace(0, len(possible) - 1, count).round().astype(np.intp)])
    return [(int(i), int(second[i]), int(third[i])) for i in chosen]


def _images(source: object, wanted: set[int]) -> dict[int, NDArray[np.uint8]]:
    frames: Sequence[Frame] = source  # type: ignore[assignment]  # an iterable is enough
    found: dict[int, NDArray[np.uint8]] = {}
    for number, frame in enumerate(frames):
        if number in wanted:
            found[number] = frame.image
        if len(found) == len(wanted):
            break
    return found


def score_bag(
    bag: OwnBag,
    store: TrackStore,
    entry: Entry,
    rule: TrackingRule,
    advance: Callable[[str], None] = lambda name: None,
) -> EntryScores:
    """All figures of one entry: its stored track, and the triples, which it matches now."""
    recording = bag.dataset.recordings[0]
    track = store.read(0, recording.name)
    if track is None or not track.records:
        reason = store.missing_reason(0) if track is None else track.error or "it gave no frame"
        return EntryScores(
            entry.name, entry.facts, (), (), (PairScore(recording.name, "", "missing", None, reason),), (), ""
        )
    groups = [_tracking(track, rule)]
    matcher = entry.load()
    found = []
    for triple in bag.triples:
        found.append(consistency(matcher, triple))
        advance(entry.name)
    if found:
        groups.append(_consistency(found))
    if bag.odometry is not None:
        groups.append(_agreement(track, bag.odometry, "odometry", rule, rotations=True))
    if bag.fixes is not None:
        groups.append(_agreement_with_fixes(track, bag.fixes, rule))
    groups.append(cost_group([track], store))
    status = "scored" if any(r.T_world_from_camera is not None for r in track.records) else "failed"
    lost = float(np.mean([r.T_world_from_camera is None for r in track.records]))
    row = PairScore(recording.name, "", status, 100 * lost, track.error)  # type: ignore[arg-type]  # one of two literals
    return EntryScores(entry.name, entry.facts, tuple(groups), (), (row,), (), "% of the frames without a pose")


def _consistency(found: Sequence[Consistency]) -> FigureGroup:
    def share(errors: Sequence[NDArray[np.float64]], limit: float) -> NDArray[np.float64]:
        return np.array([100 * float((e < limit).mean()) if len(e) else 0.0 for e in errors])

    back, third = [c.back_px for c in found], [c.third_px for c in found]
    columns = {
        ("back_1", "back within 1 px"): share(back, 1.0),
        ("back_3", "back within 3 px"): share(back, 3.0),
        ("third_3", "three views within 3 px"): share(third, 3.0),
    }
    figures = []
    for (key, label), values in columns.items():
        low, high = bootstrap(len(values), lambda index, v=values: v[index].mean(1, keepdims=True))  # type: ignore[misc]
        figures.append(Figure(key, label, float(values.mean()), 1, "%", float(low[0]), float(high[0])))
    figures.append(Figure("forward", "matches a pair", float(np.mean([c.forward for c in found])), 0, better=""))
    note = (
        "Shares of all matches from the first to the second of three frames, 0.3 s apart: carried back by the matches "
        "of the opposite direction, and over both ways to the third frame. Mutual nearest neighbours return "
        "by construction."
    )
    return FigureGroup(
        "consistency", "Consistency of the matches", f"{len(found)} triples of frames", tuple(figures), note
    )


def _tracking(track: Track, rule: TrackingRule) -> FigureGroup:
    records = track.records
    posed = [r for r in records if r.T_world_from_camera is not None]
    losses = recovered_losses(records)
    figures = (
        Figure(
            "with_pose",
            "frames with a pose",
            percent([float(r.T_world_from_camera is not None) for r in records]),
            1,
            "%",
        ),
        Figure("lost", "frames lost", percent([float(r.status == "LOST") for r in records]), 1, "%", better="lower"),
        Figure("losses", "losses", float(len(losses)), 0, better="lower"),
        Figure("recovered", "of these relocalised", percent([float(v) for v in losses]), 0, "%"),
        Figure("segments", "segments", float(len({r.segment for r in posed})), 0, better="lower"),
        Figure("survival", "frames a keyframe survives", _survival(records), 1),
        Figure("inliers", "inliers (median)", _median([r.num_inliers for r in records]), 0),
        Figure("inlier_share", "inlier share (median)", _median([r.inlier_ratio for r in records], 100.0), 1, "%"),
    )
    note = (
        "A keyframe survives as many frames as are matched to it on average; inliers are matches that agree with the "
        "pose."
    )
    return FigureGroup("tracking", "Tracking", rule.judged_label, figures, note)


def _survival(records: Sequence[FrameRecord]) -> float | None:
    """Mean number of frames with a pose that follow one keyframe."""
    keyframes = sum(r.is_keyframe for r in records)
    followed = sum(r.T_world_from_camera is not None and not r.is_keyframe for r in records)
    return followed / keyframes if keyframes else None


def _median(values: Sequence[float | None], factor: float = 1.0) -> float | None:
    known = [v for v in values if v is not None]
    return factor * float(np.median(known)) if known else None


def _agreement_with_fixes(track: Track, fixes: Fixes, rule: TrackingRule) -> FigureGroup:
    name = f"satellite fixes of {fixes.topic}"
    left_out = f"{fixes.left_out[:1].upper()}{fixes.left_out[1:]}." if fixes.left_out else ""
    if fixes.track is None:
        return FigureGroup("fixes", f"Agreement with the {name}", rule.judged_label, (), left_out or "There are none.")
    group = _agreement(track, fixes.track, name, rule, rotations=False)
    return replace(group, note=f"{group.note} {left_out}".strip())


def _agreement(track: Track, other: Trajectory, name: str, rule: TrackingRule, *, rotations: bool) -> FigureGroup:
    """How far the trajectory lies from another one, which has errors of its own."""
    judged = judge(track.records, other)
    values: dict[str, object] = judged.accuracy or {}
    ate = values.get("ate")
    found = ate if isinstance(ate, dict) else {}
    figures = [
        Figure("rms_m", "distance", found.get("rmse_m"), 3, "m", better="lower"),
        Figure("rms_percent", "of the path", found.get("percent_of_path"), 2, "%", better="lower"),
    ]
    if rotations:
        rotation = None if judged.drift_1_s is None else judged.drift_1_s[1]
        figures.append(Figure("drift_rotation_deg", "rotation over 1 s", rotation, 2, "°", better="lower"))
    note = (
        f"Root mean square distance from the {name} after a similarity alignment; that too has errors, and neither is "
        "the truth. The tracker did not use it."
    )
    key = "odometry" if rotations else "fixes"
    return FigureGroup(key, f"Agreement with the {name}", rule.judged_label, tuple(figures), note)
