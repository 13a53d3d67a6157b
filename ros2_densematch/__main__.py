"""The `densematch` command: `python -m ros2_densematch`, the console script, and the executables that `ros2 run` finds.

In a ROS workspace nobody has installed what the package needs from Python's package index, so nothing but the standard
library is imported before a missing package can be named.
"""

import sys
from collections.abc import Sequence
from importlib import import_module

from ros2_densematch.cli.errors import exit_code_of


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs `densematch` with the given arguments (default: those of the process) and returns the exit code.

    A missing Python package is one line on stderr that names the command which installs it.
    """

    def run() -> int:
        code: int = import_module("ros2_densematch.cli.main").main(arguments)
        return code

    return exit_code_of(run)


if __name__ == "__main__":
    sys.exit(main())
