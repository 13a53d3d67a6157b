"""The training recipe: a YAML file that says what is trained on what, stage by stage."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from ros2_densematch.training.data.photometric import PhotometricConfig
from ros2_densematch.training.data.sources import AnySource


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ValidationRecipe(_Part):
    """Measuring on training material that is held out: share of right matches (MMA) and AUC of the pose error."""

    share: float = Field(0.05, gt=0, le=0.5, description="of each source, held out from training")
    pairs: int = Field(16, ge=1, description="pairs measured, the same ones every time")
    every: int = Field(500, ge=1, description="steps between two measurements; the end of a stage is measured too")
    max_side: int = Field(640, ge=64, description="larger images are reduced")
    matcher: dict[str, Any] = Field(default_factory=dict, description="arguments of load_matcher, as preset")


class DataRecipe(_Part):
    """What a training sample is."""

    size: int = Field(256, ge=32, multiple_of=16, description="crops are size x size pixels")
    max_points: int = Field(1024, ge=16, description="correspondences in a sample, padded")
    batch_pairs: int = Field(8, ge=1, description="pairs a step")
    dense: bool = Field(False, description="samples hold a warp for every pixel too, see training.data.sample")
    workers: int = Field(0, ge=0, description="processes that make samples; 0 makes them in the training process")
    sources: list[Annotated[AnySource, Field(discriminator="kind")]] = Field(min_length=1)
    photometric: PhotometricConfig = PhotometricConfig()


class StageRecipe(_Part):
    """One stage: a stage of `training.stages.registry`, trained for a number of steps."""

    stage: str = Field(description="name of a stage that training.stages.registry knows")
    max_steps: int = Field(gt=0, description="length of the stage")
    accumulate: int = Field(1, ge=1, description="a step's pairs are worked off in so many parts")
    precision: Literal["32", "bf16-mixed", "16-mixed"] = Field("32", description="16-mixed needs a CUDA device")
    gradient_clip: float = Field(1.0, gt=0, description="largest norm of the gradient")
    batch_pairs: int | None = Field(None, ge=1, description="pairs a step in this stage, when not as in data")
    settings: dict[str, Any] = Field(default_factory=dict, description="fields of the stage's own configuration")


class Recipe(_Part):
    """A whole training run."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9._-]*$", description="name of the recipe, written into the weights")
    matcher: str = Field(description="name of the matcher that the weights belong to")
    seed: int = Field(0, ge=0)
    checkpoint_every: int = Field(100, ge=1, description="steps between checkpoints")
    data: DataRecipe
    validation: ValidationRecipe | None = Field(None, description="null: nothing is held out, nothing is measured")
    stages: list[StageRecipe] = Field(min_length=1)

    @field_validator("stages")
    @classmethod
    def _names_are_unique(cls, stages: list[StageRecipe]) -> list[StageRecipe]:
        names = [s.stage for s in stages]
        if len(set(names)) != len(names):
            raise ValueError(f"a stage is named twice: {', '.join(names)}")
        return stages


def load_recipe(path: Path) -> Recipe:
    """Reads a recipe.

    Raises:
        ValueError: no YAML, or a field is missing, unknown or out of range; the message names file and field.
        FileNotFoundError: there is no such file.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no training recipe {path}: see config/training for those that ship")
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"training recipe {path} is not valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(content, dict):
        raise ValueError(
            f"training recipe {path} must hold name, matcher, data and stages, got {type(content).__name__}"
        )
    try:
        return Recipe.model_validate(content)
    except ValidationError as error:
        raise ValueError(f"training recipe {path}: {explain(error)}") from error


def explain(error: ValidationError) -> str:
    """The faults of a configuration on one line: field, fault, value."""
    faults = []
    for fault in error.errors()[:4]:
        field = ".".join(str(part) for part in fault["loc"]) or "recipe"
        given = "" if fault["type"] == "missing" else f" (got {fault['input']!r})"
        faults.append(f"{field}: {fault['msg'][:1].lower()}{fault['msg'][1:]}{given}")
    return "; ".join(faults)
