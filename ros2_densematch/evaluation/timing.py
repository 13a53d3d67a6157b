"""What a matcher costs: milliseconds by stage with their spread, frames a second and memory, full and guided."""

from __future__ import annotations

import os
import platform
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ros2_densematch.arrays import Image
from ros2_densematch.evaluation.peers.registry import load_peer
from ros2_densematch.evaluation.predictions.memory import PeakMemory
from ros2_densematch.geometry.camera import Camera
from ros2_densematch.geometry.pose_config import PoseConfig
from ros2_densematch.geometry.two_view import estimate_relative_pose
from ros2_densematch.matchers.base import Matcher
from ros2_densematch.tracking.config import TrackerConfig
from ros2_densematch.tracking.frame import Frame
from ros2_densematch.tracking.tracker import Tracker

# what stands beside: the peer's name, and its points, criteria and iterations in words
AGAINST = {
    "sift": ("opencv-sift", "at most 4096 points, ratio 0.8, mutual nearest neighbours, brute force"),
    "orb": ("opencv-orb", "at most 4096 points, mutual nearest neighbours, brute force"),
    "klt": (
        "opencv-lk",
        "at most 4096 corners, window 21 x 21, 5 levels, 30 iterations or 0.01 px, forward and backward within 1 px",
    ),
    "dis": ("opencv-dis", "medium preset, forward and backward within 1 px, one match per 4 x 4 px"),
}
STAGES = ("keyframe", "encode", "match", "pose", "total")
_CAMERA_PERIOD_NS = 33_333_333


@dataclass(frozen=True)
class Limits:
    """At most so many matches, the settings of the estimator, and its seed."""

    max_matches: int
    pose: PoseConfig
    seed: int


@dataclass(frozen=True)
class Timed:
    """What was measured of one matcher on one sequence of frames.

    Attributes:
        milliseconds: stage -> one value a frame. keyframe: an image as a keyframe; encode: as a frame; both with what
            its first match does for it, because some matchers encode when they first match. total: encode, match, pose.
        matches, inliers: medians.
        peak_memory_mb: resident memory of the process (and of the GPU), or None.
    """

    milliseconds: dict[str, list[float]]
    matches: int
    inliers: int
    peak_memory_mb: float | None

    def facts(self) -> dict[str, Any]:
        """For bench.json."""
        total = float(np.median(self.milliseconds["total"]))
        return {
            "matches": self.matches,
            "inliers": self.inliers,
            "frames_per_second": round(1e3 / total, 2),
            "peak_memory_mb": self.peak_memory_mb,
            "frames": len(self.milliseconds["total"]),
            "timings_ms": {stage: _spread(values) for stage, values in self.milliseconds.items()},
        }


def _spread(values: Sequence[float]) -> dict[str, float | None]:
    """Median and quartiles."""
    if not values:
        return {"median": None, "lower_quartile": None, "upper_quartile": None}
    low, middle, high = (round(float(v), 3) for v in np.percentile(values, (25, 50, 75)))
    return {"median": middle, "lower_quartile": low, "upper_quartile": high}


def time_full(
    load: Callable[[], Matcher],
    images: Sequence[Image],
    camera: Camera,
    limits: Limits,
    repeat: int,
    advance: Callable[[], None],
) -> Timed:
    """Every frame matched anew with an encoded keyframe.

    Args:
        load: builds the matcher; its memory counts.
        images: the keyframe, then the frames, which are taken in turn.
        camera: of all of them.
        limits: of matches and pose.
        repeat: frames timed, after one to warm up.
        advance: called after each frame.
    """
    memory = PeakMemory()
    matcher = load()
    found: dict[str, list[float]] = {stage: [] for stage in STAGES}
    counts: list[tuple[int, int]] = []
    for i in range(repeat + 1):
        query_image = images[1 + i % (len(images) - 1)]
        keyframe, encoding = matcher.encode(images[0], reference=True), matcher.encode(query_image)
        _match(matcher, keyframe, encoding, limits)  # both are encoded now, whenever the matcher does it
        usual = _ms(lambda k=keyframe, e=encoding: _match(matcher, k, e, limits))[0]  # type: ignore[misc]
        again, fresh = _ms(lambda: matcher.encode(images[0], reference=True))
        first = _ms(lambda k=fresh, e=encoding: _match(matcher, k, e, limits))[0]  # type: ignore[misc]
        encode, frame = _ms(lambda image=query_image: matcher.encode(image))  # type: ignore[misc]
        match, matches = _ms(lambda k=keyframe, f=frame: _match(matcher, k, f, limits))  # type: ignore[misc]
        pose, estimated = _ms(
            lambda m=matches: estimate_relative_pose(m, camera, camera, config=limits.pose, seed=limits.seed)  # type: ignore[misc]
        )
        if i:
            late = max(match - usual, 0.0)
            row = (again + max(first - usual, 0.0), encode + late, match - late, pose, encode + match + pose)
            for stage, value in zip(STAGES, row, strict=True):
                found[stage].append(value)
            counts.append((len(matches), estimated.num_inliers))
        advance()
    return _timed(found, counts, memory)


def time_guided(
    load: Callable[[], Matcher],
    images: Sequence[Image],
    camera: Camera,
    config: TrackerConfig,
    repeat: int,
    advance: Callable[[], None],
) -> Timed | None:
    """Frames as the tracker follows them at 30 Hz: matches carried on from the frame before, and the predicted pose
    refined. None where the matcher cannot, or where no frame was followed in this way.

    Args:
        load: builds the matcher; its memory counts.
        images: of a flight; they are shown forwards and backwards in turn.
        camera: of all of them.
        config: of the tracker.
        repeat: guided frames timed. The keyframe and frames that were matched anew are left out.
        advance: called after each frame that is timed, and once for the keyframe.
    """
    memory = PeakMemory()
    matcher = load()
    if not matcher.uses_prior:
        return None
    found: dict[str, list[float]] = {stage: [] for stage in STAGES}
    counts: list[tuple[int, int]] = []
    tracker = Tracker(matcher, config)
    there_and_back = [*range(len(images)), *range(len(images) - 2, 0, -1)]
    advance()
    for i in range(2 * repeat + 10):
        frame = Frame(images[there_and_back[i % len(there_and_back)]], i * _CAMERA_PERIOD_NS, i, camera)
        total, tracked = _ms(partial(tracker.process, frame))
        if not tracked.guided or tracked.correspondences is None:
            continue
        stages = [tracked.timings_ms.get(stage, 0.0) for stage in STAGES[1:4]]
        for stage, value in zip(STAGES[1:], (*stages, total), strict=True):
            found[stage].append(value)
        counts.append((len(tracked.correspondences), tracked.num_inliers))
        advance()
        if len(counts) == repeat:
            break
    return _timed(found, counts, memory) if counts else None


def _match(matcher: Matcher, keyframe: Any, frame: Any, limits: Limits) -> Any:
    return matcher.match(keyframe, frame, max_matches=limits.max_matches, seed=limits.seed)


def _ms(work: Callable[[], Any]) -> tuple[float, Any]:
    """Milliseconds that it took, with those of a GPU, and its result."""
    begin = time.perf_counter()
    result = work()
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        torch.cuda.synchronize()
    return 1e3 * (time.perf_counter() - begin), result


def _timed(found: dict[str, list[float]], counts: Sequence[tuple[int, int]], memory: PeakMemory) -> Timed:
    matches, inliers = (round(float(np.median(values))) for values in zip(*counts, strict=True))
    return Timed(found, matches, inliers, memory.peak_mb())


def peer(name: str) -> Callable[[], Matcher]:
    """What builds the matcher of a word of `AGAINST`."""
    return lambda: load_peer(AGAINST[name][0])


@contextmanager
def busy(count: int) -> Iterator[None]:
    """Endless loops in processes of their own beside the context: what other nodes of a robot do to a matcher."""
    loops = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield
    finally:
        for process in loops:
            process.kill()
            process.wait()


def machine() -> dict[str, Any]:
    """Processor, cores and threads: no time stands without them."""
    import cv2
    import torch

    return {
        "processor": _processor(),
        "cores": os.cpu_count() or 1,
        "torch_threads": torch.get_num_threads(),
        "opencv_threads": cv2.getNumThreads(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "load_before": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
    }


def _processor() -> str:
    try:
        found = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text("utf-8"), re.MULTILINE)
    except OSError:
        found = None
    return found[1].strip() if found else platform.processor() or platform.machine()
