"""A small student learns from the matches of a large dense teacher, on any pairs of images, labelled or not."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from ros2_densematch.training.data.photometric import PhotometricConfig
from ros2_densematch.training.data.pseudo_labels import PseudoLabels, TeacherConfig
from ros2_densematch.training.data.source import PairSource
from ros2_densematch.training.stages.base import Batch, Stage
from ros2_densematch.training.stages.condl import CondlConfig, CondlModule
from ros2_densematch.training.stages.descriptor import DescriptorConfig, DescriptorModule


class DenseDistillationConfig(BaseModel):
    """Settings of the dense distillation stage."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    teacher: TeacherConfig
    student: Literal["gcm", "condl"] = Field(description="This matcher is trained, with the losses of its own stage.")
    settings: dict[str, Any] = Field(
        default_factory=dict, description="These are fields of the configuration of the stage that trains this student."
    )
    pairs: int = Field(1000, gt=0, description="The teacher labels this many pairs of views, once.")
    size: int = Field(448, ge=64, multiple_of=16, description="The views have this many pixels on each side.")
    max_points: int = Field(2048, gt=1, description="A sample holds this many labels at most.")
    cache: Path | None = Field(
        None, description="The labels are kept in this folder; null keeps them in pseudo_labels of the output folder."
    )
    seed: int = Field(0, ge=0, description="Everything that is drawn at random depends on this seed alone.")
    max_steps: int = Field(5000, gt=0, description="The stage takes this many steps.")


class DenseDistillationModule(Stage):
    """One optimisation step consumes pairs that the teacher has labelled."""

    def __init__(self, config: DenseDistillationConfig) -> None:
        super().__init__()
        self.config = config
        settings = {**config.settings, "max_steps": config.max_steps}
        self.student: DescriptorModule | CondlModule
        if config.student == "gcm":
            self.student = DescriptorModule(DescriptorConfig.model_validate(settings))
        else:
            self.student = CondlModule(CondlConfig.model_validate(settings))

    def start_from(self, state: dict[str, Tensor]) -> None:
        """Takes over what earlier stages exported under the student's names."""
        own = self.student.network.state_dict()
        self.student.network.load_state_dict({k: v for k, v in state.items() if k in own}, strict=False)

    def make_dataset(
        self, sources: Sequence[tuple[PairSource, float]], out: Path, photometric: PhotometricConfig
    ) -> PseudoLabels:
        """Views of the recipe's sources, labelled by the teacher where they are not yet."""
        config = self.config
        return PseudoLabels(
            sources,
            config.teacher,
            config.cache or out / "pseudo_labels",
            count=config.pairs,
            size=config.size,
            seed=config.seed,
            max_points=config.max_points,
            photometric=photometric,
        )

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        return self.student.losses(batch)

    def export_state(self) -> dict[str, Tensor]:
        """The student's."""
        own = self.student
        return own.export_state() if isinstance(own, DescriptorModule) else dict(own.network.state_dict())

    def configure_optimizers(self) -> Any:
        return self.student.configure_optimizers()
