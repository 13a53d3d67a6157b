"""The training recipe: a YAML file that says what is trained on what, stage by stage."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from ros2_densematch.files.shipped import recipe_file, recipe_names
from ros2_densematch.training.data.photometric import PhotometricConfig
from ros2_densematch.training.data.sources import AnySource


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ValidationRecipe(_Part):
    """Measuring on training material that is held out: share of right matches (MMA) and AUC of the pose error."""

    share: float = Field(0.05, gt=0, le=0.5, description="This share of each source is held out from training.")
    pairs: int = Field(16, ge=1, description="This many pairs are measured, the same ones every time.")
    every: int = Field(500, ge=1, description="A measurement is made after this many steps, and at the end of a stage.")
    max_side: int = Field(640, ge=64, description="Images whose longer side has more pixels are reduced to this.")
    matcher: dict[str, Any] = Field(default_factory=dict, description="These are arguments of load_matcher, as preset.")


class DataRecipe(_Part):
    """What a training sample is."""

    size: int = Field(256, ge=32, multiple_of=16, description="Crops have this many pixels on each side.")
    max_points: int = Field(
        1024, ge=16, description="A sample holds this many correspondences, padded where there are fewer."
    )
    batch_pairs: int = Field(8, ge=1, description="A step takes this many pairs.")
    dense: bool = Field(False, description="When true, samples also hold a warp for every pixel.")
    workers: int = Field(0, ge=0, description="This many processes make samples; 0 makes them in the training process.")
    sources: list[Annotated[AnySource, Field(discriminator="kind")]] = Field(
        min_length=1, description="Pairs are drawn from these sources."
    )
    photometric: PhotometricConfig = PhotometricConfig()


class StageRecipe(_Part):
    """One stage: a stage of `training.stages.registry`, trained for a number of steps."""

    stage: str = Field(description="This stage is trained; it is one of training/stages/registry.py.")
    max_steps: int = Field(gt=0, description="The stage takes this many steps.")
    accumulate: int = Field(1, ge=1, description="The pairs of a step are worked off in this many parts.")
    precision: Literal["32", "bf16-mixed", "16-mixed"] = Field(
        "32", description="The network calculates in this precision; 16-mixed needs a CUDA device."
    )
    gradient_clip: float = Field(1.0, gt=0, description="The norm of the gradient is cut to this.")
    batch_pairs: int | None = Field(
        None, ge=1, description="A step of this stage takes this many pairs; null takes as many as `data` says."
    )
    settings: dict[str, Any] = Field(
        default_factory=dict, description="These are fields of the stage's own configuration."
    )


class Recipe(_Part):
    """A whole training run."""

    name: str = Field(
        pattern=r"^[a-z0-9][a-z0-9._-]*$", description="The recipe has this name, which is written into the weights."
    )
    matcher: str = Field(description="The weights belong to this matcher.")
    seed: int = Field(0, ge=0, description="Everything that is drawn at random depends on this seed alone.")
    checkpoint_every: int = Field(100, ge=1, description="A checkpoint is written after this many steps.")
    data: DataRecipe
    validation: ValidationRecipe | None = Field(
        None,
        description="These settings say what is held out and measured; null holds nothing out and measures nothing.",
    )
    stages: list[StageRecipe] = Field(min_length=1, description="These stages are trained one after the other.")

    @field_validator("stages")
    @classmethod
    def _names_are_unique(cls, stages: list[StageRecipe]) -> list[StageRecipe]:
        names = [s.stage for s in stages]
        if len(set(names)) != len(names):
            raise ValueError(f"a stage is named twice: {', '.join(names)}")
        return stages


def load_recipe(path: Path) -> Recipe:
    """Reads a recipe: a file, or one that ships, by its name.

    Raises:
        ValueError: no YAML, or a field is missing, unknown or out of range; the message names file and field.
        FileNotFoundError: there is no such file.
    """
    path = recipe_file(path)
    if not path.is_file():
        names = ", ".join(recipe_names())
        raise FileNotFoundError(f"there is no training recipe {path}: give a file, or one of {names}")
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
