"""Memory of the process: what a GPU holds, and giving back what is free."""

from __future__ import annotations

import ctypes
import sys


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


def return_free_memory() -> bool:
    """Gives memory that the process has freed back to the system; False where the C library cannot (only glibc can).

    Images of ever new sizes (warped, turned) leave holes that glibc keeps: a node would seem to grow for an hour.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    return trim is not None and bool(trim(0))
