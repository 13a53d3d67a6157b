"""Processor time of reading recordings, without matching: two checkouts in turn, as a ratio.

    python benchmarks/reading_time.py OLD_CHECKOUT NEW_CHECKOUT RECORDING... [--rounds 5] [--frames 200]

Every round reads each recording once with each checkout, in a process of its own; the user time of the reading alone
counts, and the median over the rounds. Other load on the machine slows both alike.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path
from statistics import median

_READ = """
import resource, sys
try:
    from ros2_densematch.io.sources.opening import open_source
except ModuleNotFoundError:  # before the sources had a folder of their own
    from ros2_densematch.io.source import open_source
def user(): return resource.getrusage(resource.RUSAGE_SELF).ru_utime
list(zip(open_source(sys.argv[1]), range(1)))  # the libraries are loaded, the file lies in the cache
begin = user()
count = 0
while user() - begin < 0.5:
    for frame, _ in zip(open_source(sys.argv[1]), range(int(sys.argv[2]))):
        count += 1
print((user() - begin) / count)
"""


def seconds(checkout: Path, recording: Path, frames: int) -> float:
    """User time a frame of one process that reads with this checkout."""
    environment = {**os.environ, "PYTHONPATH": str(checkout), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", _READ, str(recording.resolve()), str(frames)]
    done = subprocess.run(command, env=environment, cwd=checkout, capture_output=True, text=True, check=True)
    return float(done.stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("old", type=Path)
    parser.add_argument("new", type=Path)
    parser.add_argument("recordings", type=Path, nargs="+")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--frames", type=int, default=200, help="of each recording, at most")
    options = parser.parse_args()
    for recording in options.recordings:
        rows = [
            [seconds(checkout.resolve(), recording, options.frames) for checkout in (options.old, options.new)]
            for _ in range(options.rounds)
        ]
        old, new = (median(row[i] for row in rows) for i in (0, 1))
        ratio = median(row[1] / row[0] for row in rows)
        print(f"{recording.name}: {1e3 * old:.2f} and {1e3 * new:.2f} ms a frame, ratio {ratio:.3f}")


if __name__ == "__main__":
    main()
