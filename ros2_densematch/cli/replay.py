"""`densematch replay`: a bag, a video or an image folder in; a result bag, poses, a summary and a report out."""

from __future__ import annotations

import time
import traceback
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import islice, pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ros2_densematch.cli.errors import BAD_INPUT, DONE, INTERRUPTED, OUR_FAULT, InputError, is_full, one_line
from ros2_densematch.cli.interrupt import StopRequest, stop_request
from ros2_densematch.cli.options import (
    BackendOption,
    ConfigOption,
    DeviceOption,
    MatcherOption,
    OutOption,
    PresetOption,
    SetOption,
    WeightsOption,
    configured,
    estimator_facts,
    identity_of,
    matcher_facts,
    matcher_of,
    output_folder,
    say,
)
from ros2_densematch.cli.pipeline import ReadAhead, WriteBehind
from ros2_densematch.cli.progress import progress_counter

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from ros2_densematch.cli.result_files import ResultFiles
    from ros2_densematch.configuration import Configuration
    from ros2_densematch.evaluation.accuracy import Assessment
    from ros2_densematch.evaluation.animation import Animation
    from ros2_densematch.evaluation.summary import FrameRecord
    from ros2_densematch.files.results_folder import ResultsFolder
    from ros2_densematch.io.exports.rerun import RerunLog
    from ros2_densematch.io.sources.base import FrameSource
    from ros2_densematch.io.sources.options import SourceOptions
    from ros2_densematch.matchers.base import Matcher
    from ros2_densematch.tracking.frame import Frame
    from ros2_densematch.tracking.tracked_frame import TrackedFrame


def command(
    source: Annotated[Path, typer.Argument(metavar="BAG", help="Bag, video, image folder or folder with frames.csv.")],
    *,
    out: OutOption = Path("densematch-replay"),
    config: ConfigOption = None,
    matcher: MatcherOption = None,
    preset: PresetOption = None,
    device: DeviceOption = None,
    backend: BackendOption = None,
    weights: WeightsOption = None,
    assignments: SetOption = None,
    image_topic: Annotated[str | None, typer.Option("--image-topic", help="Topic of the images.")] = None,
    camera_info_topic: Annotated[
        str | None, typer.Option("--camera-info-topic", help="Topic of their CameraInfo.")
    ] = None,
    camera: Annotated[
        Path | None,
        typer.Option("--camera", help="Calibration (ROS camera_info YAML); overrides the bag's CameraInfo."),
    ] = None,
    depth_topic: Annotated[
        str | None, typer.Option("--depth-topic", help="Topic of depth registered to the images, for metric scale.")
    ] = None,
    right_image_topic: Annotated[
        str | None,
        typer.Option("--right-image-topic", help="Topic of right images of a rectified stereo pair, for metric scale."),
    ] = None,
    odometry_topic: Annotated[
        str | None,
        typer.Option("--odometry-topic", help="Topic of metric odometry (Odometry, poses, tf), for metric scale."),
    ] = None,
    ground_truth_topic: Annotated[
        str | None,
        typer.Option("--ground-truth-topic", help="Topic of ground-truth poses, for ATE and RPE in the report."),
    ] = None,
    depth_time_offset: Annotated[
        float | None,
        typer.Option("--depth-time-offset", help="Seconds to add to the depth's stamps, if stamped by another clock."),
    ] = None,
    right_image_time_offset: Annotated[
        float | None, typer.Option("--right-image-time-offset", help="Seconds to add to the right images' stamps.")
    ] = None,
    odometry_time_offset: Annotated[
        float | None, typer.Option("--odometry-time-offset", help="Seconds to add to the odometry's stamps.")
    ] = None,
    ground_truth_time_offset: Annotated[
        float | None, typer.Option("--ground-truth-time-offset", help="Seconds to add to the ground truth's stamps.")
    ] = None,
    mask: Annotated[
        Path | None, typer.Option("--mask", help="Mask image of the frames' size; black pixels are not matched.")
    ] = None,
    start: Annotated[
        float | None,
        typer.Option("--from", min=0.0, help="Start at this many seconds after the first image, by stamps."),
    ] = None,
    stop: Annotated[
        float | None, typer.Option("--to", min=0.0, help="Stop at this many seconds after the first image, by stamps.")
    ] = None,
    every: Annotated[int, typer.Option("--every", min=1, metavar="N", help="Use only every Nth frame.")] = 1,
    rate: Annotated[
        float | None, typer.Option("--rate", metavar="HZ", help="Use at most this many frames per second, by stamps.")
    ] = None,
    max_frames: Annotated[int | None, typer.Option("--max-frames", min=1, help="Stop after this many frames.")] = None,
    animate: Annotated[
        str | None,
        typer.Option("--animate", metavar="gif|webp|mp4", help="Also write an animation of the matches."),
    ] = None,
    rerun: Annotated[
        str | None,
        typer.Option(
            "--rerun",
            metavar="viewer|URL|FILE.rrd",
            help="Also stream to rerun: open a viewer (viewer), send to a running one (rerun+http://...), or write a "
            "file.",
        ),
    ] = None,
) -> int:
    """Replay a recording: correspondences and relative poses against keyframes, a trajectory and a report."""
    from ros2_densematch.io.sources.options import SourceOptions

    configuration = configured(config, matcher, preset, device, weights, assignments, backend=backend)
    options = SourceOptions(
        image_topic=image_topic,
        camera_info_topic=camera_info_topic,
        camera_yaml=camera,
        depth_topic=depth_topic,
        right_image_topic=right_image_topic,
        odometry_topic=odometry_topic,
        ground_truth_topic=ground_truth_topic,
        depth_time_offset_s=depth_time_offset,
        right_image_time_offset_s=right_image_time_offset,
        odometry_time_offset_s=odometry_time_offset,
        ground_truth_time_offset_s=ground_truth_time_offset,
        start_s=start,
        stop_s=stop,
        every=every,
        at_most_hz=rate,
        mask=mask,
        rectified="auto" if configuration.rectified == "auto" else configuration.rectified == "true",
    )
    from ros2_densematch.evaluation.animation import KINDS, Animation

    if animate is not None and animate not in KINDS:
        raise InputError(f"--animate {animate}: choose {', '.join(KINDS)}")
    moving = None if animate is None else Animation(animate)
    with ExitStack() as stack:
        viewers = []
        if rerun is not None:
            from ros2_densematch.io.exports.rerun import RerunLog

            viewers.append(stack.enter_context(RerunLog(rerun, source.name)))
        result = replay(source, out, configuration, options, max_frames=max_frames, animation=moving, viewers=viewers)
    print(f"report: {out / 'report.html'}")
    return result.exit_code


@dataclass(frozen=True)
class ReplayResult:
    """What a replay gives back.

    Attributes:
        summary: the content of summary.json.
        exit_code: 0 done, 2 the input failed midway, 1 our fault midway, 130 interrupted.
    """

    summary: dict[str, Any]
    exit_code: int


def replay(
    path: Path,
    out: Path,
    configuration: Configuration,
    options: SourceOptions,
    *,
    max_frames: int | None = None,
    animation: Animation | None = None,
    viewers: Sequence[RerunLog] = (),
    claimed: ResultsFolder | None = None,
) -> ReplayResult:
    """Replays a recording and writes all its results (docs/formats.md) into a folder.

    An interruption or an error midway ends the replay; all files are then written for the frames done so far.

    Args:
        path: bag, video, image folder or folder with frames.csv.
        out: folder for the results; created if missing.
        configuration: matcher and tracker settings.
        options: topics, calibration and part of the recording.
        max_frames: at most so many frames.
        animation: moving picture of the matches to write as well, or None.
        viewers: where each frame is shown while the replay runs.
        claimed: the results in the folder, where the calling command has begun them; None: a run of its own.

    Raises:
        FileNotFoundError, ValueError: the input cannot be used at all; nothing was written then.
    """
    from ros2_densematch.io.sources.opening import open_source

    source = open_source(path, options)
    said = len(source.notes)
    for note in source.notes:
        say(f"note: {note}")
    matcher = matcher_of(configuration)
    folder = output_folder(out)
    job = _Replay(path, source, matcher, configuration, folder, max_frames, animation, viewers, claimed)
    job.recording = _inspected(path)
    with stop_request() as stop:
        job.run(stop)
        if not job.records:
            if job.error is not None:
                raise job.error
            raise InputError(
                f"{path} contains no usable frame: {'; '.join(source.warnings) or 'check --from, --to and the topic'}"
            )
        for note in source.notes[said:]:
            say(f"note: {note}")
        return job.finish(stop)


class _Replay:
    """One replay: the loop over the frames, then everything that is written from what the loop kept."""

    def __init__(
        self,
        path: Path,
        source: FrameSource,
        matcher: Matcher,
        configuration: Configuration,
        folder: Path,
        max_frames: int | None,
        animation: Animation | None,
        viewers: Sequence[RerunLog],
        claimed: ResultsFolder | None,
    ):
        from ros2_densematch.evaluation.gallery import Gallery
        from ros2_densematch.evaluation.scale_use import ScaleUse
        from ros2_densematch.tracking.focal_watch import FocalWatch

        self.records: list[FrameRecord] = []
        self.error: Exception | None = None
        self.recording: dict[str, Any] | None = None
        self._path, self._source, self._matcher = path, source, matcher
        self._configuration, self._folder, self._max_frames = configuration, folder, max_frames
        self._gallery = Gallery()
        self._focal, self._scale = FocalWatch(), ScaleUse()
        self._animation, self._viewers, self._claimed = animation, viewers, claimed
        self._image = ""
        self._files = self._result_files()
        self._elapsed_s = 0.0
        self._readout_s = 0.0

    def run(self, stop: StopRequest) -> None:
        """Tracks frame by frame until the end, the limit, a stop request or an error (kept in `error`)."""
        from ros2_densematch.evaluation.summary import FrameRecord, mark_late_keyframes
        from ros2_densematch.io.exports.replay_result import FrameResult
        from ros2_densematch.tracking.set_back import RestartingTracker
        from ros2_densematch.tracking.tracker import Tracker

        tracker = Tracker(self._matcher, self._configuration.tracker)
        restarting = RestartingTracker(tracker)
        length = self._source.expected
        if self._max_frames is not None:
            length = self._max_frames if length is None else min(length, self._max_frames)
        begin = time.perf_counter()
        with ExitStack() as stack:
            files = stack.enter_context(self._files)
            counter = stack.enter_context(progress_counter(f"replay {self._source.name}", length))

            def keep(item: tuple[Frame, TrackedFrame, int]) -> None:
                """All that is done with an answer; it runs behind the tracking and touches no network."""
                frame, tracked, dropped = item
                files.write(frame, tracked, frames_dropped=dropped)
                mark_late_keyframes(self.records, tracked)
                self.records.append(FrameRecord.of(tracked))
                self._gallery.add(frame, tracked)
                self._focal.add(frame, tracked)
                self._scale.add(frame, tracked)
                if self._animation is not None:
                    self._animation.add(frame, tracked)
                for viewer in self._viewers:
                    viewer.add(FrameResult.of(tracked), frame)
                if not self._image:
                    self._image = f"{frame.size[0]} x {frame.size[1]}, {frame.source or self._source.name}"
                counter.advance(tracked.status.value.lower())

            try:
                with WriteBehind(keep) as behind, ReadAhead(self._readings()) as readings:
                    for frame, dropped in readings:
                        behind.put((frame, restarting.process(frame), dropped))
                        if stop:
                            break
            except Exception as error:  # noqa: BLE001  (kept: what was done so far is written first, then it is reported)
                self.error = error
        self._elapsed_s = time.perf_counter() - begin
        self._readout_s = tracker.readout_s

    def _readings(self) -> Iterator[tuple[Frame, int]]:
        """The frames up to the limit, each with how many had been dropped when it was read."""
        for frame in islice(self._source, self._max_frames):
            yield frame, self._source.dropped

    def _result_files(self) -> ResultFiles:
        from ros2_densematch.cli.result_files import ResultFiles

        facts = matcher_facts(self._configuration, self._matcher)
        return ResultFiles(
            self._folder,
            frame_id=self._source.frame_id,
            matcher=identity_of(self._configuration, self._matcher),
            preset=facts["preset"],
            device=facts["device"],
            also=[] if self._animation is None else [self._animation.name],
            reads=[self._path],
            claimed=self._claimed,
            scale_sources=lambda: _scale_sources(self._source.inputs),
        )

    def finish(self, stop: StopRequest) -> ReplayResult:
        """Writes summary.json and report.html and says on stdout what came out."""
        from ros2_densematch.cli.result_files import write_trajectories
        from ros2_densematch.evaluation.accuracy import assess
        from ros2_densematch.evaluation.report import write_report
        from ros2_densematch.evaluation.summary import write_json

        assessment = assess(self.records, self._source.ground_truth)
        trajectories = write_trajectories(self._folder, self.records, assessment.main_segment)
        summary = self._summary(stop, assessment, trajectories)
        write_report(
            self._folder / "report.html",
            summary,
            self.records,
            trajectory=assessment.view,
            pictures=self._gallery.pictures(),
            min_inliers=self._configuration.tracker.min_inliers,
        )
        if self._animation is not None:
            self._animation.write(self._folder / self._animation.name)
        write_json(self._folder / "summary.json", summary)
        self._files.finish()
        for line in _conclusion(summary):
            print(line)
        return ReplayResult(summary, self._exit_code(stop))

    def _exit_code(self, stop: StopRequest) -> int:
        if self.error is not None:
            bad_input = isinstance(self.error, (ValueError, FileNotFoundError)) or is_full(self.error)
            say(f"densematch: error: {one_line(self.error)}")
            if not bad_input:
                traceback.print_exception(self.error, limit=-4)
            return BAD_INPUT if bad_input else OUR_FAULT
        return INTERRUPTED if stop else DONE

    def _summary(self, stop: StopRequest, assessment: Assessment, trajectories: list[str]) -> dict[str, Any]:
        """The content of summary.json (docs/formats.md)."""
        from ros2_densematch.cli.result_files import BAG, POSES
        from ros2_densematch.evaluation.summary import frame_counts, match_counts, stage_times, versions

        records = self.records
        counts = frame_counts(records)
        moving = [] if self._animation is None else [self._animation.name]
        stopped = stop.reason if self.error is None else one_line(self.error)
        return {
            "command": "replay",
            "versions": versions(),
            "input": {
                "path": str(self._path),
                "name": self._source.name,
                "image": self._image,
                "duration_s": _duration_s(records),
                "dropped_frames": self._source.dropped,
            },
            "matcher": matcher_facts(self._configuration, self._matcher),
            "estimator": estimator_facts(self._configuration),
            "frames": counts,
            "matches": match_counts(records),
            "timings_ms": stage_times([r.timings_ms for r in records]),
            "elapsed_s": round(self._elapsed_s, 3),
            "frames_per_second": round(len(records) / self._elapsed_s, 3),
            "readout_ms": round(1000 * self._readout_s, 2),
            "trajectory": assessment.trajectory,
            "no_pose_reason": None if assessment.trajectory is not None else _no_pose_reason(records),
            "accuracy": assessment.accuracy,
            "stopped_early": stopped,
            "inputs": self._source.inputs,
            "recording": self.recording,
            "notes": list(self._source.notes),
            "warnings": [
                *_once(self._source.warnings, assessment.warnings),
                *filter(None, (self._focal.warning(), self._scale.problem(_scale_sources(self._source.inputs)))),
            ],
            "files": [*self._files.written_before, BAG, POSES, *trajectories, "summary.json", "report.html", *moving],
        }


def _inspected(path: Path) -> dict[str, Any] | None:
    """What `densematch inspect` finds in a bag; what is wrong for this replay, the source says itself."""
    from ros2_densematch.io.sources.inspection import inspect_bag
    from ros2_densematch.io.sources.storage import is_bag

    if (path / "frames.csv").is_file() or not is_bag(path):
        return None
    return inspect_bag(path).as_dict()


def _scale_sources(inputs: list[dict[str, Any]]) -> str:
    """The inputs that may give the metric scale, as "depth /camera/depth", in the words of the live node."""
    kinds = {"depth": "depth", "right images": "stereo", "odometry": "odometry"}
    used = [entry for entry in inputs if entry["role"] in kinds and not entry["refused"]]
    return ", ".join(f"{kinds[entry['role']]} {entry['name']}" for entry in used)


def _once(source: list[str], assessment: list[str]) -> list[str]:
    """Both's warnings; where the source says why there is no ground truth, what follows from it is not said as well."""
    known = any(text.startswith("ground truth:") for text in source)
    others = [text for text in assessment if not (known and text.startswith("ground truth"))]
    return [*source, *others]


def _duration_s(records: list[FrameRecord]) -> float:
    """Time from the first frame to the last, without the steps of a clock that was set back."""
    steps = (after.stamp_ns - before.stamp_ns for before, after in pairwise(records))
    return sum(step for step in steps if step > 0) * 1e-9


def _no_pose_reason(records: list[FrameRecord]) -> str:
    """The most frequent reason among the frames without a pose."""
    reasons = [r.reason for r in records if r.status != "INITIALISED"] or [r.reason for r in records]
    return max(sorted(set(reasons)), key=reasons.count)


def _conclusion(summary: dict[str, Any]) -> Iterator[str]:
    from ros2_densematch.evaluation.lengths import length_in_words

    frames, accuracy = summary["frames"], summary["accuracy"]
    statuses = ", ".join(f"{entry['count']} {name}" for name, entry in frames["status"].items())
    yield f"{frames['total']} frames at {summary['frames_per_second']:.1f} frames/s: {statuses}"
    if summary["readout_ms"]:
        yield f"rolling shutter: {summary['readout_ms']:.1f} ms from the first to the last row"
    if summary["trajectory"] is None:
        yield f"no poses: {summary['no_pose_reason']}"
    if accuracy is not None:
        ate, rpe = accuracy["ate"], accuracy["rpe"]
        share = "" if ate["percent_of_path"] is None else f" ({ate['percent_of_path']:.2f} % of the path)"
        how = f"after {accuracy['alignment']} alignment, {accuracy['poses']} poses"
        yield f"ATE {length_in_words(ate['rmse_m'])}{share} {how}"
        if rpe["rotation_rmse_deg"] is not None:
            angle, length = rpe["rotation_rmse_deg"], rpe["translation_rmse_m"]
            yield f"RPE {angle:.3f} deg, {length_in_words(length)} over {accuracy['rpe_delta']}"
    for warning in summary["warnings"]:
        yield f"warning: {warning}"
