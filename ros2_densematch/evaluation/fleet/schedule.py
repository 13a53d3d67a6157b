"""Where recordings are replayed: one after the other here, or side by side on Ray, here or on a cluster.

On Ray a recording is a task: when its worker is killed, the task is begun again on another one. On a cluster all
machines must see the recordings and the results under the same paths, and have densematch installed.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from ros2_densematch.evaluation.fleet.job import Limits, RecordingOutcome, run_recording, write_outcome
from ros2_densematch.evaluation.fleet.recordings import Recording

ATTEMPTS = 4  # of a recording whose worker was lost
_OBJECT_STORE_BYTES = 100 * 2**20  # results are files: hardly anything goes through Ray's memory


def run_serially(
    recordings: Sequence[Recording], out: Path, arguments: list[str], limits: Limits, stop: Callable[[], bool]
) -> Iterator[RecordingOutcome]:
    """One recording after the other in this process."""
    for recording in recordings:
        if stop():
            return
        yield _guarded(recording, out, arguments, limits)


def _guarded(recording: Recording, out: Path, arguments: list[str], limits: Limits) -> RecordingOutcome:
    """A recording that cannot even be begun has an outcome too."""
    try:
        return run_recording(recording, out, arguments, limits)
    except OSError as error:
        outcome = RecordingOutcome(recording.name, False, f"could not be run: {error.strerror or error}")
        write_outcome(out, outcome)
        return outcome


def run_on_ray(
    recordings: Sequence[Recording],
    out: Path,
    arguments: list[str],
    limits: Limits,
    stop: Callable[[], bool],
    *,
    workers: int | None,
    address: str | None,
) -> Iterator[RecordingOutcome]:
    """Outcomes in the order in which recordings end.

    Args:
        recordings, out, arguments, limits, stop: as in `run_serially`.
        workers: recordings side by side on this machine; None: as many as it has cores.
        address: None for this machine alone, else Ray's address of a cluster ("auto" finds it).

    Raises:
        ModuleNotFoundError: Ray is not installed.
        ConnectionError: there is no cluster at the address.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_raylet_start_wait_time_s", "120")  # a busy machine starts it slowly
    import ray

    options: dict[str, Any] = {"log_to_driver": False, "configure_logging": False}
    if address is None:
        options |= {"num_cpus": workers, "include_dashboard": False, "object_store_memory": _OBJECT_STORE_BYTES}
    else:
        options |= {"address": address}
    ray.init(**options)
    try:
        task = ray.remote(num_cpus=1, max_retries=ATTEMPTS - 1)(_guarded)
        names = {task.remote(r, out.resolve(), arguments, limits): r.name for r in recordings}
        waiting = list(names)
        while waiting:
            ready, waiting = ray.wait(waiting, num_returns=1, timeout=0.5)
            for reference in ready:
                yield _result(ray, reference, names[reference], out)
            if stop():
                for reference in waiting:
                    ray.cancel(reference, force=True)
                return
    finally:
        ray.shutdown()


def _result(ray: Any, reference: Any, name: str, out: Path) -> RecordingOutcome:
    try:
        outcome: RecordingOutcome = ray.get(reference)
    except ray.exceptions.RayError as error:
        # its worker was lost every time, or the task itself failed
        outcome = RecordingOutcome(name, False, f"its worker was lost {ATTEMPTS} times ({type(error).__name__})")
        write_outcome(out, outcome)
    return outcome
