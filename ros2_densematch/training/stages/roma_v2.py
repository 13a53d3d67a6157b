"""Trains RoMa v2 in its two stages: the matcher, then the refiners. Only inference code of it is public.

Public, from the paper's abstract and summaries: two decoupled stages, a frozen DINOv3, an auxiliary likelihood on the
patch attention, a precision per pixel learnt by likelihood, and that warp and confidence enter a refiner without
gradient. Learning rates, steps, batches, loss weights and augmentation are not: those here are ours, as is the use of
RoMa's robust loss. The moving average of the weights that is named there is `densematch weights average` here.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from ros2_densematch.matchers.roma_v2.network import SIZES, VERSIONS, RomaV2Network
from ros2_densematch.nn.dinov3 import PATCH
from ros2_densematch.nn.resnet import imagenet_normalise
from ros2_densematch.training.stages.base import Batch, Stage
from ros2_densematch.training.stages.dense_losses import roma_v2_coarse_losses, roma_v2_refiner_losses
from ros2_densematch.training.stages.dense_matching import mirrored
from ros2_densematch.training.stages.initial_weights import UNTRAINED, backbone_state, load_backbone, load_initial
from ros2_densematch.training.stages.schedules import Milestones, scheduled
from ros2_densematch.weights.loading import load_exactly


class RomaV2Config(BaseModel):
    """Settings of either stage."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    size: Literal["published", "small"] = Field("published", description="The network has these widths and depths.")
    version: str = Field(
        VERSIONS[0], description="The local correlation has this version, which is written into the weights."
    )
    dinov3_weights: Path = Field(
        Path("random"), description="ViT-L/16 has these weights: the file that its publisher gives, or `random`."
    )
    vgg_weights: Path = Field(
        Path("vgg19_bn"),
        description="VGG-19 has these weights: a name of the catalogue, torchvision's file, or `random`.",
    )
    initial_weights: Path | None = Field(
        None, description="Training starts from this file or name of the catalogue instead."
    )
    batch_pairs: int = Field(
        8, gt=0, description="A step takes this many pairs on all devices together, which scales the learning rates."
    )
    learning_rate: float = Field(1e-4, gt=0, description="All but VGG learns at this rate, which is given for 8 pairs.")
    vgg_learning_rate: float = Field(
        5e-6, gt=0, description="VGG learns at this rate in the second stage, which is given for 8 pairs."
    )
    weight_decay: float = Field(0.01, ge=0, description="Weights decay by this factor of AdamW.")
    max_steps: int = Field(250_000, gt=0, description="The stage takes this many steps.")
    milestones: tuple[float, ...] = Field(
        (0.9,), description="The learning rates fall at these shares of the training."
    )
    gamma: float = Field(0.1, gt=0, le=1, description="The learning rates are multiplied by this at each milestone.")
    certainty_weight: float = Field(0.01, ge=0, description="The binary cross entropy of the overlap has this weight.")
    precision_weight: float = Field(
        1e-3, ge=0, description="The negative log-likelihood of the precision has this weight."
    )
    flip: float = Field(0.5, ge=0, le=1, description="This share of the pairs is mirrored, both images alike.")


class _RomaV2Stage(Stage):
    """One optimisation step consumes pairs with a dense true warp (`dense: true` in the recipe's data)."""

    network: RomaV2Network

    def __init__(self, config: RomaV2Config) -> None:
        super().__init__()
        self.config = config
        self.network = RomaV2Network(version=config.version, size=SIZES[config.size])
        if config.initial_weights is not None:
            load_initial(self.network, config.initial_weights)
        else:
            if config.dinov3_weights != UNTRAINED:
                state = backbone_state(config.dinov3_weights)
                load_exactly(self.network.f, state, config.dinov3_weights)
            if config.vgg_weights != UNTRAINED:
                vgg = backbone_state(config.vgg_weights)
                load_backbone(self.network.refiner_features, vgg, config.vgg_weights, {"layers": "features"})
        self.network.requires_grad_(False)
        for module in self._trained():
            module.requires_grad_(True)

    def _trained(self) -> list[nn.Module]:
        """What gets gradients; its first part learns at `learning_rate`, VGG at its own."""
        raise NotImplementedError

    def _pair(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Both images, ImageNet-normalised, and the true warp with its mask; some mirrored."""
        if "warp" not in batch:
            raise ValueError("roma_v2 learns from dense warps: set `dense: true` in the recipe's data")
        images = torch.stack([batch["image0"], batch["image1"]])
        images, warp, valid = mirrored(images, batch["warp"], batch["warp_valid"], self.config.flip)
        query, support = imagenet_normalise(images.flatten(0, 1)).view_as(images)
        return query, support, warp, valid

    def metadata(self) -> dict[str, str]:
        return {"version": self.config.version}

    def configure_optimizers(self) -> Any:
        config = self.config
        gain = config.batch_pairs / 8
        groups: list[dict[str, Any]] = [
            {"params": list(module.parameters()), "lr": rate * gain}
            for module, rate in zip(self._trained(), (config.learning_rate, config.vgg_learning_rate), strict=False)
        ]
        optimizer = torch.optim.AdamW(groups, weight_decay=config.weight_decay)
        return scheduled(optimizer, Milestones(config.max_steps, config.milestones, config.gamma))


class RomaV2MatcherStage(_RomaV2Stage):
    """The first stage: joint transformer, attention match, prediction head."""

    def _trained(self) -> list[nn.Module]:
        return [self.network.matcher]

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        query, support, warp, valid = self._pair(batch)
        found = self.network(query, support, refines=False).coarse
        grid = (query.shape[-2] // PATCH, query.shape[-1] // PATCH)
        return roma_v2_coarse_losses(found, grid, warp, valid, certainty_weight=self.config.certainty_weight)


class RomaV2RefinerStage(_RomaV2Stage):
    """The second stage: refiners and VGG, on what the matcher finds."""

    def _trained(self) -> list[nn.Module]:
        return [self.network.refiners, self.network.refiner_features]

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        query, support, warp, valid = self._pair(batch)
        return roma_v2_refiner_losses(
            self.network(query, support).refined,
            warp,
            valid,
            certainty_weight=self.config.certainty_weight,
            precision_weight=self.config.precision_weight,
        )
