"""The stages a recipe can name, and what a stage's module has to offer.

A stage is a LightningModule with a pydantic configuration:

- `Module(config)`; the field `max_steps` of the configuration, where there is one, is set from the recipe.
- `training_step(batch, index)` consumes batches of the common sample (`training.sample`), and returns the loss.
- `network`: what is trained and exported; or `export_state() -> dict[str, Tensor]` for a choice of its own. What a
  later stage exports replaces what an earlier one exported under the same name.
- `make_dataset(sources, out, photometric)`, optional: a stage whose samples are no pairs of crops makes its own dataset
  (index -> sample, for any index) from the recipe's sources.
- `start_from(state: dict[str, Tensor])`, optional: gets what the stages before exported, before training starts.
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ValidationError
from torch import Tensor

from ros2_densematch.training.recipe import StageRecipe, explain

if TYPE_CHECKING:
    import lightning

# name -> (module, class, class of its configuration)
STAGES: dict[str, tuple[str, str, str]] = {
    "alignment": ("ros2_densematch.training.alignment", "AlignmentModule", "AlignmentConfig"),
    "condl": ("ros2_densematch.training.condl", "CondlModule", "CondlConfig"),
    "dense_distillation": (
        "ros2_densematch.training.dense_distillation",
        "DenseDistillationModule",
        "DenseDistillationConfig",
    ),
    "dense_matching": ("ros2_densematch.training.dense_matching", "DenseMatchingModule", "DenseMatchingConfig"),
    "descriptor": ("ros2_densematch.training.descriptor", "DescriptorModule", "DescriptorConfig"),
    "match_filter": ("ros2_densematch.training.match_filter", "MatchFilterModule", "MatchFilterConfig"),
    "patch_distillation": (
        "ros2_densematch.training.patch_distillation",
        "PatchDistillationModule",
        "PatchDistillationConfig",
    ),
    "weak_alignment": ("ros2_densematch.training.alignment", "WeakAlignmentModule", "WeakAlignmentConfig"),
    "weak_consensus": ("ros2_densematch.training.weak_consensus", "WeakConsensusModule", "WeakConsensusConfig"),
}


def build_stage(recipe: StageRecipe, data: Path) -> lightning.LightningModule:
    """The module of a stage; arguments and errors as for `stage_config`."""
    config = stage_config(recipe, data)
    module_name, class_name, _ = STAGES[recipe.stage]
    built: lightning.LightningModule = getattr(import_module(module_name), class_name)(config)
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


def exported_state(module: lightning.LightningModule) -> dict[str, Tensor]:
    """What a stage ships: contiguous CPU tensors by name."""
    own: Any = getattr(module, "export_state", None)
    network: Any = module.network if own is None else None
    state: dict[str, Tensor] = network.state_dict() if own is None else own()
    return {name: tensor.detach().cpu().contiguous().clone() for name, tensor in state.items()}
