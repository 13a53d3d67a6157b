"""`densematch eval trajectory`: from the words of the command line over both stages to the files."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ros2_densematch.cli.errors import INTERRUPTED, InputError
from ros2_densematch.cli.eval_run import (
    entry_named,
    say_exported,
    say_stopped,
    stored_entries,
    write_reports,
)
from ros2_densematch.cli.interrupt import stop_request
from ros2_densematch.cli.options import output_folder, say
from ros2_densematch.cli.progress import progress_counter
from ros2_densematch.evaluation.comparison.run import Evaluation, open_folder
from ros2_densematch.evaluation.trajectories.dataset import open_sequences
from ros2_densematch.evaluation.trajectories.own_bag import open_bag, score_bag
from ros2_densematch.evaluation.trajectories.run import job_count, score_all_tracks, track_all, track_store
from ros2_densematch.evaluation.trajectories.tracking import TrackingRule
from ros2_densematch.io.sources.options import SourceOptions
from ros2_densematch.tracking.config import TrackerConfig


@dataclass(frozen=True)
class WantedTracks:
    """What the command line asks for; the fields are its options."""

    data: str
    folder: Path | None
    out: Path
    entries: tuple[str, ...]
    tracker: TrackerConfig
    device: str | None = None
    weights: Path | None = None
    mono: bool = False
    interruptions: int = 0
    max_frames: int | None = None
    camera: Path | None = None
    image_topic: str | None = None
    ground_truth_topic: str | None = None
    resume: bool = True


def evaluate_trajectories(wanted: WantedTracks) -> int:
    """Runs both stages and writes the reports; the exit code."""
    source = {
        "camera_yaml": None if wanted.camera is None else str(wanted.camera.resolve()),
        "image_topic": wanted.image_topic,
        "ground_truth_topic": wanted.ground_truth_topic,
    }
    dataset = open_sequences(wanted.data, wanted.folder, _options(source))
    rule = TrackingRule(wanted.tracker, not wanted.mono, wanted.interruptions, wanted.max_frames)
    entries = [entry_named(word, wanted.device, wanted.weights) for word in wanted.entries]
    for name, reason in dataset.unusable:
        say(f"{name} is skipped: {reason}")
    out = output_folder(wanted.out)
    named = {
        "name": wanted.data,
        "folder": None if wanted.folder is None else str(wanted.folder.resolve()),
        "path": str(dataset.folder.resolve()),
        "source": source,
    }
    open_folder(out, dataset, rule, entries, named, resume=wanted.resume)
    with ExitStack() as stack:
        stop = stack.enter_context(stop_request())
        counter = stack.enter_context(progress_counter("track", job_count(dataset, rule) * len(entries), dataset.unit))
        done = track_all(out, dataset, rule, entries, advance=counter.advance, stop=lambda: bool(stop))
        if stop:
            say_stopped(done, out)
            return INTERRUPTED
    for name, exported in done.items():
        say_exported(name, exported, dataset.unit)
    return write_reports(out, *score_all_tracks(out, dataset, rule, entries))


@dataclass(frozen=True)
class WantedBag:
    """What the command line asks for; the fields are its options."""

    path: Path
    out: Path
    entries: tuple[str, ...]
    tracker: TrackerConfig
    device: str | None
    triples: int
    max_frames: int | None
    gps_topic: str | None
    source: SourceOptions
    resume: bool = True


def evaluate_bag(wanted: WantedBag) -> int:
    """Compares entries on a recording without true poses; the exit code."""
    bag = open_bag(wanted.path, wanted.source, wanted.triples, wanted.max_frames, wanted.gps_topic)
    rule = TrackingRule(wanted.tracker, use_depth=False, max_frames=wanted.max_frames)
    entries = [entry_named(word, wanted.device, None) for word in wanted.entries]
    out = output_folder(wanted.out)
    named = {"name": str(wanted.path), "folder": None, "path": str(wanted.path.resolve())}
    open_folder(out, bag.dataset, rule, entries, named, resume=wanted.resume)
    with ExitStack() as stack:
        stop = stack.enter_context(stop_request())
        counter = stack.enter_context(progress_counter("track", len(entries), "matcher"))
        done = track_all(out, bag.dataset, rule, entries, advance=counter.advance, stop=lambda: bool(stop))
        if stop:
            say_stopped(done, out)
            return INTERRUPTED
    for name, exported in done.items():
        say_exported(name, exported, "recording")
    with progress_counter("compare", len(entries) * len(bag.triples), "triple") as counter:
        scored = tuple(
            score_bag(bag, track_store(out, bag.dataset, rule, entry), entry, rule, counter.advance)
            for entry in entries
        )
    return write_reports(out, Evaluation(bag.dataset, rule, scored, bag.dataset.notes), [])


def score_tracks_again(
    out: Path, content: dict[str, Any], protocol: str, estimator: str | None, threshold: str | None
) -> int:
    """Stage 2 alone, on what a folder holds; the exit code."""
    if protocol != "default" or estimator is not None or threshold is not None:
        raise InputError(
            f"{out} contains trajectories of the tracker, which has its own estimator: omit --protocol, --estimator "
            f"and --threshold; for other tracker settings, run again with --config and another --out"
        )
    data, export = content["data"], content["export"]
    if data["task"] == "bag":
        raise InputError(f"{out} contains a comparison without ground truth: use `eval bag` to recompute its figures")
    known = data["folder"] is not None
    dataset = open_sequences(
        data["name"] if known else data["path"], Path(data["folder"]) if known else None, _options(data["source"])
    )
    if dataset.fingerprint() != data["fingerprint"]:
        raise InputError(
            f"the data in {data['path']} changed since {out} was made: run the evaluation again with another --out"
        )
    rule = TrackingRule(
        TrackerConfig(**export["tracker"]), export["use_depth"], export["interruptions"], export["max_frames"]
    )
    return write_reports(out, *score_all_tracks(out, dataset, rule, stored_entries(content)))


def _options(source: dict[str, Any]) -> SourceOptions:
    camera = source["camera_yaml"]
    return SourceOptions(
        image_topic=source["image_topic"],
        camera_yaml=None if camera is None else Path(camera),
        ground_truth_topic=source["ground_truth_topic"],
    )
