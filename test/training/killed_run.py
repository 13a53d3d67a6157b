"""Trains in children that kill themselves, for test_train_killed.py: killed_run.py DATA OUT POINT...

A POINT is `step:N` (in step N), `before:N` or `after:N` (the N-th time that a file takes its place). Each one has a
folder of that name below OUT, where the same training is then done to its end; `straight` is one that was never killed.
A line `POINT killed` or `POINT finished` says for each how its first training ended.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict

from ros2_densematch.training.recipe import Recipe
from ros2_densematch.training.run.trainer import train
from ros2_densematch.training.stages import registry as stages
from ros2_densematch.training.stages.base import Stage


class TinyConfig(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")
    rate: float = 1e-2
    max_steps: int = 4


class Tiny(Stage):
    """Draws random numbers and has momentum: both must be resumed."""

    on_step: Callable[[int], None] = staticmethod(lambda step: None)

    def __init__(self, config: TinyConfig) -> None:
        super().__init__()
        self.config = config
        self.network = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3, stride=4), torch.nn.Dropout(0.3))

    def export_state(self) -> dict[str, torch.Tensor]:
        return {f"tiny.{k}": v for k, v in self.network.state_dict().items()}

    def training_step(self, batch: dict[str, Any], index: int) -> torch.Tensor:
        Tiny.on_step(self.global_step)
        first, second = self.network(batch["image0"]), self.network(batch["image1"])
        return (first - second).square().mean() + (first.std() - 1).square()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.network.parameters(), lr=self.config.rate)


RECIPE = {
    "name": "tiny",
    "matcher": "gcm",
    "checkpoint_every": 2,
    "data": {"size": 64, "max_points": 32, "batch_pairs": 2, "sources": [{"kind": "photos", "weight": 1}]},
    "stages": [{"stage": "tiny", "max_steps": 4}],
}


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def arm(point: str) -> None:
    """This process kills itself at the point."""
    kind, _, number = point.partition(":")
    if kind == "step":
        Tiny.on_step = staticmethod(lambda step: die() if step == int(number) else None)
        return
    replace, calls = os.replace, iter(range(1_000_000))

    def dying(source: Any, target: Any) -> None:
        here = next(calls) == int(number)
        if here and kind == "before":
            die()
        replace(source, target)
        if here:
            die()

    os.replace = dying


def run(data: Path, out: Path, point: str = "") -> bool:
    """Trains in a child; whether it ended by itself."""
    child = os.fork()
    if child == 0:
        log = os.open(out.with_suffix(".log"), os.O_CREAT | os.O_WRONLY | os.O_APPEND)
        os.dup2(log, 1)
        os.dup2(log, 2)
        if point:
            arm(point)
        try:
            train(Recipe.model_validate(RECIPE), out, data)
        except BaseException:  # noqa: BLE001 - nothing may return from here
            sys.excepthook(*sys.exc_info())
            os._exit(1)
        os._exit(0)
    status = os.waitpid(child, 0)[1]
    if os.WIFSIGNALED(status):
        return False
    assert os.WEXITSTATUS(status) == 0, out.with_suffix(".log").read_text()[-2000:]
    return True


def main() -> None:
    data, out, *points = sys.argv[1:]
    module = ModuleType("tiny_training_stage")
    module.Tiny, module.TinyConfig = Tiny, TinyConfig  # type: ignore[attr-defined]
    sys.modules["tiny_training_stage"] = module
    stages.STAGES["tiny"] = ("tiny_training_stage", "Tiny", "TinyConfig")
    torch.set_num_threads(1)
    assert run(Path(data), Path(out) / "straight")
    for point in points:
        folder = Path(out) / point
        ended = run(Path(data), folder, point)
        print(point, "finished" if ended else "killed", flush=True)
        assert run(Path(data), folder)


if __name__ == "__main__":
    main()
