"""How many images of a 30 Hz camera the tracker answers for, when those that come meanwhile are dropped.

    OMP_WAIT_POLICY=PASSIVE python benchmarks/live_rate.py ../shared/data/rosbag/tum_fr1_rpy_mcap [--seconds 20]
    OMP_WAIT_POLICY=PASSIVE python benchmarks/live_rate.py flight

As in the node, the newest image is tracked next and the others are dropped. The clock is simulated: a frame takes as
long as the tracker really needs. Transport and decoding are not counted (`benchmarks/endurance.py` runs the node).
The recording is played forwards and backwards, once without a time budget and once with the interval between images,
which is the node's default: a tracker that falls behind sees larger motions and falls further behind.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from frame_rate import RATE_HZ, frames_of

from ros2_densematch import Frame, TrackedFrame, Tracker, TrackerConfig, load_matcher
from ros2_densematch.matchers.base import Matcher
from ros2_densematch.tracking.tracked_frame import Status


def played(matcher: Matcher, frames: Sequence[Frame], seconds: float, budget_ms: float) -> list[TrackedFrame]:
    """What the tracker answers, for the images that it takes."""
    film = [*frames, *frames[-2:0:-1]]
    tracker = Tracker(matcher, TrackerConfig(time_budget_ms=budget_ms))
    answers: list[TrackedFrame] = []
    now, number = 0.0, 0
    while number < int(seconds * RATE_HZ):
        frame = replace(film[number % len(film)], index=number, stamp_ns=10**9 + int(1e9 * number / RATE_HZ))
        begun = time.perf_counter()
        answers.append(tracker.process(frame))
        now = max(now, number / RATE_HZ) + time.perf_counter() - begun
        number = max(number + 1, int(now * RATE_HZ))
    return answers


def line(name: str, answers: Sequence[TrackedFrame], seconds: float) -> str:
    """Rate, times and losses in words."""
    milliseconds = [sum(a.timings_ms.values()) for a in answers]
    lost = sum(a.status is Status.LOST for a in answers)
    return (
        f"{name}: {len(answers)} of {int(seconds * RATE_HZ)} images, {len(answers) / seconds:.1f} a second; median "
        f"{np.median(milliseconds):.0f} ms, 90 %: {np.quantile(milliseconds, 0.9):.0f} ms, longest "
        f"{max(milliseconds):.0f} ms; guided {100 * np.mean([a.guided for a in answers]):.0f} %, {lost} lost"
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", help="a recording, or flight")
    parser.add_argument("--frames", type=int, default=240, help="of the recording, at most")
    parser.add_argument("--seconds", type=float, default=20.0)
    arguments = parser.parse_args()
    frames = frames_of(arguments.source, arguments.frames)
    matcher = load_matcher("gcm", device="cpu")
    matcher.match(matcher.encode(frames[0].image), matcher.encode(frames[0].image))  # libraries load on first use
    for name, budget_ms in (("no time budget", 0.0), ("time budget", 1000.0 / RATE_HZ)):
        print(line(name, played(matcher, frames, arguments.seconds, budget_ms), arguments.seconds), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
