"""Exit codes: 0 done, 2 bad input (one line on stderr), 3 nothing found (if asked), 1 our fault (a short trace)."""

from __future__ import annotations

import errno
import os
import sys
import traceback
from collections.abc import Callable
from typing import Any

DONE, OUR_FAULT, BAD_INPUT, EMPTY, INTERRUPTED = 0, 1, 2, 3, 130

# What the file system says about a path that the user named, or about the user's disk; other OSErrors (I/O errors) are
# not bad input.
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)
_PATH_ERRORS = (FileNotFoundError, NotADirectoryError, IsADirectoryError, FileExistsError, PermissionError)


# Modules whose package has another name, and those that come with ROS only.
_DISTRIBUTIONS = {
    "PIL": "pillow",
    "cv2": "opencv-python-headless",
    "foxglove": "foxglove-sdk",
    "rerun": "rerun-sdk",
    "yaml": "pyyaml",
}
# Modules of the extra `onnx`, which come together.
_ONNX = ("onnx", "onnxruntime", "onnxscript")
_ROS = ("rclpy", "rcl_interfaces", "lifecycle_msgs", "ament_index_python", "launch", "launch_ros", "rosidl_runtime_py")
_ROS_PACKAGES = ("cv_bridge", "tf_transformations", "tf2_ros", "tf2_msgs", "diagnostic_msgs", "nav_msgs", "std_srvs")


class InputError(ValueError):
    """The input cannot be used; the message is one line that names the thing, the value and the remedy."""


def is_full(error: BaseException) -> bool:
    """Whether the user's disk is full (or a quota, or the largest size of a file is reached)."""
    return isinstance(error, OSError) and error.errno in _FULL


def one_line(error: BaseException) -> str:
    """The message of an error on one line; its type when it has no message."""
    if is_full(error):
        assert isinstance(error, OSError)
        where = error.filename or "the results"
        return f"{where} cannot be written ({error.strerror}): free some space, or name another folder with --out"
    if isinstance(error, OSError) and error.strerror and error.filename:
        return f"{error.filename}: {error.strerror}"
    return " ".join(str(error).split()) or type(error).__name__


def missing(module: str) -> str:
    """One line for a module that cannot be imported: what is missing, and the command that gets it."""
    top = module.partition(".")[0]
    if top == "densematch":
        return (
            "the ROS messages (densematch.msg) are not built: make messages, or colcon build and source its setup.bash"
        )
    if top in _ROS:
        return f'this needs ROS 2 ({top} is missing): source its setup.bash, or pip install ".[ros]" in a clone'
    if top in _ROS_PACKAGES:
        package = top.replace("_", "-")
        return f"this needs the ROS package {top}: apt install ros-{os.environ.get('ROS_DISTRO', 'jazzy')}-{package}"
    name = _DISTRIBUTIONS.get(top, top)
    # Beside a distribution's ROS the newest NumPy and OpenCV break its cv_bridge.
    constraints = " -c constraints-ros.txt" if os.environ.get("ROS_DISTRO") else ""
    if top in _ONNX:
        command = f"{sys.executable} -m pip install{constraints} {' '.join(_ONNX)}"
        return f'this needs the Python package {top!r}: {command} (in a clone: pip install ".[onnx]")'
    return f"this needs the Python package {name!r}: {sys.executable} -m pip install{constraints} {name}"


def exit_code_of(function: Callable[[], int | None]) -> int:
    """Runs a command and turns whatever it raises into an exit code and a message on stderr.

    Args:
        function: the command; an int that it returns is the exit code, None means done.

    Returns:
        0 done, 2 bad input or a package that is not installed, 1 our fault, 130 interrupted.
    """
    try:
        return function() or DONE
    except KeyboardInterrupt:
        print("densematch: interrupted", file=sys.stderr)
        return INTERRUPTED
    except (ValueError, *_PATH_ERRORS) as error:
        print(f"densematch: error: {one_line(error)}", file=sys.stderr)
        return BAD_INPUT
    except ModuleNotFoundError as error:
        if error.name and error.name.startswith("ros2_densematch"):
            return _our_fault(error)
        print(f"densematch: error: {missing(error.name or str(error))}", file=sys.stderr)
        return BAD_INPUT
    except OSError as error:
        if not is_full(error):
            return _our_fault(error)
        print(f"densematch: error: {one_line(error)}", file=sys.stderr)
        return BAD_INPUT
    except Exception as error:  # noqa: BLE001  (the outermost frame: everything unexpected becomes exit code 1)
        usage = getattr(error, "format_message", None)  # a wrong option or argument, found by the command line parser
        if usage is not None:
            text = " ".join(usage().split()).rstrip(".") or _missing_word(error)
            print(f"densematch: error: {text} (see --help)", file=sys.stderr)
            return BAD_INPUT
        return _our_fault(error)


def _missing_word(error: Any) -> str:
    """What a group of commands that was named alone needs."""
    context = getattr(error, "ctx", None)
    if context is None:
        return type(error).__name__
    return f"{context.command_path} needs one of {', '.join(context.command.list_commands(context))}"


def _our_fault(error: BaseException) -> int:
    print(f"densematch: internal error: {type(error).__name__}: {one_line(error)}", file=sys.stderr)
    for frame in traceback.extract_tb(error.__traceback__)[-4:]:
        print(f"  {frame.filename}:{frame.lineno} in {frame.name}: {frame.line}", file=sys.stderr)
    print("This is a bug in densematch: please report it with the command and the lines above.", file=sys.stderr)
    return OUR_FAULT
