"""The stages a recipe can name. A new one is a file with its configuration and a `Stage`, and a line in `STAGES`."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

from pydantic import BaseModel, ValidationError

from ros2_densematch.training.recipe import StageRecipe, explain
from ros2_densematch.training.stages.base import Stage

# name -> (module, class, class of its configuration)
STAGES: dict[str, tuple[str, str, str]] = {
    "alignment": ("ros2_densematch.training.stages.alignment", "AlignmentModule", "AlignmentConfig"),
    "condl": ("ros2_densematch.training.stages.condl", "CondlModule", "CondlConfig"),
    "dense_distillation": (
        "ros2_densematch.training.stages.dense_distillation",
        "DenseDistillationModule",
        "DenseDistillationConfig",
    ),
    "dense_matching": ("ros2_densematch.training.stages.dense_matching", "DenseMatchingModule", "DenseMatchingConfig"),
    "descriptor": ("ros2_densematch.training.stages.descriptor", "DescriptorModule", "DescriptorConfig"),
    "match_filter": ("ros2_densematch.training.stages.match_filter", "MatchFilterModule", "MatchFilterConfig"),
    "patch_distillation": (
        "ros2_densematch.training.stages.patch_distillation",
        "PatchDistillationModule",
        "PatchDistillationConfig",
    ),
    "roma_v2_matcher": ("ros2_densematch.training.stages.roma_v2", "RomaV2MatcherStage", "RomaV2Config"),
    "roma_v2_refiners": ("ros2_densematch.training.stages.roma_v2", "RomaV2RefinerStage", "RomaV2Config"),
    "weak_alignment": ("ros2_densematch.training.stages.alignment", "WeakAlignmentModule", "WeakAlignmentConfig"),
    "weak_consensus": ("ros2_densematch.training.stages.weak_consensus", "WeakConsensusModule", "WeakConsensusConfig"),
}


def build_stage(recipe: StageRecipe, data: Path) -> Stage:
    """The module of a stage; arguments and errors as for `stage_config`."""
    config = stage_config(recipe, data)
    module_name, class_name, _ = STAGES[recipe.stage]
    built: Stage = getattr(import_module(module_name), class_name)(config)
    return built


def stage_config(recipe: StageRecipe, data: Path) -> BaseModel:
    """The configuration of a stage's module.

    Args:
        recipe: of the stage.
        data: folder that relative paths in the stage's settings are looked up in first, then the working directory.

    Raises:
        ValueError: an unknown stage, or settings that its configuration refuses.
    """
    if recipe.stage not in STAGES:
        raise ValueError(f"unknown training stage {recipe.stage!r}: known are {', '.join(sorted(STAGES))}")
    module_name, _, config_name = STAGES[recipe.stage]
    config_class: type[BaseModel] = getattr(import_module(module_name), config_name)
    settings = dict(recipe.settings)
    if "max_steps" in config_class.model_fields:
        settings["max_steps"] = recipe.max_steps
    try:
        config = config_class.model_validate(settings)
    except ValidationError as error:
        raise ValueError(f"settings of training stage {recipe.stage!r}: {explain(error)}") from error
    found = {
        name: data / value
        for name in config_class.model_fields
        if isinstance(value := getattr(config, name), Path) and not value.is_absolute() and (data / value).exists()
    }
    return config.model_copy(update=found)
