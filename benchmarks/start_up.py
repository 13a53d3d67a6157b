"""Seconds until densematch is ready: import, `--help`, two photos matched, the node active.

    OMP_WAIT_POLICY=PASSIVE python benchmarks/start_up.py [--repeat 3]

Each is a fresh process of this interpreter; the median is printed. The node is timed from the start of its process to
its log line that it is active, and is left out where rclpy or the messages are missing (see docs/ros.md).
"""

from __future__ import annotations

import argparse
import importlib.util
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import ros2_densematch

SAMPLE = Path(ros2_densematch.__file__).parent / "sample"
COMMAND = (sys.executable, "-m", "ros2_densematch")


def run(*arguments: str) -> float:
    """Seconds of a process that must succeed."""
    start = time.perf_counter()
    subprocess.run(arguments, check=True, capture_output=True)
    return time.perf_counter() - start


def matched() -> float:
    """Seconds of `densematch match` of the two sample photos, their picture included."""
    with tempfile.TemporaryDirectory() as folder:
        return run(*COMMAND, "match", str(SAMPLE / "a.jpg"), str(SAMPLE / "b.jpg"), "--out", folder)


def node_active() -> float:
    """Seconds from the start of `densematch live` to its line that it is active."""
    start = time.perf_counter()
    arguments = (*COMMAND, "live", "--image-topic", "/start_up/image")
    process = subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert process.stdout is not None
    seen = []
    try:
        for line in process.stdout:
            seen.append(line)
            if " active: " in line:
                return time.perf_counter() - start
    finally:
        process.send_signal(signal.SIGINT)
        process.communicate()
    raise RuntimeError("the node ended before it was active:\n" + "".join(seen))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeat", type=int, default=3)
    repeat: int = parser.parse_args().repeat
    timed: Sequence[tuple[str, Callable[[], float]]] = [
        ("import ros2_densematch", lambda: run(sys.executable, "-c", "import ros2_densematch")),
        ("densematch --help", lambda: run(*COMMAND, "--help")),
        ("densematch match a.jpg b.jpg", matched),
    ]
    if importlib.util.find_spec("rclpy") and importlib.util.find_spec("densematch"):
        timed = [*timed, ("the node, from start to active", node_active)]
    print("| | s |\n| --- | --: |")
    for name, measure in timed:
        print(f"| `{name}` | {statistics.median(measure() for _ in range(repeat)):.2f} |", flush=True)


if __name__ == "__main__":
    main()
