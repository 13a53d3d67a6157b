"""Trains DKM and RoMa: the published losses, optimiser and schedule on crops with a dense true warp.

Gradients stop between the scales: `DenseNetwork` cuts them in training mode, as the released code does.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from ros2_densematch.matchers.common.dense.network import DenseNetwork
from ros2_densematch.matchers.dkm.network import DkmNetwork
from ros2_densematch.matchers.network import load_network
from ros2_densematch.matchers.roma.network import RomaNetwork
from ros2_densematch.nn.dinov2 import Dinov2
from ros2_densematch.nn.resnet import imagenet_normalise
from ros2_densematch.training.stages.base import Batch, Stage
from ros2_densematch.training.stages.dense_losses import dkm_losses, roma_losses
from ros2_densematch.training.stages.initial_weights import UNTRAINED, backbone_state, load_backbone, load_initial
from ros2_densematch.training.stages.schedules import Milestones, scheduled


class DenseMatchingConfig(BaseModel):
    """Settings of the dense matching stage; learning rates are for a batch of 8 pairs, as published."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    network: Literal["dkm", "roma"] = Field(description="This network is trained, with the loss that belongs to it.")
    encoder_weights: Path = Field(
        description="ResNet-50 (dkm) or VGG-19 with batch norm (roma) has these ImageNet weights: a name of the "
        "catalogue, torchvision's file, or `random`."
    )
    dinov2_weights: Path = Field(
        Path("dinov2_vitl14"),
        description="DINOv2 of roma has these weights: a name of the catalogue, a file, or `random`.",
    )
    initial_weights: Path | None = Field(
        None, description="Training starts from this file or name of the catalogue instead."
    )
    batch_pairs: int = Field(
        8, gt=0, description="A step takes this many pairs on all devices together, which scales the learning rates."
    )
    learning_rate: float = Field(1e-4, gt=0, description="The decoder learns at this rate, which is given for 8 pairs.")
    encoder_learning_rate: float = Field(
        5e-6, gt=0, description="The encoder learns at this rate, which is given for 8 pairs."
    )
    weight_decay: float = Field(0.01, ge=0, description="Weights decay by this factor of AdamW.")
    max_steps: int = Field(250_000, gt=0, description="The stage takes this many steps.")
    milestones: tuple[float, ...] = Field(
        (0.9,), description="The learning rates fall at these shares of the training."
    )
    gamma: float = Field(0.1, gt=0, le=1, description="The learning rates are multiplied by this at each milestone.")
    certainty_weight: float = Field(
        0.01,
        ge=0,
        description="The binary cross entropy of the certainty has this weight; it is 0 where depth has holes.",
    )
    flip: float = Field(0.5, ge=0, le=1, description="This share of the pairs is mirrored, both images alike.")


class DenseMatchingModule(Stage):
    """One optimisation step consumes pairs with a dense true warp (`dense: true` in the recipe's data)."""

    network: DenseNetwork

    def __init__(self, config: DenseMatchingConfig) -> None:
        super().__init__()
        self.config = config
        self.network = _network(config)
        if config.initial_weights is not None:
            load_initial(self.network, config.initial_weights)
        self._losses = dkm_losses if config.network == "dkm" else roma_losses

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        if "warp" not in batch:
            raise ValueError("dense matching learns from dense warps: set `dense: true` in the recipe's data")
        images = torch.stack([batch["image0"], batch["image1"]])
        images, warp, valid = mirrored(images, batch["warp"], batch["warp_valid"], self.config.flip)
        query, support = imagenet_normalise(images.flatten(0, 1)).view_as(images)
        outputs = self.network(query, support)
        return self._losses(outputs, warp, valid, certainty_weight=self.config.certainty_weight)

    def configure_optimizers(self) -> Any:
        config = self.config
        gain = config.batch_pairs / 8
        encoder = self.network.get_submodule("encoder")
        groups: list[dict[str, Any]] = [
            {"params": list(encoder.parameters()), "lr": config.encoder_learning_rate * gain},
            {"params": list(self.network.decoder.parameters()), "lr": config.learning_rate * gain},
        ]
        optimizer = torch.optim.AdamW(groups, weight_decay=config.weight_decay)
        return scheduled(optimizer, Milestones(config.max_steps, config.milestones, config.gamma))


def mirrored(images: Tensor, warp: Tensor, valid: Tensor, share: float) -> tuple[Tensor, Tensor, Tensor]:
    """A random share of the pairs mirrored left to right, with their warps.

    Args:
        images: (2, B, 3, H, W).
        warp: (B, H, W, 2) pixels; valid: bool (B, H, W).
        share: chance of each pair.
    """
    chosen = torch.rand(len(warp), device=warp.device) < share
    flipped = warp.flip(2)
    flipped = torch.stack([images.shape[-1] - 1 - flipped[..., 0], flipped[..., 1]], -1)
    return (
        torch.where(chosen[None, :, None, None, None], images.flip(-1), images),
        torch.where(chosen[:, None, None, None], flipped, warp),
        torch.where(chosen[:, None, None], valid.flip(2), valid),
    )


def _network(config: DenseMatchingConfig) -> DenseNetwork:
    starts_anew = config.initial_weights is None and config.encoder_weights != UNTRAINED
    if config.network == "dkm":
        network: DenseNetwork = DkmNetwork()
        # the classifier is in the released file but takes no part: several GPUs would wait for its gradient
        network.get_submodule("encoder.net.fc").requires_grad_(False)
        if starts_anew:
            _load_encoder(network.get_submodule("encoder.net"), config.encoder_weights, {})
        return network
    network = RomaNetwork(
        dinov2=load_network(lambda _: Dinov2(), "dinov2_vitl14", str(config.dinov2_weights), lean=True)
    )
    if starts_anew:
        _load_encoder(network.get_submodule("encoder.cnn"), config.encoder_weights, {"layers": "features"})
    return network


def _load_encoder(encoder: torch.nn.Module, weights: Path, renamed: dict[str, str]) -> None:
    load_backbone(encoder, backbone_state(weights), weights, renamed)
