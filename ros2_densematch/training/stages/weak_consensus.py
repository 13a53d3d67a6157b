"""Trains NCNet and Sparse-NCNet from pairs of images that are only known to match or not to match.

Rocco, "Neighbourhood consensus networks for visual correspondence" (thesis), sections 5.3.6 and 6.3.4: the mean
matching score of pairs that match is raised, that of pairs that do not is lowered. The pairs that do not match are
made in the batch, by giving each second image the first image of another pair.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from ros2_densematch.matchers.ncnet.extraction import weak_score
from ros2_densematch.matchers.ncnet.network import ARCHITECTURES, NcnetNetwork
from ros2_densematch.matchers.sparse_ncnet.extraction import weak_score as sparse_weak_score
from ros2_densematch.matchers.sparse_ncnet.network import NEIGHBOURS, SparseNcnetNetwork
from ros2_densematch.nn.feature_extraction import FeatureExtraction
from ros2_densematch.nn.resnet import imagenet_normalise
from ros2_densematch.training.stages.base import Batch, Stage
from ros2_densematch.training.stages.initial_weights import UNTRAINED, backbone_state, load_backbone, load_initial

# place in the published sequence -> name in torchvision's ResNet
RESNET_NAMES = {"0": "conv1", "1": "bn1", "4": "layer1", "5": "layer2", "6": "layer3"}


class WeakConsensusConfig(BaseModel):
    """Settings of the weak consensus stage."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    network: Literal["ncnet", "sparse_ncnet"] = Field(description="This network is the one that is trained.")
    architecture: Literal["ivd", "pfpascal"] = Field(
        "ivd", description="The filters of ncnet are those of this published checkpoint."
    )
    neighbours: int = Field(
        NEIGHBOURS, gt=0, description="The network sparse_ncnet keeps this many partners for each cell."
    )
    encoder_weights: Path = Field(
        Path("resnet101"),
        description="ResNet-101 has these ImageNet weights: a name of the catalogue, torchvision's file, or `random`.",
    )
    initial_weights: Path | None = Field(
        None, description="Training starts from this file or name of the catalogue instead."
    )
    learning_rate: float = Field(5e-4, gt=0, description="All that is trained learns at this rate.")
    trained_blocks: int = Field(
        0, ge=0, le=23, description="This many of the last blocks of the features are trained too."
    )
    max_steps: int = Field(1000, gt=0, description="The stage takes this many steps.")


class WeakConsensusModule(Stage):
    """One optimisation step consumes pairs of images that match; at least two, of different groups."""

    network: NcnetNetwork | SparseNcnetNetwork

    def __init__(self, config: WeakConsensusConfig) -> None:
        super().__init__()
        self.config = config
        if config.network == "ncnet":
            self.network = NcnetNetwork(*ARCHITECTURES[config.architecture])
        else:
            self.network = SparseNcnetNetwork(double_resolution=False)  # as trained by its authors
        if config.initial_weights is not None:
            load_initial(self.network, config.initial_weights)
        else:
            load_features(self.network.FeatureExtraction, config.encoder_weights)
        self.network.FeatureExtraction.requires_grad_(False)
        blocks = list(self.network.FeatureExtraction.model.get_submodule("6").children())
        for block in blocks[len(blocks) - config.trained_blocks :]:
            block.requires_grad_(True)

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        source, target = self._features(batch["image0"]), self._features(batch["image1"])
        positive = self._scores(source, target).mean()
        group = batch["group"]
        # a rolled pair of one group may match after all
        unlike = group != group.roll(-1)
        if not bool(unlike.any()):
            raise ValueError(
                "every pair of the batch shows the same thing, so that none can serve as a counterexample: raise "
                "batch_pairs, or give pairs of several groups"
            )
        negative = self._scores(source.roll(-1, 0)[unlike], target[unlike]).mean()
        return {"loss": negative - positive, "positive": positive.detach(), "negative": negative.detach()}

    def _features(self, image: Tensor) -> Tensor:
        with torch.set_grad_enabled(self.config.trained_blocks > 0 and torch.is_grad_enabled()):
            found = self.network.features(imagenet_normalise(image))
        return found if isinstance(found, Tensor) else found[0]

    def _scores(self, source: Tensor, target: Tensor) -> Tensor:
        network = self.network
        if isinstance(network, NcnetNetwork):
            return weak_score(network.consensus(source, target).correlation)
        pairs = zip(source, target, strict=True)
        return torch.stack(
            [sparse_weak_score(network.consensus(a, b, neighbours=self.config.neighbours)) for a, b in pairs]
        )

    def configure_optimizers(self) -> Any:
        trained = [p for p in self.network.parameters() if p.requires_grad]
        return torch.optim.Adam(trained, lr=self.config.learning_rate)


def load_features(features: FeatureExtraction, weights: Path) -> None:
    """Gives stride-16 features their ImageNet weights; `random` leaves them as they are.

    Raises:
        FileNotFoundError: no such file, or not fetched.
        ValueError: weights of another network.
    """
    if weights == UNTRAINED:
        spread_features(features)
        return
    state = backbone_state(weights)
    names = {str(i): f"features.{i}" for i in range(len(features.model))}
    if features.channels == 1024:
        names = RESNET_NAMES
    load_backbone(features.model, state, weights, names)


def spread_features(features: FeatureExtraction) -> None:
    """Scales an untrained network so that its features stay finite: residual branches add up otherwise."""
    for name, module in features.model.named_modules():
        if isinstance(module, nn.BatchNorm2d) and name.endswith("bn3"):
            nn.init.constant_(module.weight, 0.2)
