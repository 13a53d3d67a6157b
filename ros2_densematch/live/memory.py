"""Memory of the process: what a GPU holds, and giving back what is free."""

from __future__ import annotations

import ctypes
import os
import sys
from pathlib import Path

_GROWTH_BYTES = 256 * 1024 * 1024


def empty_gpu_cache() -> None:
    """Gives cached GPU memory back; nothing without a GPU."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        torch.cuda.empty_cache()


def gpu_memory() -> int:
    """GPU memory that this process holds, in bytes; 0 without a GPU."""
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_available():
        return 0
    return int(torch.cuda.memory_reserved())


def resident_bytes() -> int:
    """Memory that this process holds, in bytes; 0 where the system does not say (anything but Linux)."""
    try:
        pages = Path("/proc/self/statm").read_text().split()[1]
    except OSError:
        return 0
    return int(pages) * os.sysconf("SC_PAGE_SIZE")


def return_free_memory() -> bool:
    """Gives memory that the process has freed back to the system; False where the C library cannot (only glibc can)."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    return trim is not None and bool(trim(0))


class HeapKeeper:
    """Keeps what a process holds near what it uses.

    Images of ever new sizes (warped, turned) leave holes that glibc keeps: a node would grow by hundreds of megabytes
    within a minute and be slow to level off. Giving them back takes some 15 ms and makes the next image fault its pages
    in again, so it is done only when the process has grown.

    Args:
        growth_bytes: how far it may grow beyond what it held after the last time.
    """

    def __init__(self, growth_bytes: int = _GROWTH_BYTES) -> None:
        self._growth_bytes = growth_bytes
        self._held = 0

    def tidy(self) -> bool:
        """To be called between two images; whether memory was given back."""
        if resident_bytes() <= self._held + self._growth_bytes:
            return False
        given = return_free_memory()
        self._held = resident_bytes()
        return given
