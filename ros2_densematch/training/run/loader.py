"""Which samples a step uses, and a loader whose position is part of the checkpoint."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch.utils.data import DataLoader, Sampler

from ros2_densematch.training.data.sample import Sample


@dataclass(frozen=True)
class Batches:
    """How the pairs of a step are shared out.

    Attributes:
        pairs: pairs of a step, in all processes together.
        parts: gradient accumulation: in so many parts, one after the other.
        rank, world: number of this process, and how many there are.

    Raises:
        ValueError: the pairs cannot be shared out evenly.
    """

    pairs: int
    parts: int = 1
    rank: int = 0
    world: int = 1

    def __post_init__(self) -> None:
        if self.pairs % (self.parts * self.world):
            raise ValueError(
                f"batch_pairs is {self.pairs}: it must be a multiple of accumulate ({self.parts}) times the number of "
                f"processes ({self.world})"
            )

    @property
    def batch(self) -> int:
        """Pairs in memory at once."""
        return self.pairs // (self.parts * self.world)

    def samples(self, step: int) -> list[int]:
        """Numbers of the samples that this process uses in a step, part by part.

        All processes and parts together use step * pairs ... (step + 1) * pairs - 1, however they are shared out.
        """
        first, size = step * self.pairs, self.batch
        starts = (first + (part * self.world + self.rank) * size for part in range(self.parts))
        return [number for start in starts for number in range(start, start + size)]


class StepSampler(Sampler[int]):
    """Sample numbers in order, from the first step that no earlier run has done."""

    def __init__(self, batches: Batches, first_step: int, steps: int) -> None:
        self.batches, self.first_step, self.steps = batches, first_step, steps

    def __iter__(self) -> Iterator[int]:
        for step in range(self.first_step, self.steps):
            yield from self.batches.samples(step)

    def __len__(self) -> int:
        # the whole stage: Lightning counts batches of earlier runs as done
        return self.steps * self.batches.parts * self.batches.batch


class ResumableLoader(DataLoader[Sample]):
    """A DataLoader whose position is part of the checkpoint."""

    def __init__(self, dataset: torch.utils.data.Dataset[Sample], sampler: StepSampler, workers: int) -> None:
        # A generator of its own: starting the loader must not draw from the one that training draws from.
        super().__init__(
            dataset,
            batch_size=sampler.batches.batch,
            sampler=sampler,
            num_workers=workers,
            generator=torch.Generator(),
            persistent_workers=workers > 0,
            worker_init_fn=_start_worker,
        )
        self._pairs = sampler.batches.pairs
        self.steps_done = sampler.first_step

    def state_dict(self) -> dict[str, int]:
        return {"next_sample": self.steps_done * self._pairs}

    def load_state_dict(self, state: dict[str, int]) -> None:
        if state["next_sample"] != self.steps_done * self._pairs:
            raise ValueError(f"checkpoint is at sample {state['next_sample']}, not {self.steps_done * self._pairs}")


def _start_worker(_: int) -> None:
    """Ctrl-C reaches the whole process group: a worker must live on until the training process has saved."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
