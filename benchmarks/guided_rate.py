"""What a guided match of `gcm` costs against a full one, in one run, on a rendered flight; pose not counted.

    OMP_WAIT_POLICY=PASSIVE python benchmarks/guided_rate.py [--frames 40] [--busy 2]

Frames of 640 x 480 at 30 Hz; every eighth is a keyframe. `--busy N` runs N endless loops beside it.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time

import numpy as np

from ros2_densematch.matchers.gcm.matcher import GcmMatcher
from ros2_densematch.matchers.prior import Prior
from ros2_densematch.simulation.passes import fly_pass
from ros2_densematch.simulation.worlds import tabletop

KEYFRAME_EVERY, FULL_EVERY = 8, 5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=40)
    parser.add_argument("--busy", type=int, default=0, help="endless loops that run beside it")
    arguments = parser.parse_args()
    images = [frame.image for frame in fly_pass(tabletop(3), "plain", seed=1, frames=arguments.frames)]
    matcher = GcmMatcher(device="cpu")
    spinning = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(arguments.busy)]
    guided: list[float] = []
    full: list[float] = []
    try:
        for i, image in enumerate(images):
            start = time.perf_counter()
            query = matcher.encode(image)
            if i % KEYFRAME_EVERY == 0:
                reference, prior = query, Prior.at_rest(matcher.guide_points(query), query)
                _ = reference.data.keypoints  # the keyframe's pass does not count for the full match of a frame
                continue
            matches = matcher.match(reference, query, prior=prior)
            guided.append(1e3 * (time.perf_counter() - start))
            prior = Prior.from_previous(matches, query)
            if i % FULL_EVERY == 0:
                start = time.perf_counter()
                matcher.match(reference, matcher.encode(image))
                full.append(1e3 * (time.perf_counter() - start))
    finally:
        for process in spinning:
            process.kill()
    for name, values in (("guided", guided), ("full", full)):
        middle, slow = np.median(values), np.quantile(values, 0.9)
        print(f"{name}: encode and match {middle:.1f} ms, 90th percentile {slow:.1f} ms ({len(values)} frames)")
    print(f"guided takes 1/{np.median(full) / np.median(guided):.1f} of the full match")


if __name__ == "__main__":
    main()
