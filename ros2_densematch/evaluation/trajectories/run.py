"""Both stages over all entries, and the trajectories as files that evo reads."""

from __future__ import annotations

import base64
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from ros2_densematch import __version__
from ros2_densematch.evaluation.comparison.run import PREDICTIONS, Evaluation
from ros2_densematch.evaluation.comparison.worst_pairs import ShownPair
from ros2_densematch.evaluation.plots import trajectory_plot
from ros2_densematch.evaluation.predictions.entries import Entry
from ros2_densematch.evaluation.predictions.export import Exported
from ros2_densematch.evaluation.trajectories.dataset import TrajectoryDataset
from ros2_densematch.evaluation.trajectories.scores import judge, score_tracks, truth_at_frames
from ros2_densematch.evaluation.trajectories.tracking import TrackingRule, export_tracks, jobs
from ros2_densematch.evaluation.trajectories.tracks import Track, TrackStore
from ros2_densematch.geometry.trajectory import Trajectory
from ros2_densematch.io.exports.kitti import write_kitti
from ros2_densematch.io.results.tum import write_tum

TRAJECTORIES = "trajectories"
SHOWN = 12  # plots on the page
_MOST_BYTES = 3_400_000


def track_store(out: Path, dataset: TrajectoryDataset, rule: TrackingRule, entry: Entry) -> TrackStore:
    """The tracks of one entry in an evaluation's folder."""
    settings = {
        "version": __version__,
        "data": dataset.fingerprint(),
        "export": rule.export_settings(),
        "entry": entry.facts,
    }
    return TrackStore(out / PREDICTIONS / entry.name, settings)


def track_all(
    out: Path,
    dataset: TrajectoryDataset,
    rule: TrackingRule,
    entries: Sequence[Entry],
    *,
    advance: Callable[[str], None],
    stop: Callable[[], bool],
) -> dict[str, Exported]:
    """Stage 1 of every entry, one after the other."""
    done: dict[str, Exported] = {}
    for entry in entries:
        store = track_store(out, dataset, rule, entry)
        done[entry.name] = export_tracks(dataset, rule, entry, store, advance=advance, stop=stop)
        if done[entry.name].stopped:
            break
    return done


def job_count(dataset: TrajectoryDataset, rule: TrackingRule) -> int:
    """Sequences that an entry tracks, the passes with interruptions counted."""
    return sum(1 for _ in jobs(dataset, rule))


def score_all_tracks(
    out: Path, dataset: TrajectoryDataset, rule: TrackingRule, entries: Sequence[Entry]
) -> tuple[Evaluation, list[ShownPair]]:
    """Stage 2 of every entry, with the plots for the page; writes the trajectories too."""
    scored = [score_tracks(dataset, track_store(out, dataset, rule, entry), entry, rule) for entry in entries]
    evaluation = Evaluation(dataset, rule, tuple(scored), dataset.notes)
    shown: list[ShownPair] = []
    size = 0
    for index, recording in enumerate(dataset.recordings):
        pictures = []
        for entry in entries:
            track = track_store(out, dataset, rule, entry).read(index, recording.name)
            if track is None or not track.records:
                continue
            judged = judge(track.records, recording.truth)
            _write(out / TRAJECTORIES / "ground_truth", recording.name, truth_at_frames(track, recording))
            trajectory = _of_segment(track, judged.segment)
            if trajectory is None:
                continue
            _write(out / TRAJECTORIES / entry.name, recording.name, trajectory)
            if judged.view is not None and len(shown) < SHOWN and size < _MOST_BYTES:
                plot = trajectory_plot(judged.view)
                url = "data:image/svg+xml;base64," + base64.b64encode(plot.encode()).decode("ascii")
                size += len(url)
                pictures.append((entry.name, url, f"{len(trajectory)} of {len(track.records)} frames"))
        if pictures:
            shown.append(ShownPair(recording.name, tuple(pictures)))
    return evaluation, shown


def _of_segment(track: Track, segment: int | None) -> Trajectory | None:
    rows = [r for r in track.records if r.segment == segment and r.T_world_from_camera is not None]
    if not rows:
        return None
    stamps = np.array([r.stamp_ns for r in rows], np.int64)
    return Trajectory(stamps, np.stack([np.asarray(r.T_world_from_camera) for r in rows]))


def _write(folder: Path, name: str, trajectory: Trajectory) -> None:
    """TUM lines and KITTI rows of a trajectory."""
    folder.mkdir(parents=True, exist_ok=True)
    write_tum(folder / f"{name}.tum", trajectory)
    write_kitti(folder / f"{name}.kitti", trajectory)
