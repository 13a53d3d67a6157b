#!/bin/sh
# Installs Ray, large and an extra of its own, beside densematch. Where it cannot be had, one line says
# why, and the tests of batches on Ray are skipped by name: a machine without Ray is no fault of densematch.
#   sh scripts/install_ray.sh [PYTHON] [CONSTRAINTS]         default .venv/bin/python constraints.txt
set -eu
python=${1:-.venv/bin/python}
constraints=${2:-constraints.txt}

without() {
    echo "$1 (batches on Ray are not tested here)" >&2
    exit 0
}

log=$(mktemp)
trap 'rm -f "$log"' EXIT
if ! "$python" -m pip install -c "$constraints" -e ".[ray]" >"$log" 2>&1; then
    without "Ray cannot be installed: $(grep -i '^error' "$log" | tail -n 1)"
fi
"$python" -c 'import ray; print("Ray", ray.__version__)'
