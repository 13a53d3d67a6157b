"""Trains ConDL's descriptors: all sampled pairs against each other, on crops changed by light, camera and occluders."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from ros2_densematch.nn.condl import CondlNetwork
from ros2_densematch.nn.device import to_channels_last
from ros2_densematch.nn.resnet import imagenet_normalise
from ros2_densematch.training.stages.base import Batch, Stage
from ros2_densematch.training.stages.contrastive import contrastive_loss, even_grid, retrieval, sample_map
from ros2_densematch.training.stages.initial_weights import load_initial
from ros2_densematch.training.stages.occlusion import OcclusionConfig, occlude
from ros2_densematch.training.stages.schedules import CosineDecay, scheduled


class CondlConfig(BaseModel):
    """Settings of the ConDL stage."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    initial_weights: Path | None = Field(
        None, description="Training starts from this weights file of `condl`; null starts from nothing."
    )
    learning_rate: float = Field(1e-3, gt=0, description="The learning rate has this value after the warm-up.")
    weight_decay: float = Field(1e-4, ge=0, description="Weights decay by this factor of AdamW.")
    warmup_steps: int = Field(50, ge=0, description="The learning rate rises linearly over this many steps.")
    max_steps: int = Field(
        10_000, gt=0, description="The stage takes this many steps, over which the learning rate decays by a cosine."
    )
    temperature: float = Field(0.05, gt=0, description="The softmax divides cosines by this temperature.")
    negatives: Literal["pair", "batch"] = Field(
        "pair",
        description="A sample is told apart from the others of its pair, or from those of all pairs of the batch.",
    )
    step: int = Field(
        4,
        ge=1,
        description="The samples of the even grid, which is used where the truth is dense, are this many pixels apart.",
    )
    occlusion: OcclusionConfig = OcclusionConfig()


class CondlModule(Stage):
    """One optimisation step consumes pairs of crops with dense truth, or else with points."""

    network: CondlNetwork

    def __init__(self, config: CondlConfig) -> None:
        super().__init__()
        self.config = config
        self.network = CondlNetwork()
        if config.initial_weights is not None:
            load_initial(self.network, config.initial_weights)
        to_channels_last(self.network)

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        batch = occlude(batch, self.config.occlusion)
        images = torch.cat([batch["image0"], batch["image1"]])
        maps = self.network(imagenet_normalise(images).contiguous(memory_format=torch.channels_last))
        places, partners, valid = self._samples(batch)
        height, width = images.shape[2:]
        pairs = len(valid)
        first = sample_map(maps[:pairs], places, height, width)
        second = sample_map(maps[pairs:], partners, height, width)
        losses, found = [], []
        for members in self._together(batch["group"]):
            seen = valid[members]
            a, b = first[members][seen], second[members][seen]
            losses.append(contrastive_loss(a, b, self.config.temperature))
            found.append(retrieval(a.detach(), b.detach()))
        return {"loss": torch.stack(losses).mean(), "retrieval": torch.stack(found).mean()}

    def _together(self, group: Tensor) -> list[list[int]]:
        """Numbers of the pairs whose samples are told apart from each other: no two of them may show the same thing."""
        groups = group.tolist()
        if self.config.negatives == "batch" and len(set(groups)) == len(groups):
            return [list(range(len(groups)))]
        return [[number] for number in range(len(groups))]

    def _samples(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        """Places (B, N, 2) of both images and which are seen in both, bool (B, N)."""
        if "warp" not in batch:
            return batch["points0"], batch["points1"], batch["valid"]
        step = self.config.step
        row, column = torch.randint(step, (2,)).tolist()
        return even_grid(batch["warp"], batch["warp_valid"], step, (row, column))

    def configure_optimizers(self) -> Any:
        config = self.config
        optimizer = torch.optim.AdamW(
            self.network.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay
        )
        return scheduled(optimizer, CosineDecay(config.max_steps, config.warmup_steps))
