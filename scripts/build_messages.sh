#!/bin/sh
# Builds the ROS 2 messages (densematch.msg, densematch.srv) into a virtual environment from the community wheels of
# rclpy, for machines without a ROS distribution (x86-64 Linux, Python 3.10 to 3.13). Needs cmake, make and a C++ compiler,
# and densematch installed in the environment. tf2_msgs/TFMessage, which no wheel has, is built too: without it no node
# can read /tf_static or publish /tf.
#   sh scripts/build_messages.sh [--optional] [VENV]         default .venv
# --optional: where the machine lacks something, say so in one line and end with 0. A failed build is an error all the same.
# VENV/.messages is the mark of a build that succeeded.
set -eu
source=$(cd "$(dirname "$0")/.." && pwd)
status=2
suffix=""
if [ "${1:-}" = "--optional" ]; then
    status=0
    suffix=" (the ROS messages are not built, and the tests that need them are skipped)"
    shift
fi
venv=${1:-.venv}

# Prints one line and ends: what is missing and how to get it.
lacking() {
    echo "$1$suffix" >&2
    exit "$status"
}

platform="$(uname -s) $(uname -m)"
[ "$platform" = "Linux x86_64" ] ||
    lacking "there are no rclpy wheels for $platform: use a distribution's ROS 2 or RoboStack (docs/ros.md)"
for tool in cmake make c++; do
    command -v "$tool" >/dev/null 2>&1 ||
        lacking "$tool was not found: install it (Debian, Ubuntu: apt install cmake make g++)"
done
[ -x "$venv/bin/python" ] ||
    lacking "$venv is no virtual environment: run make setup, or name one: sh scripts/build_messages.sh VENV"
venv=$(cd "$venv" && pwd)
python="$venv/bin/python"
headers=$("$python" -c 'import sysconfig; print(sysconfig.get_paths()["include"])')
[ -f "$headers/Python.h" ] || lacking "Python.h is not in $headers: install it (Debian, Ubuntu: apt install python3-dev)"
"$python" -c 'import importlib.metadata as m; m.distribution("densematch")' 2>/dev/null ||
    lacking "densematch is not installed in $venv: $venv/bin/pip install -c constraints.txt -e ."
rm -f "$venv/.messages"

build=$(mktemp -d)
trap 'rm -rf "$build"' EXIT
# densematch itself is installed already, so this adds what its extra names. The constraints keep what is there.
if ! "$python" -m pip install -c "$source/constraints.txt" "densematch[ros]" >"$build/log" 2>&1; then
    grep -i '^error' "$build/log" >&2 || tail -n 5 "$build/log" >&2
    lacking "the rclpy wheels could not be installed: $venv/bin/pip install \"densematch[ros]\" says why"
fi

# The CMake targets in the wheels name the Python and NumPy headers of the machine that built them.
"$python" - "$venv" <<'PYTHON'
import re, sys, sysconfig
from pathlib import Path
import numpy

replacements = [
    (re.compile(r"/opt/python/[^/;\"]+/lib/python3\.\d+/site-packages/numpy/_?core/include"), numpy.get_include()),
    (re.compile(r"/opt/python/[^/;\"]+/include/python3\.\d+"), sysconfig.get_paths()["include"]),
]
for path in Path(sys.argv[1], "share").glob("*/cmake/*.cmake"):
    text = new = path.read_text()
    for pattern, value in replacements:
        new = pattern.sub(lambda _: value, new)
    if new != text:
        path.write_text(new)
PYTHON

export PATH="$venv/bin:$PATH"

# Configures, builds and installs an ament package: its source folder, its build folder, more definitions for CMake.
build_package() {
    package=$1
    folder=$2
    shift 2
    cmake -S "$package" -B "$folder" -DCMAKE_BUILD_TYPE=Release -DBUILD_TESTING=OFF -DCMAKE_PREFIX_PATH="$venv" \
        -DCMAKE_INSTALL_PREFIX="$venv" -DPython3_EXECUTABLE="$python" "$@" >"$build/log" 2>&1 &&
        cmake --build "$folder" --parallel 2 >>"$build/log" 2>&1 &&
        cmake --install "$folder" >>"$build/log" 2>&1 || {
        tail -n 40 "$build/log" >&2
        exit 1
    }
}

# a build that was cut short leaves a module that imports and a type that nothing can be sent with
if ! "$python" -c '
from tf2_msgs.msg import TFMessage
TFMessage.__class__.__import_type_support__()
assert TFMessage.__class__._TYPE_SUPPORT is not None' 2>/dev/null; then
    mkdir -p "$build/tf2_msgs/msg"
    echo "geometry_msgs/TransformStamped[] transforms" >"$build/tf2_msgs/msg/TFMessage.msg"
    cat >"$build/tf2_msgs/package.xml" <<'XML'
<package format="3">
  <name>tf2_msgs</name>
  <version>0.0.0</version>
  <description>TFMessage only, for environments of rclpy wheels.</description>
  <maintainer email="none@example.org">densematch</maintainer>
  <license>Apache-2.0</license>
  <buildtool_depend>ament_cmake</buildtool_depend>
  <build_depend>rosidl_default_generators</build_depend>
  <depend>geometry_msgs</depend>
  <member_of_group>rosidl_interface_packages</member_of_group>
</package>
XML
    cat >"$build/tf2_msgs/CMakeLists.txt" <<'CMAKE'
cmake_minimum_required(VERSION 3.16)
project(tf2_msgs)
find_package(ament_cmake REQUIRED)
find_package(geometry_msgs REQUIRED)
find_package(rosidl_default_generators REQUIRED)
rosidl_generate_interfaces(${PROJECT_NAME} msg/TFMessage.msg DEPENDENCIES geometry_msgs)
ament_package()
CMAKE
    build_package "$build/tf2_msgs" "$build/tf2_msgs/build"
fi
build_package "$source" "$build/densematch" -DDENSEMATCH_INSTALL_MODULE=OFF
"$python" -c "
from densematch import msg, srv
names = [n for m in (msg, srv) for n in sorted(dir(m)) if n[0].isupper() and not n.endswith(('_Event', '_Request', '_Response'))]
print('built:', ', '.join(names))"
touch "$venv/.messages"
