"""Frames a second of the tracker over all frames, guided beside full matches only, in one run.

    OMP_WAIT_POLICY=PASSIVE python benchmarks/frame_rate.py ../shared/data/rosbag/tum_fr1_rpy_mcap [--busy 2]
    OMP_WAIT_POLICY=PASSIVE python benchmarks/frame_rate.py flight

Keyframes and checks count: nothing is left out. Decoding is not counted. `flight` is the demo's flight, rendered at
640 x 480 and 30 Hz. `--busy N` runs N endless loops beside it. The full path, as it is without guidance, runs over the
first `--full-frames` frames only; its stages say how fast the machine is.
"""

from __future__ import annotations

import argparse
import itertools
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from ros2_densematch import Frame, Tracker, TrackerConfig, load_matcher, open_source
from ros2_densematch.matchers.base import Matcher
from ros2_densematch.simulation.flight import demo_camera, demo_flight, fly
from ros2_densematch.simulation.sensor import Sensor
from ros2_densematch.simulation.worlds import workshop

SIZE, RATE_HZ, DEMO_FRAMES = (640, 480), 30.0, 240  # the demo takes eight seconds


def frames_of(source: str, count: int) -> list[Frame]:
    """The first frames of a recording, or of the demo's flight at 30 Hz."""
    if source != "flight":
        return list(itertools.islice(open_source(Path(source)), count))
    path, camera = demo_flight(DEMO_FRAMES, rate_hz=RATE_HZ), demo_camera(*SIZE)
    return [
        Frame(rendering.image, int(stamp), i, camera)
        for i, (rendering, stamp) in enumerate(
            zip(fly(workshop(), camera, path, Sensor()), path.stamps_ns, strict=True)
        )
    ]


def run(matcher: Matcher, frames: list[Frame], *, guided: bool) -> tuple[np.ndarray, np.ndarray, dict[str, float]]:
    """Milliseconds (N,) of every frame, whether it was guided (N,), and the median milliseconds of each stage."""
    tracker = Tracker(matcher, TrackerConfig(guided=guided))
    milliseconds, by_guidance, stages = [], [], []
    for frame in frames:
        start = time.perf_counter()
        tracked = tracker.process(frame)
        milliseconds.append(1e3 * (time.perf_counter() - start))
        by_guidance.append(tracked.guided)
        if tracked.guided == guided:
            stages.append(tracked.timings_ms)
    medians = {name: float(np.median([s.get(name, 0.0) for s in stages])) for name in ("encode", "match", "pose")}
    return np.array(milliseconds), np.array(by_guidance), medians


def line(name: str, milliseconds: np.ndarray) -> str:
    """Rate and times in words."""
    rate = 1e3 * len(milliseconds) / milliseconds.sum()
    return (
        f"{name:8} {rate:5.1f} frames/s, median {np.median(milliseconds):.0f} ms, 90 %: "
        f"{np.quantile(milliseconds, 0.9):.0f} ms, over {len(milliseconds)} frames"
    )


def in_words(stages: dict[str, float]) -> str:
    """Median of each stage."""
    return "(" + ", ".join(f"{name} {ms:.0f}" for name, ms in stages.items()) + ")"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", help="a recording, or flight")
    parser.add_argument("--frames", type=int, default=150)
    parser.add_argument("--full-frames", type=int, default=20, help="frames of the run without guidance")
    parser.add_argument("--preset", default="base")
    parser.add_argument("--busy", type=int, default=0, help="endless loops that run beside it")
    arguments = parser.parse_args()
    frames = frames_of(arguments.source, arguments.frames)
    matcher = load_matcher("gcm", device="cpu", preset=arguments.preset)
    matcher.match(matcher.encode(frames[0].image), matcher.encode(frames[0].image))  # libraries load on first use
    loops = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(arguments.busy)]
    try:
        full, _, full_stages = run(matcher, frames[: arguments.full_frames], guided=False)
        all_frames, guided, stages = run(matcher, frames, guided=True)
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()
    print(line("full", full[1:]), in_words(full_stages))
    print(line("tracker", all_frames))
    print(
        f"guided: {100 * guided.mean():.0f} % of the frames, median {np.median(all_frames[guided]):.0f} ms, "
        f"1/{np.median(full[1:]) / np.median(all_frames[guided]):.1f} of a full frame",
        in_words(stages),
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
