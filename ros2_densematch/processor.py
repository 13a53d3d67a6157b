"""The processor is shared with a robot's other programs: threads, how they wait, and the priority of this process.

Libraries read their environment when they load, so that `wait_quietly` and `limit_threads` take full effect only before
torch, OpenCV and NumPy are imported.
"""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import MutableMapping

_COUNTS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OPENCV_FOR_THREADS_NUM")
_WAITING, _PASSIVE = "OMP_WAIT_POLICY", "PASSIVE"
_SPINNING = "GOMP_SPINCOUNT"
REMEDY = f"set {_WAITING}={_PASSIVE} before Python starts, as the command densematch does"


def wait_quietly(environment: MutableMapping[str, str] | None = None) -> None:
    """Idle OpenMP threads sleep instead of spinning; the user's own choice stands.

    Threads that spin take the cores that other processes need: beside two busy programs a match takes four to seven
    times its time with them, and about twice without.
    """
    (os.environ if environment is None else environment).setdefault(_WAITING, _PASSIVE)


def waits_quietly() -> bool:
    """Whether the environment asks idle OpenMP threads not to spin."""
    return os.environ.get(_WAITING, "").upper() == _PASSIVE or os.environ.get(_SPINNING) == "0"


def limit_threads(count: int) -> None:
    """torch, OpenCV and BLAS use at most `count` threads each, those that are loaded and those that load later.

    BLAS keeps the number that it was loaded with.

    Raises:
        ValueError: `count` is less than 1.
    """
    if count < 1:
        raise ValueError(f"threads must be at least 1, got {count}")
    os.environ.update(dict.fromkeys(_COUNTS, str(count)))
    torch, cv2 = sys.modules.get("torch"), sys.modules.get("cv2")
    if torch is not None:
        torch.set_num_threads(count)
    if cv2 is not None:
        cv2.setNumThreads(count)


def lower_priority(by: int) -> None:
    """Other processes go first: adds `by` (0 to 19) to the process's nice level.

    Raises:
        ValueError: `by` is out of range.
    """
    if not 0 <= by <= 19:
        raise ValueError(f"nice must lie between 0 and 19, got {by}")
    if by:
        os.nice(by)


def warn_of_spinning() -> None:
    """Warns, once for each place that calls, when torch's threads will spin while they wait."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.get_num_threads() > 1 and not waits_quietly():
        message = f"idle threads of torch spin and take the cores that other programs need: {REMEDY}"
        warnings.warn(message, RuntimeWarning, stacklevel=3)
