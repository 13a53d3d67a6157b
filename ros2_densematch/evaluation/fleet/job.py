"""One recording: replayed in a process of its own, within limits of time and memory, with an outcome whatever happens.

```
DIR/recordings/NAME/                what `densematch replay` writes; in its place only when the replay has ended
DIR/recordings/NAME.part/           while it runs; replay.log holds its output
DIR/outcomes/NAME.json              how it ended
DIR/running/NAME.json               processes of a recording that is being replayed
```
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from ros2_densematch.evaluation.fleet.recordings import Recording
from ros2_densematch.files.atomic import write_text
from ros2_densematch.files.results_folder import remove

_POLL_S = 0.2
_GRACE_S = 10.0  # a replay that is asked to end writes what it has


@dataclass(frozen=True)
class Limits:
    """Per recording: seconds of time and MiB of memory; None is no limit."""

    seconds: float | None = None
    memory_mb: float | None = None


@dataclass(frozen=True)
class RecordingOutcome:
    """How a recording ended.

    Attributes:
        name: of the recording.
        done: whether the replay went through.
        reason: why not, in words that do not depend on the run; "" when it did.
        seconds: it took.
        peak_memory_mb: resident memory of its process at most, or None where the system does not tell.
        recording: size and time of the recording, by which another one of the same name is told; "" where not known.
    """

    name: str
    done: bool
    reason: str = ""
    seconds: float = 0.0
    peak_memory_mb: float | None = None
    recording: str = ""


def run_recording(recording: Recording, out: Path, arguments: list[str], limits: Limits) -> RecordingOutcome:
    """Replays one recording and stores how it ended; a result that an earlier attempt left half done is begun again.

    Args:
        recording: what to replay.
        out: folder of the batch.
        arguments: options of `densematch replay`.
        limits: of this recording.
    """
    part = out / "recordings" / f"{recording.name}.part"
    final = out / "recordings" / recording.name
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    state = recording.state()
    command = [sys.executable, "-m", "ros2_densematch", "replay", str(recording.path), "--out", str(part), *arguments]
    running = out / "running" / f"{recording.name}.json"
    running.parent.mkdir(parents=True, exist_ok=True)
    log = part / "replay.log"
    begin = time.monotonic()
    try:
        with log.open("wb") as stream:
            process = subprocess.Popen(command, stdout=stream, stderr=subprocess.STDOUT, preexec_fn=_die_with_parent)
            write_text(running, json.dumps({"worker": os.getpid(), "replay": process.pid}))
            why, peak = _watch(process, limits, begin)
        outcome = _outcome(recording.name, process.returncode, why, log, part)
        outcome = replace(outcome, seconds=time.monotonic() - begin, peak_memory_mb=peak, recording=state)
        shutil.rmtree(final, ignore_errors=True)
        part.rename(final)
        write_outcome(out, outcome)
        return outcome
    finally:
        running.unlink(missing_ok=True)


def _die_with_parent() -> None:
    """In the child: the kernel ends it when its parent, a worker, is killed (Linux; prctl(2), PR_SET_PDEATHSIG = 1)."""
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(1, signal.SIGKILL)


def _watch(process: subprocess.Popen[bytes], limits: Limits, begin: float) -> tuple[str, float | None]:
    """Waits for the end; why it was ended from here ("" when it ended by itself), and its peak memory in MiB."""
    peak: float | None = None
    try:
        while process.poll() is None:
            found = _resident_mb(process.pid)
            peak = found if peak is None else max(peak, found or 0.0)
            why = ""
            if limits.seconds is not None and time.monotonic() - begin > limits.seconds:
                why = f"took longer than the limit of {limits.seconds:g} s"
            elif limits.memory_mb is not None and found is not None and found > limits.memory_mb:
                why = f"took more memory than the limit of {limits.memory_mb:g} MiB"
            if why:
                _end(process)
                return why, peak
            time.sleep(_POLL_S)
    except BaseException:
        process.kill()
        process.wait()
        raise
    return "", peak


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(_GRACE_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _resident_mb(pid: int) -> float | None:
    with contextlib.suppress(OSError, AttributeError):
        text = Path(f"/proc/{pid}/status").read_text("ascii", errors="replace")
        found = re.search(r"VmHWM:\s+(\d+) kB", text)
        return int(found[1]) / 1024 if found else None
    return None


def _outcome(name: str, code: int, why: str, log: Path, part: Path) -> RecordingOutcome:
    if why:
        return RecordingOutcome(name, False, why)
    if code == 0 and (part / "summary.json").is_file():
        return RecordingOutcome(name, True)
    lines = log.read_text("utf-8", errors="replace").splitlines()
    said = [line.partition("error: ")[2] for line in lines if line.startswith("densematch: ") and "error: " in line]
    reason = said[-1] if said else f"the replay ended with exit code {code}"
    return RecordingOutcome(name, False, reason.replace(str(part), "OUT"))


def write_outcome(out: Path, outcome: RecordingOutcome) -> None:
    """Stores how a recording ended, in one step."""
    file = out / "outcomes" / f"{outcome.name}.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    write_text(file, json.dumps(asdict(outcome), indent=1) + "\n")


def read_outcome(out: Path, recording: Recording) -> RecordingOutcome | None:
    """How a recording ended in an earlier run; None where it did not, where that was another recording of the name, or
    where the file is damaged."""
    name = recording.name
    try:
        content: dict[str, Any] = json.loads((out / "outcomes" / f"{name}.json").read_text("utf-8"))
        outcome = RecordingOutcome(**content)
    except (OSError, ValueError, TypeError):
        return None
    if outcome.recording and outcome.recording != recording.state():
        return None
    whole = (out / "recordings" / name / "summary.json").is_file()
    return outcome if whole or not outcome.done else None


def known_names(out: Path) -> set[str]:
    """Recordings of which the folder of a batch holds something."""
    begun = {folder.name.removesuffix(".part") for folder in (out / "recordings").glob("*.part")}
    return begun | {file.stem for folder in ("outcomes", "running") for file in (out / folder).glob("*.json")}


def forget(out: Path, name: str) -> None:
    """Removes all that the folder of a batch holds of a recording; how it ended is removed last."""
    for folder in (out / "recordings" / f"{name}.part", out / "recordings" / name):
        remove(folder)
    for file in (out / "running" / f"{name}.json", out / "outcomes" / f"{name}.json"):
        remove(file)
