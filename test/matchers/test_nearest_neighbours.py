"""Block-wise mutual nearest neighbours are the full matrix's, and stay below the stated memory."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch
from torch.nn import functional

from ros2_densematch.matchers.common import nearest_neighbours as nn
from ros2_densematch.matchers.common.nearest_neighbours import (
    BLOCK_BYTES,
    BYTES_PER_DESCRIPTOR,
    mutual_nearest_neighbours,
    nearest_neighbours,
)


def unit(count: int, channels: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return functional.normalize(torch.randn(count, channels, generator=generator), dim=1)


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nn, "BLOCK_ROWS", 64)
    monkeypatch.setattr(nn, "BLOCK_COLUMNS", 96)


@pytest.mark.parametrize(("first", "second"), [(64, 96), (65, 97), (500, 333), (1, 400), (400, 1), (2, 2), (1, 1)])
def test_blocks_give_what_the_full_matrix_gives(small_blocks: None, first: int, second: int) -> None:
    # small integers: every sum is exact, in whatever order it is taken, and there are many equal ones
    generator = torch.Generator().manual_seed(first)
    a, b = (torch.randint(-2, 3, (n, 8), generator=generator).float() for n in (first, second))
    full = a @ b.T
    found = nearest_neighbours(a, b)
    for dim, best, second_best, index in (
        (1, found.row_best, found.row_second, found.row_index),
        (0, found.column_best, found.column_second, found.column_index),
    ):
        assert torch.equal(best, full.amax(dim))
        lowest = torch.from_numpy(np.argmax(full.numpy(), axis=dim))
        assert torch.equal(index, lowest), "among equals the lower index"
        if full.shape[dim] > 1:
            assert torch.equal(second_best, full.topk(2, dim).values.select(dim, 1))
        else:
            assert torch.isinf(second_best).all()
    rows, columns = np.argmax(full.numpy(), 1), np.argmax(full.numpy(), 0)
    mutual = [(i, int(j)) for i, j in enumerate(rows) if columns[j] == i]
    pairs = mutual_nearest_neighbours(a, b)
    assert list(zip(pairs.first.tolist(), pairs.second.tolist(), strict=True)) == mutual


def test_without_the_second_best_the_pairs_are_the_same(small_blocks: None) -> None:
    a, b = unit(300, 16, 0), unit(280, 16, 1)
    with_second, without = nearest_neighbours(a, b), nearest_neighbours(a, b, second_best=False)
    for name in ("row_best", "row_index", "column_best", "column_index"):
        assert torch.equal(getattr(with_second, name), getattr(without, name))


def test_nothing_has_no_neighbours() -> None:
    for a, b in ((torch.zeros(0, 8), unit(5, 8, 0)), (unit(5, 8, 0), torch.zeros(0, 8))):
        assert len(mutual_nearest_neighbours(a, b).first) == 0


_TWENTY_THOUSAND = """
import ctypes, pathlib, torch
from torch.nn import functional
from ros2_densematch.matchers.common.nearest_neighbours import BLOCK_BYTES, BYTES_PER_DESCRIPTOR
from ros2_densematch.matchers.common.nearest_neighbours import mutual_nearest_neighbours

def resident(field):
    return int(pathlib.Path("/proc/self/status").read_text().split(field + ":")[1].split()[0]) * 1024

torch.set_num_threads(1)
generator = torch.Generator().manual_seed(0)
a = functional.normalize(torch.randn(20000, 128, generator=generator), dim=1)
order = torch.randperm(20000, generator=generator)
b = functional.normalize(a[order] + 0.02 * torch.randn(20000, 128, generator=generator), dim=1)
mutual_nearest_neighbours(a[:100], b[:100])  # what the libraries take for themselves
ctypes.CDLL(None).malloc_trim(0)  # freed memory that could be used again would not be counted
pathlib.Path("/proc/self/clear_refs").write_text("5")  # the peak restarts
before = resident("VmRSS")
found = mutual_nearest_neighbours(a, b)
taken = resident("VmHWM") - before
print(taken)
result = sum(x.numel() * x.element_size() for x in found)
assert 4e6 < taken <= BLOCK_BYTES + BYTES_PER_DESCRIPTOR * 40000 + result, taken
assert torch.equal(order[found.second], found.first) and len(found.first) > 19900
# the full matrix, a stripe of all columns at a time: it would need 1.6 GB at once
rows, top, where = [], torch.full((20000,), -2.0), torch.zeros(20000, dtype=torch.long)
for i in range(0, 20000, 500):
    stripe = a[i : i + 500] @ b.T
    rows.append(stripe.argmax(1))
    best, index = stripe.max(0)
    where = torch.where(best > top, index + i, where)
    top = torch.maximum(top, best)
rows = torch.cat(rows)
mutual = (where[rows] == torch.arange(20000)).nonzero()[:, 0]
assert torch.equal(found.first, mutual) and torch.equal(found.second, rows[mutual])
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_twenty_thousand_descriptors_stay_below_the_bound() -> None:
    # a process of its own: the largest memory of this one says nothing any more
    run = subprocess.run([sys.executable, "-c", _TWENTY_THOUSAND], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    assert BLOCK_BYTES + BYTES_PER_DESCRIPTOR * 40000 < 40e6 < 20000**2 * 4
