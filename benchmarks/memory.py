"""Peak memory of `encode` and of `match`, by preset.

    OMP_WAIT_POLICY=PASSIVE python benchmarks/memory.py --threads 1 --size 640x480
    OMP_WAIT_POLICY=PASSIVE python benchmarks/memory.py --threads 1 --size 1600x1200

Each preset runs in a process of its own, on the two photos that ship. Linux only: the kernel's peak of resident memory
is reset before each step. `loaded` is the process with the matcher, MiB; `encode` and `match` are the peaks of the
whole process during one encoding (an image after the keyframe) and one match, after one of each to warm up.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

STEPS = ("loaded", "encode", "match")


def measure(name: str, preset: str, size: tuple[int, int], threads: int, backend: str) -> dict[str, float | None]:
    """Peaks in MiB of this process; it should do nothing else."""
    import cv2
    import numpy as np

    from ros2_densematch.evaluation.predictions.memory import PeakMemory
    from ros2_densematch.files.shipped import sample_file
    from ros2_densematch.io.sources.files import read_image
    from ros2_densematch.matchers.registry import load_matcher
    from ros2_densematch.processor import limit_threads

    limit_threads(threads)
    photos = [read_image(sample_file(Path("sample") / file)) for file in ("a.jpg", "b.jpg")]
    first, second = (np.asarray(cv2.resize(photo, size), np.uint8) for photo in photos)
    matcher = load_matcher(name, device="cpu", preset=preset, backend=backend)
    found = {"loaded": PeakMemory().peak_mb()}
    for _ in range(2):  # the first warms up
        keyframe = matcher.encode(first, reference=True)
        _ = keyframe.data.descriptors  # `gcm` makes its features when they are first asked for
        memory = PeakMemory()
        query = matcher.encode(second)
        _ = query.data.descriptors
        found["encode"] = memory.peak_mb()
        memory = PeakMemory()
        matcher.match(keyframe, query)
        found["match"] = memory.peak_mb()
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--matcher", default="gcm", help="gcm or condl")
    parser.add_argument("--preset", help="only this one")
    parser.add_argument("--size", default="640x480")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--backend", default="torch")
    parser.add_argument("--alone", action="store_true", help="measure --preset in this process; JSON on stdout")
    given = parser.parse_args()
    width, height = map(int, given.size.split("x"))
    if given.alone:
        print(json.dumps(measure(given.matcher, given.preset, (width, height), given.threads, given.backend)))
        return
    from ros2_densematch.matchers.registry import presets_of

    print("| matcher | preset | size | loaded | encode | match |\n| --- | --- | --- | ---: | ---: | ---: |")
    for preset in [given.preset] if given.preset else presets_of(given.matcher):
        command = [sys.executable, __file__, *sys.argv[1:], "--preset", preset, "--alone"]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        found = json.loads(done.stdout)
        print(
            f"| {given.matcher} | {preset} | {given.size} | {' | '.join(f'{found[s]:.0f}' for s in STEPS)} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
