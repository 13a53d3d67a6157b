"""Run by the tests: trains a small stage on photos, in one process or in two.

`two_processes.py DATA OUT STEPS PARTS NOISY` is one run, to be started by torchrun. `two_processes.py JOBS.json` runs
several one after the other, each in forked processes with torchrun's environment: what takes long is importing torch.
"""

from __future__ import annotations

import json
import os
import socket
import sys
from pathlib import Path
from types import ModuleType

import torch
from pydantic import BaseModel, ConfigDict

from ros2_densematch.training.recipe import Recipe
from ros2_densematch.training.run.trainer import train
from ros2_densematch.training.stages import registry as stages
from ros2_densematch.training.stages.base import Stage


class EvenConfig(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")
    max_steps: int = 4
    dropout: float = 0.0


class Even(Stage):
    """Its loss is a mean over pairs: however the pairs of a step are shared out, the gradient is the same."""

    def __init__(self, config: EvenConfig) -> None:
        super().__init__()
        self.network = torch.nn.Sequential(
            torch.nn.Conv2d(3, 4, 3, stride=4),
            torch.nn.Tanh(),
            torch.nn.Dropout(config.dropout),
            torch.nn.Conv2d(4, 2, 1),
        )

    def training_step(self, batch, index):
        loss = (self.network(batch["image0"]) - self.network(batch["image1"]) - 0.3).square().mean()
        self.log("train/loss", loss)
        return loss

    def configure_optimizers(self):
        return torch.optim.SGD(self.network.parameters(), lr=0.1, momentum=0.9)


def train_even(data: str, out: str, steps: str, parts: str, noisy: str) -> None:
    module = ModuleType("even_training_stage")
    module.Even, module.EvenConfig = Even, EvenConfig
    sys.modules["even_training_stage"] = module
    stages.STAGES["even"] = ("even_training_stage", "Even", "EvenConfig")
    settings = {"dropout": 0.3} if noisy == "noisy" else {}
    recipe = Recipe.model_validate(
        {
            "name": "even",
            "matcher": "gcm",
            "checkpoint_every": 3,
            "data": {"size": 64, "max_points": 16, "batch_pairs": 4, "sources": [{"kind": "photos", "weight": 1}]},
            "stages": [{"stage": "even", "max_steps": 4, "accumulate": int(parts), "settings": settings}],
        }
    )
    train(recipe, Path(out), Path(data), max_steps=int(steps))


def in_processes(count: int, words: list[str]) -> None:
    """Forks so many processes, gives them what torchrun would, and waits."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    children = []
    for rank in range(count):
        child = os.fork()
        if child:
            children.append(child)
            continue
        if count > 1:
            os.environ.update(TORCHELASTIC_RUN_ID="test", MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
            for name, value in (
                ("RANK", rank),
                ("LOCAL_RANK", rank),
                ("WORLD_SIZE", count),
                ("LOCAL_WORLD_SIZE", count),
            ):
                os.environ[name] = str(value)
        code = 1
        try:
            train_even(*words)
            code = 0
        finally:
            sys.stderr.flush()
            os._exit(code)
    failed = [child for child in children if os.waitpid(child, 0)[1]]
    if failed:
        raise SystemExit(f"{len(failed)} of {count} processes failed: {words}")


if __name__ == "__main__":
    if len(sys.argv) == 2:
        for job in json.loads(Path(sys.argv[1]).read_text()):
            in_processes(job["processes"], job["words"])
    else:
        train_even(*sys.argv[1:])
