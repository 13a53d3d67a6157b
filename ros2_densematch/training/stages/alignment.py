"""Trains CNNGeometric on synthetic pairs, and weak alignment on pairs that are only known to match.

Rocco, "Neighbourhood consensus networks for visual correspondence" (thesis), sections 3.4.6 and 3.5 (grid loss,
synthetic pairs) and 4.3 (soft inlier count), with the constants of the released code.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from ros2_densematch.matchers.common.parametric.network import INPUT_SIZE, AlignmentNetwork
from ros2_densematch.nn.correlation import correlation_3d
from ros2_densematch.nn.resnet import imagenet_normalise
from ros2_densematch.nn.soft_inliers import weak_alignment_loss
from ros2_densematch.nn.transformations import grid_loss
from ros2_densematch.training.data.photometric import PhotometricConfig
from ros2_densematch.training.data.source import PairSource
from ros2_densematch.training.data.synthetic_warps import PARAMETERS, SyntheticWarps, Transformation
from ros2_densematch.training.stages.base import Batch, Stage
from ros2_densematch.training.stages.initial_weights import load_initial
from ros2_densematch.training.stages.schedules import CosineDecay, scheduled
from ros2_densematch.training.stages.weak_consensus import load_features

Backbone = Literal["vgg16", "resnet101"]


class AlignmentConfig(BaseModel):
    """Settings of the alignment stage."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    backbone: Backbone = Field(
        "vgg16",
        description="The features come from this network.",
    )
    transformations: list[Transformation] = Field(
        ["affine"], min_length=1, max_length=2, description="The heads estimate these transformations, one each."
    )
    encoder_weights: Path = Field(
        description="The backbone has these ImageNet weights: torchvision's file, a name of the catalogue, or `random`."
    )
    initial_weights: Path | None = Field(
        None, description="Training starts from this file or name of the catalogue instead."
    )
    learning_rate: float = Field(
        1e-3, gt=0, description="The regression heads learn at this rate; the features are not trained."
    )
    decay: bool = Field(False, description="When true, the learning rate falls by a cosine.")
    max_steps: int = Field(20_000, gt=0, description="The stage takes this many steps.")
    seed: int = Field(0, ge=0, description="The synthetic pairs depend on this seed alone.")


class AlignmentModule(Stage):
    """One optimisation step consumes photos with a random warp for each regression head."""

    network: AlignmentNetwork

    def __init__(self, config: AlignmentConfig) -> None:
        super().__init__()
        self.config = config
        self.network = _network(config.backbone, config.transformations, config.encoder_weights, config.initial_weights)
        self.network.FeatureExtraction.requires_grad_(False)

    def make_dataset(
        self, sources: Sequence[tuple[PairSource, float]], out: Path, photometric: PhotometricConfig
    ) -> SyntheticWarps:
        """The photos of the recipe's sources, each warped at random."""
        return SyntheticWarps(
            sorted({path for source, _ in sources for path in source.files()}),
            self.config.transformations,
            seed=self.config.seed,
            photometric=photometric,
        )

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        with torch.no_grad():
            source = self.network.features(imagenet_normalise(batch["source"]))
        parts = {}
        for head, kind in enumerate(self.config.transformations):
            with torch.no_grad():
                target = self.network.features(imagenet_normalise(batch[f"target{head}"]))
            theta = self.network.regress(correlation_3d(source, target), head)
            parts[kind if head == 0 else f"{kind}_{head}"] = grid_loss(theta, batch[f"theta{head}"])
        return {"loss": torch.stack(list(parts.values())).sum(), **{k: v.detach() for k, v in parts.items()}}

    def configure_optimizers(self) -> Any:
        trained = [p for p in self.network.parameters() if p.requires_grad]
        optimizer = torch.optim.Adam(trained, lr=self.config.learning_rate)
        if not self.config.decay:
            return optimizer
        return scheduled(optimizer, CosineDecay(self.config.max_steps))


class WeakAlignmentConfig(BaseModel):
    """Settings of the weak alignment stage."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    backbone: Backbone = Field(
        "resnet101",
        description="The features come from this network.",
    )
    encoder_weights: Path = Field(
        description="The backbone has these ImageNet weights; it is `random` where an earlier stage or a file gives "
        "all weights."
    )
    initial_weights: Path | None = Field(
        None, description="Training starts from this file, in a recipe without an alignment stage."
    )
    learning_rate: float = Field(5e-8, gt=0, description="All that is trained learns at this rate.")
    trains_features: bool = Field(
        True, description="When true, the features are fine-tuned too, as in the released model."
    )
    regularisation: float = Field(0.2, ge=0, description="The thin-plate spline is regularised by this factor.")
    max_steps: int = Field(1000, gt=0, description="The stage takes this many steps.")


class WeakAlignmentModule(Stage):
    """One optimisation step consumes pairs of images of the same kind of thing, 240 x 240 pixels."""

    network: AlignmentNetwork

    def __init__(self, config: WeakAlignmentConfig) -> None:
        super().__init__()
        self.config = config
        self.network = _network(config.backbone, ["affine", "tps"], config.encoder_weights, config.initial_weights)
        self.network.FeatureExtraction.requires_grad_(config.trains_features)

    def train(self, mode: bool = True) -> WeakAlignmentModule:
        """Batch norms keep their statistics, as in the released training."""
        super().train(mode)
        for module in self.network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()
        return self

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        pair = torch.stack([batch["image0"], batch["image1"]])
        if pair.shape[-1] != INPUT_SIZE or pair.shape[-2] != INPUT_SIZE:
            raise ValueError(
                f"weak alignment takes {INPUT_SIZE} x {INPUT_SIZE} pixels: set `size: {INPUT_SIZE}` in data"
            )
        source, target = imagenet_normalise(pair)
        found = self.network(source, target)
        affine, tps = found.thetas
        loss = weak_alignment_loss(found.correlation, affine, tps, regularisation=self.config.regularisation)
        return {"loss": loss, "inliers": -loss.detach() / 2}

    def configure_optimizers(self) -> Any:
        trained = [p for p in self.network.parameters() if p.requires_grad]
        return torch.optim.Adam(trained, lr=self.config.learning_rate)


def _network(
    backbone: Backbone, transformations: Sequence[Transformation], encoder_weights: Path, initial: Path | None
) -> AlignmentNetwork:
    network = AlignmentNetwork(backbone, [PARAMETERS[kind] for kind in transformations])
    if initial is not None:
        load_initial(network, initial)
    else:
        load_features(network.FeatureExtraction, encoder_weights)
    return network
