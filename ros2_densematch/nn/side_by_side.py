"""Independent pieces of tensor work on the CPU, each done by one thread.

torch shares every operator between its threads. Where a step is made of many small operators, waking the threads for
each of them takes longer than the work. Here the pieces are shared instead.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from threading import Barrier, Lock
from typing import TypeVar

import torch

Piece = TypeVar("Piece")
Result = TypeVar("Result")

_making = Lock()


def side_by_side(work: Callable[[Piece], Result], pieces: Sequence[Piece]) -> list[Result]:
    """`work` of each piece, in order; results do not depend on the number of threads.

    As many threads as torch may use share the pieces. The caller's inference mode holds in each of them.
    """
    threads = min(torch.get_num_threads(), len(pieces))
    if threads <= 1:
        return [work(piece) for piece in pieces]
    inference = torch.is_inference_mode_enabled()

    def done(piece: Piece) -> Result:
        with torch.inference_mode(inference):
            return work(piece)

    with _making:
        pool = _workers(torch.get_num_threads())
    return list(pool.map(done, pieces))


@lru_cache(maxsize=1)
def _workers(count: int) -> ThreadPoolExecutor:
    """Threads whose operators use no further threads."""
    ready = Barrier(count + 1)

    def alone() -> None:
        torch.get_num_threads()  # torch would otherwise ask for its threads again at the first operator
        torch.set_num_threads(1)
        ready.wait()

    pool = ThreadPoolExecutor(count, thread_name_prefix="densematch-side", initializer=alone)
    for _ in range(count):
        pool.submit(int)  # a thread starts when there is work for it
    ready.wait()
    torch.set_num_threads(count)  # what the workers asked for is also the default of threads that start later
    return pool


if hasattr(os, "register_at_fork"):
    # threads do not survive a fork: a child process starts its own
    os.register_at_fork(after_in_child=_workers.cache_clear)
