"""Distils a full-resolution patch descriptor into GCM's light student.

GCM (arXiv 2403.05388), section III-C: the student's vector at every pixel is to point where the teacher's does; the
loss is 1 - cosine (equation 3; the sign in the released file contradicts the text). The paper's teacher is R2D2, whose
weights are non-commercial; a network of EdgePoint2 (MIT) can teach instead: its vectors have 64 numbers at stride 4, so
that a linear layer, which is not exported, carries the student's 128 over.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn
from torch.nn import functional

from ros2_densematch.nn.r2d2 import DESCRIPTOR_CHANNELS, R2d2Network, Variant
from ros2_densematch.nn.resnet import imagenet_normalise
from ros2_densematch.training.stages.base import Batch, Stage
from ros2_densematch.training.stages.initial_weights import load_initial
from ros2_densematch.training.stages.schedules import CosineDecay, scheduled
from ros2_densematch.training.stages.teachers import EdgePoint2Teacher
from ros2_densematch.weights.loading import load_exactly
from ros2_densematch.weights.store import read_checkpoint

_EDGEPOINT2_CHANNELS = 64
_VARIANTS: dict[str, Variant] = {"r2d2_WASF_N16": "quad", "r2d2_WAF_N16": "quad", "r2d2_WASF_N8_big": "big"}


class PatchDistillationConfig(BaseModel):
    """Settings of the patch distillation stage."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    teacher: Literal["edgepoint2", "r2d2_WASF_N16", "r2d2_WAF_N16", "r2d2_WASF_N8_big"] = Field(
        "edgepoint2",
        description="This network teaches; the weights of r2d2 have to be fetched, with consent to their licence.",
    )
    teacher_folder: Path | None = Field(
        None, description="The teacher edgepoint2 comes from this clone of the public repository HITCSC/EdgePoint2."
    )
    teacher_weights: str | None = Field(
        None, description="The teacher r2d2 has these weights instead of the fetched ones; `random` is for tests."
    )
    initial_weights: Path | None = Field(
        None,
        description="Training starts from this file or name of the catalogue, as gcm_student; null starts from "
        "nothing.",
    )
    learning_rate: float = Field(1e-4, gt=0, description="The learning rate has this value at the start of the decay.")
    weight_decay: float = Field(5e-4, ge=0, description="The optimiser Adam adds an L2 penalty of this factor.")
    max_steps: int = Field(
        20_000, gt=0, description="The stage takes this many steps, over which the learning rate decays by a cosine."
    )


class PatchDistillationModule(Stage):
    """One optimisation step consumes pairs of crops; each image is a lesson of its own."""

    network: R2d2Network

    def __init__(self, config: PatchDistillationConfig) -> None:
        super().__init__()
        self.config = config
        self.network = R2d2Network("student")
        if config.initial_weights is not None:
            load_initial(self.network, config.initial_weights)
        # the student's heads are not trained, as in the released file
        for head in (self.network.clf, self.network.sal):
            head.requires_grad_(False)
        self.projection: nn.Module = nn.Identity()
        if config.teacher == "edgepoint2":
            self.projection = nn.Conv2d(DESCRIPTOR_CHANNELS, _EDGEPOINT2_CHANNELS, 1)
        # in a list: no part of the module, its checkpoints or its training
        self._teacher = [_teacher(config)]

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        changed = torch.cat([batch["image0"], batch["image1"]])
        clean = torch.cat([batch["clean0"], batch["clean1"]])
        taught = self._taught(clean)
        features = self.network.features(imagenet_normalise(changed))
        # a kernel of even size makes the student's map a pixel larger or smaller; a teacher may be coarser
        features = functional.interpolate(features, clean.shape[-2:], mode="bilinear", align_corners=False)
        features = functional.adaptive_avg_pool2d(features, (taught.shape[-2], taught.shape[-1]))
        cosine = (functional.normalize(self.projection(features), dim=1) * taught).sum(1).mean()
        return {"loss": 1 - cosine, "cosine": cosine.detach()}

    @torch.no_grad()
    def _taught(self, image: Tensor) -> Tensor:
        teacher = self._teacher[0].to(image.device)
        if isinstance(teacher, EdgePoint2Teacher):
            taught: Tensor = teacher(image)[0]
            return taught
        features = teacher.features(imagenet_normalise(image))
        features = functional.interpolate(features, image.shape[-2:], mode="bilinear", align_corners=False)
        return functional.normalize(features, dim=1)

    def configure_optimizers(self) -> Any:
        trained = [p for p in self.parameters() if p.requires_grad]
        optimizer = torch.optim.Adam(trained, lr=self.config.learning_rate, weight_decay=self.config.weight_decay)
        return scheduled(optimizer, CosineDecay(self.config.max_steps))


def _teacher(config: PatchDistillationConfig) -> EdgePoint2Teacher | R2d2Network:
    if config.teacher == "edgepoint2":
        if config.teacher_folder is None:
            raise ValueError(
                "teacher edgepoint2 needs teacher_folder: a clone of the public repository HITCSC/EdgePoint2"
            )
        return EdgePoint2Teacher(config.teacher_folder)
    network = R2d2Network(_VARIANTS[config.teacher])
    if config.teacher_weights != "random":
        state = read_checkpoint(config.teacher, config.teacher_weights)
        load_exactly(network, state, Path(config.teacher_weights or config.teacher))
    return network.eval().requires_grad_(False)
