"""Independent pieces of tensor work, shared between threads."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest
import torch

from ros2_densematch.matchers.common.patch_alignment import refine
from ros2_densematch.nn.side_by_side import side_by_side


@pytest.fixture(params=[1, 2, 3])
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


def test_results_come_in_the_order_of_the_pieces(threads: int) -> None:
    assert side_by_side(lambda piece: piece * 2, list(range(20))) == list(range(0, 40, 2))


def test_each_piece_is_done_by_one_thread_of_torch(threads: int) -> None:
    used = side_by_side(lambda _: (threading.get_ident(), torch.get_num_threads()), list(range(20)))
    assert {count for _, count in used} == {1}
    assert len({ident for ident, _ in used}) <= threads


def test_the_callers_threads_stay_as_they_were(threads: int) -> None:
    side_by_side(lambda piece: piece, [1, 2, 3])
    found: list[int] = []
    later = threading.Thread(target=lambda: found.append(torch.get_num_threads()))
    later.start()
    later.join()
    assert torch.get_num_threads() == threads
    assert found == [threads]


@pytest.mark.parametrize("inference", [True, False])
def test_inference_mode_holds_in_the_pieces(threads: int, inference: bool) -> None:
    with torch.inference_mode(inference):
        assert set(side_by_side(lambda _: torch.is_inference_mode_enabled(), [1, 2])) == {inference}


def test_an_error_in_a_piece_reaches_the_caller(threads: int) -> None:
    def fail(piece: int) -> int:
        raise ValueError(f"piece {piece}")

    with pytest.raises(ValueError, match="piece 7"):
        side_by_side(fail, [7, 7])


@torch.inference_mode()
def test_an_alignment_is_the_same_to_the_bit_with_any_number_of_threads(threads: int) -> None:
    rng = torch.Generator().manual_seed(3)
    image = torch.nn.functional.avg_pool2d(torch.rand((1, 1, 120, 160), generator=rng), 5, 1, 2)[0, 0]
    at = torch.rand((1500, 2), generator=rng) * torch.tensor([130.0, 90.0]) + 15.0
    linear = torch.eye(2).repeat(1500, 1, 1)
    start = at + torch.rand((1500, 2), generator=rng) - 0.5
    shared = refine(image, image, at, start, linear)
    torch.set_num_threads(1)
    alone = refine(image, image, at, start, linear)
    for first, second in zip(shared, alone, strict=True):
        assert torch.equal(first, second)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_forked_process_has_workers_of_its_own() -> None:
    code = """
import os, signal, torch
from ros2_densematch.nn.side_by_side import side_by_side
torch.set_num_threads(2)
side_by_side(lambda piece: piece, [1, 2])
child = os.fork()
if child == 0:
    signal.alarm(20)
    os._exit(0 if side_by_side(lambda piece: piece + 1, [1, 2]) == [2, 3] else 1)
raise SystemExit(os.waitpid(child, 0)[1])
"""
    assert subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=False, timeout=60).returncode == 0
