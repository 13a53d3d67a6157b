"""The matcher node without ROS: frames go in, outcomes come out, one worker thread between them."""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Protocol

import cv2
import numpy as np

from ros2_densematch.arrays import Image
from ros2_densematch.configuration import Configuration
from ros2_densematch.geometry.camera import Camera
from ros2_densematch.geometry.correspondences import Correspondences
from ros2_densematch.geometry.two_view import RelativePose, estimate_relative_pose
from ros2_densematch.live.counters import Counters, Drop, Snapshot
from ros2_densematch.live.memory import HeapKeeper, empty_gpu_cache
from ros2_densematch.live.worker import Worker
from ros2_densematch.matchers.base import Matcher
from ros2_densematch.matchers.identity import device_of, identity_of, runtime_of
from ros2_densematch.matchers.registry import load_matcher
from ros2_densematch.messages.errors import ImageDecodeError
from ros2_densematch.tracking.focal_watch import FocalWatch
from ros2_densematch.tracking.frame import Frame
from ros2_densematch.tracking.tracked_frame import Status, TrackedFrame
from ros2_densematch.tracking.tracker import Tracker

_THUMBNAIL_PX = 640  # longer side of the keyframes that are kept for ~/matches_image
_LOADED_BY = ("matcher", "preset", "device", "backend", "weights", "options")


@dataclass(frozen=True)
class Job:
    """An image on its way to the tracker.

    Attributes:
        number: of the image, from 0.
        stamp_ns: its time.
        arrival_ns: when it arrived, of `time.time_ns`.
        build: decodes it; returns the frame and its frame_id. Raises ImageDecodeError or ValueError.
    """

    number: int
    stamp_ns: int
    arrival_ns: int
    build: Callable[[], tuple[Frame, str]]


@dataclass(frozen=True)
class Loaded:
    """A matcher ready to run, and what it is; `runtime` is "" or a sentence on what runs its network."""

    matcher: Matcher
    identity: str
    device: str
    runtime: str = ""


@dataclass(frozen=True)
class FrameOutcome:
    """Everything that is known about one image when it is published.

    Attributes:
        tracked: the tracker's answer, or one that says why the image was rejected.
        frame: the image with what belongs to it; None where it could not be decoded.
        frame_id: its optical frame; "" where it is not known.
        frame_ids: frame index -> optical frame of the image, of this one and of all keyframes.
        num_keyframes: keyframes in memory.
        reference_image: the keyframe it was matched against, at most 640 pixels a side, or None.
        counts: what became of all images so far.
        loaded: what ran.
        matcher_ms: the tracker's time.
    """

    tracked: TrackedFrame
    frame: Frame | None
    frame_id: str
    frame_ids: Mapping[int, str]
    num_keyframes: int
    reference_image: Image | None
    counts: Snapshot
    loaded: Loaded
    matcher_ms: float


class Sink(Protocol):
    """Who takes the outcomes, in the worker's thread."""

    def publish(self, outcome: FrameOutcome) -> None: ...

    def began_anew(self, reason: str) -> None:
        """Everything known was forgotten."""
        ...

    def complain(self, text: str) -> None:
        """Something went wrong; called for the first case of its kind."""
        ...


@dataclass(frozen=True)
class StageTime:
    """Milliseconds of a stage over the last images."""

    median: float
    mean: float
    max: float


@dataclass
class Times:
    """Milliseconds over the last images, by stage."""

    stages: dict[str, deque[float]] = field(default_factory=dict)

    def add(self, **milliseconds: float) -> None:
        for stage, value in milliseconds.items():
            self.stages.setdefault(stage, deque(maxlen=200)).append(value)

    def summary(self) -> dict[str, StageTime]:
        """By stage."""
        found = {stage: list(values) for stage, values in list(self.stages.items())}
        return {
            stage: StageTime(float(np.median(values)), float(np.mean(values)), max(values))
            for stage, values in found.items()
            if values
        }


class MatcherCore:
    """Owns matcher, tracker and worker thread.

    Args:
        configuration: settings.
        sink: takes what comes out.
    """

    def __init__(self, configuration: Configuration, sink: Sink) -> None:
        self.configuration = configuration
        self.counters = Counters()
        self.times = Times()
        self.enabled = True
        self._sink = sink
        self._loaded: Loaded | None = None
        self._tracker: Tracker | None = None
        self._worker: Worker[Job] = Worker(self._process, self._failed)
        self._thumbnails: dict[int, Image] = {}  # frame index -> image
        self._frame_ids: dict[int, str] = {}  # frame index -> optical frame
        self._heap = HeapKeeper()
        self._focal = FocalWatch()

    # ---- life

    @property
    def loaded(self) -> Loaded | None:
        """What runs, or None while nothing is loaded."""
        return self._loaded

    @property
    def focal_doubt(self) -> str:
        """What the matches say against the calibration's focal length; "" where they say nothing."""
        return self._focal.doubt

    @property
    def running(self) -> bool:
        """Whether images are taken."""
        return self._worker.running

    def load(self) -> None:
        """Loads the matcher unless it is there.

        Raises:
            ValueError, FileNotFoundError: the configuration names something that does not exist.
        """
        if self._loaded is None:
            self._loaded = load(self.configuration)
        if self._tracker is None:
            self._tracker = Tracker(self._loaded.matcher, self.configuration.tracker)

    def start(self) -> None:
        """Takes images from now on; loads what is not loaded."""
        self.load()
        self._worker.start()

    def stop(self, timeout_s: float | None = 10.0) -> bool:
        """Takes no more images; the one in work is finished. False when it did not end in time."""
        return self._worker.stop(timeout_s)

    def release(self) -> None:
        """Forgets matcher and keyframes and gives GPU memory back. Only while stopped."""
        self._loaded = self._tracker = None
        self._thumbnails.clear()
        self._frame_ids.clear()
        empty_gpu_cache()

    # ---- images

    def submit(self, job: Job) -> None:
        """Takes an image; one that still waits is dropped for it and counted."""
        if not self.enabled:
            self.counters.drop(Drop.DISABLED, "~/enable was called with false")
            return
        dropped = self._worker.submit(job)
        if dropped is job:
            self.counters.drop(Drop.STOPPED, f"image {job.number} arrived while the node was not active")
        elif dropped is not None:
            self.counters.drop(
                Drop.REPLACED, f"image {dropped.number} was still waiting for the matcher when {job.number} arrived"
            )

    def reject(self, job: Job, why: Drop, reason: str, frame_id: str = "") -> None:
        """Counts an image that is not tracked and says so to the sink; in the worker's thread."""
        if self.counters.drop(why, reason):
            self._sink.complain(f"image {job.number}: {reason}")
        if self._loaded is not None:
            tracked = TrackedFrame(job.number, job.stamp_ns, Status.REJECTED, reason)
            self._sink.publish(self._outcome(tracked, None, frame_id, 0.0))

    def refuse(self, number: int, stamp_ns: int, why: Drop, reason: str, frame_id: str) -> None:
        """Counts an image that never becomes a job, and says so; from any thread."""
        job = Job(number, stamp_ns, time.time_ns(), _nothing)
        self._worker.call(lambda: self.reject(job, why, reason, frame_id))

    def _time_budget_ms(self) -> float:
        """That of the configuration, or the interval between images; the latter only with a matcher that can be guided,
        because others make every match in full and would only lose accuracy."""
        assert self._loaded is not None
        config = self.configuration.tracker
        if config.time_budget_ms >= 0.0:
            return config.time_budget_ms
        hz = self.counters.snapshot().input_hz
        return 1000.0 / hz if hz > 0.0 and config.guided and self._loaded.matcher.finds_new_points else 0.0

    def _process(self, job: Job) -> None:
        assert self._tracker is not None
        begun_ns = time.time_ns()
        try:
            frame, frame_id = job.build()
        except ImageDecodeError as error:
            self.reject(job, Drop.MALFORMED, str(error))
            return
        except ValueError as error:
            self.reject(job, Drop.UNSUITABLE, str(error))
            return
        start = time.perf_counter()
        self._tracker.time_budget_ms = self._time_budget_ms()
        tracked = self._tracker.process(frame)
        matcher_ms = 1000.0 * (time.perf_counter() - start)
        if tracked.status is Status.REJECTED:
            self.reject(job, Drop.UNSUITABLE, tracked.reason, frame_id)
            return
        self.counters.process(time.time_ns())
        self._keep(frame, frame_id)
        outcome = self._outcome(tracked, frame, frame_id, matcher_ms)
        self._sink.publish(outcome)
        total_ms = (time.time_ns() - job.arrival_ns) * 1e-6
        self._focal.add(frame, tracked)
        self._heap.tidy()
        self.times.add(
            **{stage: tracked.timings_ms.get(stage, 0.0) for stage in ("encode", "match", "pose")},
            matcher=matcher_ms,
            waited=(begun_ns - job.arrival_ns) * 1e-6,
            overhead=total_ms - matcher_ms,
            total=total_ms,
        )

    def _failed(self, job: Job, error: Exception) -> None:
        reason = f"{type(error).__name__}: {' '.join(str(error).split())}"
        torch = sys.modules.get("torch")
        if torch is not None and isinstance(error, torch.cuda.OutOfMemoryError):
            empty_gpu_cache()
            reason += "; GPU memory is short: set a faster preset, or device cpu"
        self.reject(job, Drop.FAILED, reason)

    def _outcome(self, tracked: TrackedFrame, frame: Frame | None, frame_id: str, matcher_ms: float) -> FrameOutcome:
        assert self._tracker is not None
        assert self._loaded is not None
        return FrameOutcome(
            tracked=tracked,
            frame=frame,
            frame_id=frame_id,
            frame_ids=dict(self._frame_ids),
            num_keyframes=len(self._tracker.keyframes),
            reference_image=self._thumbnails.get(tracked.keyframe_index),
            counts=self.counters.snapshot(),
            loaded=self._loaded,
            matcher_ms=matcher_ms,
        )

    def _keep(self, frame: Frame, frame_id: str) -> None:
        """Names and small pictures of the keyframes, and of the last frame, which may become one a frame late."""
        assert self._tracker is not None
        kept = {k.frame_index for k in self._tracker.keyframes} | {max(self._thumbnails, default=-1)}
        self._thumbnails = {index: image for index, image in self._thumbnails.items() if index in kept}
        self._frame_ids = {index: name for index, name in self._frame_ids.items() if index in kept}
        self._thumbnails[frame.index] = thumbnail(frame.image)
        self._frame_ids[frame.index] = frame_id

    # ---- requests, answered between two images

    def reset(self, reason: str = "~/reset was called") -> Future[None]:
        """Forgets all keyframes before the next image."""

        def now() -> None:
            if self._tracker is not None:
                self._tracker.reset()
                self._thumbnails.clear()
                self._frame_ids.clear()
            self._sink.began_anew(reason)

        return self._worker.call(now)

    def between_images(self, work: Callable[[], None]) -> Future[None]:
        """Runs something in the thread that calls the sink."""
        return self._worker.call(work)

    def request_keyframe(self) -> Future[None]:
        """The next image that is tracked becomes a keyframe."""

        def now() -> None:
            if self._tracker is None:
                raise ValueError("the node is not active: activate it first")
            self._tracker.request_keyframe()

        return self._worker.call(now)

    def prepare(self, configuration: Configuration) -> Loaded | None:
        """Loads the matcher of a new configuration; None where it is the present one, or nothing is loaded now.

        Raises:
            ValueError, FileNotFoundError: the configuration names something that does not exist.
        """
        changed = any(getattr(configuration, n) != getattr(self.configuration, n) for n in _LOADED_BY)
        return load(configuration) if changed and self._loaded is not None else None

    def apply(self, configuration: Configuration, loaded: Loaded | None) -> Future[None]:
        """Applies a new configuration between two images; another matcher restarts tracking, a new policy does not."""
        self.configuration = configuration

        def now() -> None:
            if self._tracker is None:
                return
            self._tracker.reconfigure(configuration.tracker, None if loaded is None else loaded.matcher)
            if loaded is not None:
                self._loaded = loaded
                self._thumbnails.clear()
                self._frame_ids.clear()
                empty_gpu_cache()
                self._sink.began_anew(f"the matcher is now {loaded.identity}, preset {configuration.preset}")

        return self._worker.call(now)

    def match_pair(
        self,
        reference: Image,
        query: Image,
        cameras: tuple[Camera, Camera] | None,
        max_matches: int | None,
    ) -> Future[tuple[Correspondences, RelativePose | None]]:
        """Matches two images between two images of the sequence.

        Args:
            reference, query: uint8 RGB or grey.
            cameras: of both; None: no pose.
            max_matches: None: the configured number.
        """

        def now() -> tuple[Correspondences, RelativePose | None]:
            if self._loaded is None:
                raise ValueError("the node has no matcher loaded: configure and activate it first")
            matcher, settings = self._loaded.matcher, self.configuration.tracker
            a, b = matcher.encode(reference, reference=True), matcher.encode(query)
            limit = settings.max_matches if max_matches is None else max_matches
            matches = matcher.match(a, b, max_matches=limit, seed=settings.seed)
            pose = None
            if cameras is not None:
                pose = estimate_relative_pose(matches, *cameras, config=settings.pose, seed=settings.seed)
            return matches, pose

        return self._worker.call(now)


def _nothing() -> tuple[Frame, str]:
    raise ValueError("this image was refused")


def load(configuration: Configuration) -> Loaded:
    """Builds the configured matcher.

    Raises:
        ModuleNotFoundError: a package that the backend needs is not installed.
        ValueError, FileNotFoundError: unknown matcher, preset or device, or no such weights; the message names them.
    """
    matcher = load_matcher(
        configuration.matcher,
        device=configuration.device,
        preset=configuration.preset,
        weights=configuration.weights or None,
        backend=configuration.backend,
        **configuration.options.get(configuration.matcher, {}),
    )
    return Loaded(matcher, identity_of(matcher, configuration.weights), device_of(matcher), runtime_of(matcher))


def thumbnail(image: Image) -> Image:
    """The image with at most 640 pixels on its longer side; a copy where it is that small already."""
    longer = max(image.shape[:2])
    if longer <= _THUMBNAIL_PX:
        return np.array(image)
    scale = _THUMBNAIL_PX / longer
    size = (max(round(image.shape[1] * scale), 1), max(round(image.shape[0] * scale), 1))
    small: Image = np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)
    return small
