"""Stage 1 of `eval trajectory`: every sequence tracked once, as it is and, if wanted, with the camera covered."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ros2_densematch.evaluation.predictions.entries import Entry
from ros2_densematch.evaluation.predictions.export import Exported
from ros2_densematch.evaluation.predictions.memory import PeakMemory
from ros2_densematch.evaluation.summary import FrameRecord
from ros2_densematch.evaluation.trajectories.dataset import Recording, TrajectoryDataset
from ros2_densematch.evaluation.trajectories.tracks import Track, TrackStore
from ros2_densematch.matchers.base import Matcher
from ros2_densematch.tracking.config import TrackerConfig
from ros2_densematch.tracking.frame import Frame
from ros2_densematch.tracking.set_back import RestartingTracker
from ros2_densematch.tracking.tracker import Tracker

COVERED_FRAMES = 5  # of an interruption: black images
SETTLING_FRAMES = 15  # before the first interruption, and after the last


@dataclass(frozen=True)
class TrackingRule:
    """How sequences are tracked; takes the place of a `Protocol`.

    Attributes:
        tracker: settings of the tracker.
        use_depth: whether depth, stereo and odometry of the data are used; False: one camera alone.
        interruptions: how often the camera is covered in a second pass over each sequence; 0: no such pass.
        max_frames: at most so many frames of each sequence, or None.
    """

    tracker: TrackerConfig
    use_depth: bool = True
    interruptions: int = 0
    max_frames: int | None = None
    name: str = "tracking"

    def export_settings(self) -> dict[str, Any]:
        """What stored tracks depend on."""
        return {
            "tracker": self.tracker.model_dump(mode="json"),
            "use_depth": self.use_depth,
            "interruptions": self.interruptions,
            "max_frames": self.max_frames,
        }

    def facts(self) -> dict[str, Any]:
        """The `protocol` entry of scores.json."""
        return {"name": self.name, **self.export_settings()}

    @property
    def judged_label(self) -> str:
        """As it stands beside a figure."""
        inputs = "depth where the data has it" if self.use_depth else "one camera alone"
        part = "" if self.max_frames is None else f", first {self.max_frames} frames"
        pose = self.tracker.pose
        return f"{inputs}, PoseLib {pose.max_epipolar_error_px:g} px{part}"


def covered_stretches(count: int, interruptions: int) -> tuple[tuple[int, int], ...]:
    """(first, last) frame of each interruption, evenly spread over a sequence of `count` frames; fewer where they would
    not leave the tracker `SETTLING_FRAMES` in between."""
    room = (count - SETTLING_FRAMES) // (COVERED_FRAMES + SETTLING_FRAMES)
    number = max(0, min(interruptions, room))
    places = np.linspace(SETTLING_FRAMES, count - SETTLING_FRAMES - COVERED_FRAMES, number + 2)[1:-1]
    return tuple((int(p), int(p) + COVERED_FRAMES - 1) for p in places)


def jobs(dataset: TrajectoryDataset, rule: TrackingRule) -> Iterator[tuple[int, str, Recording, bool]]:
    """What is to be tracked: number of the file, name, sequence, and whether the camera is covered."""
    for index, recording in enumerate(dataset.recordings):
        yield index, recording.name, recording, False
    if rule.interruptions:
        for index, recording in enumerate(dataset.recordings):
            yield len(dataset.recordings) + index, f"{recording.name}, interrupted", recording, True


def export_tracks(
    dataset: TrajectoryDataset,
    rule: TrackingRule,
    entry: Entry,
    store: TrackStore,
    *,
    advance: Callable[[str], None] = lambda name: None,
    stop: Callable[[], bool] = lambda: False,
) -> Exported:
    """Tracks every sequence that the store does not hold; one that is stopped midway is begun again.

    Args:
        dataset, rule, entry, store: what, how, with which matcher, and where tracks go.
        advance: called after each sequence with its name.
        stop: asked after each frame whether to end here.
    """
    matcher: Matcher | None = None
    memory = PeakMemory()
    stored = matched = replaced = 0
    for index, name, recording, covered in jobs(dataset, rule):
        if store.read(index, name) is not None:
            stored += 1
            advance(name)
            continue
        replaced += store.has_file(index)
        if matcher is None:
            memory = PeakMemory()
            matcher = entry.load()
        track = _tracked(name, recording, rule, matcher, covered, stop)
        if track is None:
            return Exported(stored, matched, 0, replaced, stopped=True)
        store.write(index, track)
        matched += 1
        advance(name)
    if matched:
        store.write_cost({"peak_memory_mb": memory.peak_mb(), "device": str(getattr(matcher, "device", "cpu"))})
    return Exported(stored, matched, 0, replaced)


def _tracked(
    name: str, recording: Recording, rule: TrackingRule, matcher: Matcher, covered: bool, stop: Callable[[], bool]
) -> Track | None:
    """The track of one sequence; None where it was stopped midway."""
    stretches: tuple[tuple[int, int], ...] = ()
    if covered:
        length = recording.source.length or len(recording.truth)
        stretches = covered_stretches(min(length, rule.max_frames or length), rule.interruptions)
    dark = {i for first, last in stretches for i in range(first, last + 1)}
    tracker = RestartingTracker(Tracker(matcher, rule.tracker))
    records: list[FrameRecord] = []
    error = ""
    try:
        for frame in recording.source:
            if stop():
                return None
            shown = _covered(frame) if len(records) in dark else frame
            records.append(FrameRecord.of(tracker.process(shown if rule.use_depth else _alone(shown))))
            if len(records) == rule.max_frames:
                break
    except (ValueError, OSError) as fault:
        error = " ".join(str(fault).split())
    return Track(name, records, stretches, tuple(recording.source.warnings), error)


def _covered(frame: Frame) -> Frame:
    """The frame of a covered camera: nothing is seen."""
    return replace(frame, image=np.zeros_like(frame.image), depth=None, right_image=None, odometry=None)


def _alone(frame: Frame) -> Frame:
    return replace(frame, depth=None, right_image=None, odometry=None)
