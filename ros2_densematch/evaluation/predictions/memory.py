"""The largest memory that a stretch of work took: resident memory of the process and, with CUDA, that of the device."""

from __future__ import annotations

import re
import sys
from contextlib import suppress
from pathlib import Path


class PeakMemory:
    """Measures from its creation on. On Linux the kernel's high-water mark is reset; elsewhere it is that of the
    process since its start."""

    def __init__(self) -> None:
        with suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5")  # resets VmHWM (proc(5))
        torch = sys.modules.get("torch")
        if torch is not None and torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()

    def peak_mb(self) -> float | None:
        """MiB since the creation; None where the system does not tell."""
        resident = _resident_mb()
        torch = sys.modules.get("torch")
        if torch is not None and torch.cuda.is_available():
            return round((resident or 0.0) + float(torch.cuda.max_memory_allocated()) / 2**20, 1)
        return resident


def _resident_mb() -> float | None:
    try:
        found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text("ascii"))
    except OSError:
        found = None
    if found is not None:
        return round(int(found[1]) / 1024, 1)
    try:
        import resource
    except ImportError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak / (2**20 if sys.platform == "darwin" else 1024), 1)
