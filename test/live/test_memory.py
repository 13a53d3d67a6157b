"""What a process has freed goes back to the system."""

from __future__ import annotations

import platform
from pathlib import Path

import numpy as np
import pytest

from ros2_densematch.live.memory import HeapKeeper, gpu_memory, resident_bytes, return_free_memory


def resident_mb() -> float:
    line = next(v for v in Path("/proc/self/status").read_text().splitlines() if v.startswith("VmRSS:"))
    return int(line.split()[1]) / 1024


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc keeps what is freed, and can give it back")
def test_holes_between_arrays_are_given_back() -> None:
    """Arrays too small to be mapped on their own; every second one is freed, so that the heap cannot shrink."""
    kept = [np.ones(12_000) for _ in range(2000)]
    before = resident_mb()
    for i in range(0, len(kept), 2):
        kept[i] = np.ones(1)
    holes = resident_mb()
    assert return_free_memory()
    assert resident_mb() < holes - 30.0
    assert resident_mb() < before - 60.0
    assert len(kept) == 2000


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc keeps what is freed, and can give it back")
def test_a_process_that_has_not_grown_is_left_alone_and_one_that_has_is_tidied() -> None:
    heap = HeapKeeper(growth_bytes=64 * 1024 * 1024)
    heap.tidy()
    assert not heap.tidy()
    kept = [np.ones(12_000) for _ in range(2000)]  # 192 MB
    for i in range(0, len(kept), 2):
        kept[i] = np.ones(1)
    before = resident_bytes()
    assert heap.tidy()
    assert resident_bytes() < before - 30e6
    assert not heap.tidy()
    assert resident_bytes() == pytest.approx(resident_mb() * 1024 * 1024, rel=0.02)


def test_without_a_gpu_none_of_its_memory_is_held() -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("a GPU is here")
    assert gpu_memory() == 0
