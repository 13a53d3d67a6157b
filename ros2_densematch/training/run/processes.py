"""The processes of a run: one, or several that torchrun started and that train one model together (DDP)."""

from __future__ import annotations

import os
from dataclasses import dataclass
from datetime import timedelta
from types import TracebackType
from typing import Any

import torch
from torch import distributed

# Rendering scenes or matching frames happens in the first process alone; the others wait that long for it.
_TIMEOUT = timedelta(hours=24)


@dataclass(frozen=True)
class Processes:
    """This process among those of the run, as torchrun's environment says.

    Attributes:
        rank: number of this process, 0 is the one that writes files.
        world: how many there are.
        local: how many of them run on this machine.
        local_rank: number of this process on this machine.
    """

    rank: int = 0
    world: int = 1
    local: int = 1
    local_rank: int = 0

    @staticmethod
    def from_environment() -> Processes:
        """Raises ValueError: torchrun's variables do not fit each other."""
        names = ("RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "LOCAL_RANK")
        if "TORCHELASTIC_RUN_ID" not in os.environ or any(name not in os.environ for name in names):
            return Processes()
        rank, world, local, local_rank = (int(os.environ[name]) for name in names)
        if not 0 <= rank < world or world % local:
            raise ValueError(f"process {rank} of {world}, {local} on this machine: start the run with torchrun")
        return Processes(rank, world, local, local_rank)

    @property
    def primary(self) -> bool:
        """Whether this process writes the files."""
        return self.rank == 0

    def __enter__(self) -> Processes:
        """Joins the processes, before anything is read or written."""
        if self.world > 1 and not distributed.is_initialized():
            backend = "nccl" if torch.cuda.is_available() else "gloo"
            if backend == "nccl":
                torch.cuda.set_device(self.local_rank)
            distributed.init_process_group(backend, timeout=_TIMEOUT)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # After an error the others may wait for this process: it must not wait for them.
        if kind is None and self.world > 1 and distributed.is_initialized():
            distributed.destroy_process_group()

    def wait(self) -> None:
        """Goes on when all processes have come here."""
        if self.world > 1:
            distributed.barrier()

    def any(self, here: bool) -> bool:
        """Whether it holds in any process; all must ask."""
        if self.world == 1:
            return here
        device = "cuda" if distributed.get_backend() == "nccl" else "cpu"
        flag = torch.tensor(int(here), device=device)
        distributed.all_reduce(flag, distributed.ReduceOp.MAX)
        return bool(flag.item())

    def gathered(self, value: Any) -> list[Any]:
        """The values of all processes, in order; all must ask."""
        if self.world == 1:
            return [value]
        values: list[Any] = [None] * self.world
        distributed.all_gather_object(values, value)
        return values
