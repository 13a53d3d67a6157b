"""Learning rate schedules."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch


def scheduled(optimizer: torch.optim.Optimizer, factor: Any) -> dict[str, Any]:
    """An optimiser with `factor(step)` on its learning rates, as Lightning takes it."""
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
    return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


class CosineDecay:
    """A linear warm-up, then half a cosine down to a hundredth."""

    def __init__(self, total: int, warmup: int = 0) -> None:
        self._total, self._warmup = total, warmup

    def __call__(self, step: int) -> float:
        if step < self._warmup:
            return (step + 1) / self._warmup
        progress = (step - self._warmup) / max(1, self._total - self._warmup)
        return max(0.01, 0.5 * (1 + math.cos(math.pi * min(1.0, progress))))


class Milestones:
    """Times `gamma` at each of the given shares of the training."""

    def __init__(self, total: int, shares: Sequence[float], gamma: float) -> None:
        self._steps, self._gamma = [share * total for share in shares], gamma

    def __call__(self, step: int) -> float:
        return float(self._gamma ** sum(step >= milestone for milestone in self._steps))
