"""`python -m ros2_densematch` is the `densematch` command, for environments whose scripts are not on the PATH."""

import sys

from ros2_densematch.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
