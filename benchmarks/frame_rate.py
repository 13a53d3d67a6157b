"""Frames a second of the tracker over all frames, guided beside full matches only, in one run.

    OMP_WAIT_POLICY=PASSIVE python benchmarks/frame_rate.py ../shared/data/rosbag/tum_fr1_rpy_mcap [--busy 2]

Keyframes and checks count: nothing is left out. Decoding is not counted. `--busy N` runs N endless loops beside it.
The full path runs over the first `--full-frames` frames only.
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


def run(matcher: Matcher, frames: list[Frame], *, guided: bool) -> tuple[np.ndarray, np.ndarray]:
    """Milliseconds (N,) of every frame, and whether it was guided (N,)."""
    tracker = Tracker(matcher, TrackerConfig(guided=guided))
    milliseconds, by_guidance = [], []
    for frame in frames:
        start = time.perf_counter()
        tracked = tracker.process(frame)
        milliseconds.append(1e3 * (time.perf_counter() - start))
        by_guidance.append(tracked.guided)
    return np.array(milliseconds), np.array(by_guidance)


def line(name: str, milliseconds: np.ndarray) -> str:
    """Rate and times in words."""
    rate = 1e3 * len(milliseconds) / milliseconds.sum()
    return (
        f"{name:8} {rate:5.1f} frames/s, median {np.median(milliseconds):.0f} ms, 90 %: "
        f"{np.quantile(milliseconds, 0.9):.0f} ms, over {len(milliseconds)} frames"
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path)
    parser.add_argument("--frames", type=int, default=150)
    parser.add_argument("--full-frames", type=int, default=20, help="frames of the run without guidance")
    parser.add_argument("--preset", default="base")
    parser.add_argument("--busy", type=int, default=0, help="endless loops that run beside it")
    arguments = parser.parse_args()
    frames = list(itertools.islice(open_source(arguments.source), arguments.frames))
    matcher = load_matcher("gcm", device="cpu", preset=arguments.preset)
    matcher.match(matcher.encode(frames[0].image), matcher.encode(frames[0].image))  # libraries load on first use
    loops = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(arguments.busy)]
    try:
        full, _ = run(matcher, frames[: arguments.full_frames], guided=False)
        all_frames, guided = run(matcher, frames, guided=True)
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()
    print(line("full", full[1:]))
    print(line("tracker", all_frames))
    print(
        f"guided: {100 * guided.mean():.0f} % of the frames, median {np.median(all_frames[guided]):.0f} ms, "
        f"1/{np.median(full[1:]) / np.median(all_frames[guided]):.1f} of a full frame"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
