"""Compares this checkout with another one, part by part, in one run and on one thread: does a change change results?

    git worktree add ../before COMMIT
    python benchmarks/compare_checkouts.py ../before                # all parts
    python benchmarks/compare_checkouts.py ../before matches        # one

Each part is a script of its own that can also be run alone. It calls itself once per checkout, in a process that
imports the package from there, and compares what the two wrote. The exit code is 0 where everything is identical.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
PARTS = {"matches": "compare_matches.py", "tracking": "compare_tracking.py"}
_ONE_THREAD = {f"{library}_NUM_THREADS": "1" for library in ("OMP", "MKL", "OPENBLAS")}


def run_in(checkout: Path, script: Path, *arguments: str) -> None:
    """Runs a script of this folder with the package of a checkout, on one thread.

    Raises:
        SystemExit: the folder is no checkout, or the script failed; its messages are on stderr.
    """
    if not (checkout / "ros2_densematch").is_dir():
        sys.exit(f"{checkout} is not a checkout: there is no folder ros2_densematch in it")
    environment = {**os.environ, **_ONE_THREAD, "PYTHONPATH": str(checkout.resolve())}
    done = subprocess.run([sys.executable, str(script), *arguments], env=environment, check=False)
    if done.returncode != 0:
        sys.exit(f"{script.name} failed in {checkout}")


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("before", type=Path, help="the other checkout")
    parser.add_argument("parts", nargs="*", choices=[[], *PARTS], metavar="PART", help=f"{', '.join(PARTS)}; all")
    arguments = parser.parse_args()
    codes = [
        subprocess.run([sys.executable, str(HERE / PARTS[part]), str(arguments.before)], check=False).returncode
        for part in arguments.parts or PARTS
    ]
    return max(codes)


if __name__ == "__main__":
    sys.exit(main())
