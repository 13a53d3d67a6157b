"""Trains the network of `gcm`: descriptors and saliency from a teacher, viewpoint change from true correspondences.

Three losses:
- distillation: 1 - cosine between the student's descriptor of the augmented crop and the teacher's of the clean crop,
  at every cell (the patch descriptor distillation of GCM, arXiv 2403.05388, section III-C, equation 3);
- contrast: a row and column softmax over all descriptor pairs at true correspondences of two views (ConDL,
  arXiv 2408.02766), so that viewpoint change, which no augmentation of one photo shows, is learnt;
- saliency: smooth L1 between the student's and the teacher's key point logits.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn
from torch.nn import functional

from ros2_densematch.matchers.gcm.network import GcmNetwork, sample_descriptors
from ros2_densematch.nn.device import to_channels_last
from ros2_densematch.nn.efficientnet_lite import load_imagenet
from ros2_densematch.training.stages.base import Batch, Stage
from ros2_densematch.training.stages.initial_weights import initial_state
from ros2_densematch.training.stages.schedules import CosineDecay, scheduled
from ros2_densematch.training.stages.teachers import EdgePoint2Teacher, GcmTeacher
from ros2_densematch.weights.packages import efficientnet_lite0_state

# the teacher's logits run from -28 to 4: what lies outside this range is "never" or "surely" all the same
_SALIENCY_RANGE = (-12.0, 4.0)


class DescriptorConfig(BaseModel):
    """Settings of the descriptor stage."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    teacher_folder: Path | None = Field(
        None, description="The teacher comes from this clone of the public repository HITCSC/EdgePoint2 (MIT)."
    )
    teacher_weights: Path | None = Field(
        None,
        description="The teacher is `gcm` with these weights instead (a file or a name of the catalogue), which keep "
        "what they taught.",
    )
    imagenet: bool = Field(
        True, description="When true, the backbone starts from EfficientNet-Lite0's ImageNet weights."
    )
    initial_weights: Path | None = Field(
        None,
        description="Training starts from this file of `gcm`, or name of the catalogue, instead; its match filter is "
        "kept.",
    )
    learning_rate: float = Field(1e-3, gt=0, description="The new layers learn at this rate at the start of the decay.")
    backbone_learning_rate: float = Field(
        5e-4, gt=0, description="The backbone learns at this rate at the start of the decay."
    )
    weight_decay: float = Field(1e-4, ge=0, description="Weights decay by this factor of AdamW.")
    keeps_statistics: bool = Field(
        False, description="When true, batch norms keep their statistics, as short fine-tuning needs it."
    )
    warmup_steps: int = Field(100, ge=0, description="The learning rates rise linearly over this many steps.")
    max_steps: int = Field(
        5000, gt=0, description="The stage takes this many steps, over which the learning rate decays by a cosine."
    )
    distillation_weight: float = Field(
        4.0, ge=0, description="The loss against the teacher's descriptors has this weight."
    )
    contrast_weight: float = Field(0.25, ge=0, description="The contrastive loss has this weight.")
    saliency_weight: float = Field(1.0, ge=0, description="The loss of the saliency has this weight.")
    temperature: float = Field(0.06, gt=0, description="The contrastive softmax divides cosines by this temperature.")
    contrast_points: int = Field(
        384, gt=1, description="The contrastive loss draws this many correspondences of each pair."
    )


def distillation_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean of 1 - cosine over all cells of (B, C, h, w) maps; the teacher's vectors have length 1."""
    return 1 - (functional.normalize(student, dim=1) * teacher).sum(1).mean()


def contrast_loss(descriptors0: Tensor, descriptors1: Tensor, valid: Tensor, temperature: float) -> Tensor:
    """Negative log likelihood of the true partner under a softmax over rows, and over columns, of one pair.

    Args:
        descriptors0: (N, C) unit descriptors of the first view.
        descriptors1: (N, C) of the second view; row i shows the same place as row i of the first.
        valid: bool (N,); invalid rows are left out.
        temperature: of the softmax.
    """
    a, b = descriptors0[valid], descriptors1[valid]
    if len(a) < 2:
        return (descriptors0.sum() + descriptors1.sum()) * 0
    similarity = a @ b.T / temperature
    target = torch.arange(len(a), device=similarity.device)
    return (functional.cross_entropy(similarity, target) + functional.cross_entropy(similarity.T, target)) / 2


def saliency_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """Smooth L1 of the clamped logits, weighted towards the rare salient pixels."""
    target = teacher.clamp(*_SALIENCY_RANGE)
    weight = 1 + 4 * torch.sigmoid(target + 5)
    error = functional.smooth_l1_loss(student / 4, target / 4, reduction="none")
    return (error * weight).sum() / weight.sum()


class DescriptorModule(Stage):
    """One optimisation step consumes pairs of crops with true correspondences (see `training.data.dataset`)."""

    network: GcmNetwork

    def __init__(self, config: DescriptorConfig) -> None:
        super().__init__()
        self.config = config
        # half the time of the planar layout on a CPU
        self.network = to_channels_last(GcmNetwork())
        self._kept: dict[str, Tensor] = {}
        if config.initial_weights is not None:
            state, self._kept = split_state(config.initial_weights)
            self.network.load_state_dict(state)
        elif config.imagenet:
            load_imagenet(self.network.backbone, imagenet_state())
        # kept out of the module's parameters and checkpoints: it is not ours and never changes
        self._teacher = [_teacher(config)]

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """The weighted sum `loss` and its parts for a batch of pairs."""
        teacher = self._teacher[0].to(batch["image0"].device)
        student = self.network(torch.cat([batch["image0"], batch["image1"]]))
        taught_descriptors, taught_saliency = teacher(torch.cat([batch["clean0"], batch["clean1"]]))
        pairs = len(batch["image0"])
        # a random subset is enough, and keeps neighbours, which are no true negatives, apart
        chosen = torch.randperm(batch["points0"].shape[1], device=self.device)[: self.config.contrast_points]
        first = sample_descriptors(student.descriptors[:pairs], batch["points0"][:, chosen])
        second = sample_descriptors(student.descriptors[pairs:], batch["points1"][:, chosen])
        valid = batch["valid"][:, chosen]
        contrast = torch.stack(
            [contrast_loss(first[i], second[i], valid[i], self.config.temperature) for i in range(pairs)]
        ).mean()
        distillation = distillation_loss(student.descriptors, taught_descriptors)
        saliency = saliency_loss(student.saliency, taught_saliency)
        config = self.config
        total = (
            config.distillation_weight * distillation
            + config.contrast_weight * contrast
            + config.saliency_weight * saliency
        )
        return {
            "loss": total,
            "cosine": 1 - distillation.detach(),
            "contrast": contrast.detach(),
            "saliency": saliency.detach(),
        }

    def train(self, mode: bool = True) -> DescriptorModule:
        """Batch norms stay in evaluation mode where they keep their statistics."""
        super().train(mode)
        if self.config.keeps_statistics:
            for module in self.network.modules():
                if isinstance(module, nn.BatchNorm2d):
                    module.eval()
        return self

    def export_state(self) -> dict[str, Tensor]:
        """The network, and what else the initial weights held: the match filter."""
        return self._kept | dict(self.network.state_dict())

    def start_from(self, state: dict[str, Tensor]) -> None:
        """Nothing: the network starts from ImageNet or from `initial_weights`, whatever stages came before."""

    def configure_optimizers(self) -> Any:
        backbone = list(self.network.backbone.parameters())
        known = {id(p) for p in backbone}
        new = [p for p in self.network.parameters() if id(p) not in known]
        config = self.config
        groups: list[dict[str, Any]] = [{"params": new}, {"params": backbone, "lr": config.backbone_learning_rate}]
        optimizer = torch.optim.AdamW(
            groups,
            lr=config.learning_rate,
            weight_decay=config.weight_decay,
        )
        return scheduled(optimizer, CosineDecay(config.max_steps, config.warmup_steps))


def split_state(weights: Path) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The network's part of weights of `gcm`, and the rest.

    Args:
        weights: a safetensors file, or a name of the catalogue.

    Raises:
        ValueError: they hold no network of `gcm`.
    """
    state = initial_state(weights)
    own = GcmNetwork().state_dict()
    missing = [k for k in own if k not in state or state[k].shape != own[k].shape]
    if missing:
        raise ValueError(f"{weights} holds no gcm network: missing or of another shape: {', '.join(missing[:8])}")
    return {k: state[k] for k in own}, {k: v for k, v in state.items() if k not in own}


def _teacher(config: DescriptorConfig) -> EdgePoint2Teacher | GcmTeacher:
    if (config.teacher_folder is None) == (config.teacher_weights is None):
        raise ValueError(
            "the descriptor stage needs one teacher: give teacher_folder (a clone of HITCSC/EdgePoint2) or "
            "teacher_weights (weights of gcm)"
        )
    if config.teacher_folder is not None:
        return EdgePoint2Teacher(config.teacher_folder)
    assert config.teacher_weights is not None
    return GcmTeacher(split_state(config.teacher_weights)[0])


def imagenet_state() -> dict[str, Tensor]:
    """EfficientNet-Lite0's ImageNet weights, from the package of the `train` extra.

    Raises:
        FileNotFoundError: the package is not installed.
    """
    return efficientnet_lite0_state()
