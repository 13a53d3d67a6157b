"""A recipe and the data it is given: the recipe's folders, or data of any known kind in their place."""

from __future__ import annotations

from pathlib import Path

from ros2_densematch.training.data.sources import recognise
from ros2_densematch.training.recipe import Recipe


def fit_to_data(recipe: Recipe, data: Path) -> tuple[Recipe, str]:
    """A recipe whose sources can be found, and one sentence about what was changed ("" = nothing).

    The folders that a recipe names lie below `data`, or are `data` itself (`.`). Where none of them is there, `data`
    itself is looked at: a recording, a MegaDepth or ScanNet copy, photo sets, scenes, a CSV file of pairs, or photos.
    It then takes the place of all sources.

    Raises:
        FileNotFoundError: `data` does not exist, or some of the recipe's folders are missing and others are there.
        ValueError: `data` is none of these.
    """
    if not data.exists():
        raise FileNotFoundError(f"no data folder {data}: give the folder with the training data as --data")
    sources = recipe.data.sources
    missing = [data / s.folder for s in sources if not s.is_there(data)]
    if not missing:
        return recipe, ""
    if len(missing) < len(sources):
        raise FileNotFoundError(
            f"training data is missing: {', '.join(str(f) for f in missing)}: put it there, or take the source out of "
            f"the recipe {recipe.name}"
        )
    source = recognise(data, sources)
    if source is None:
        wanted = ", ".join(s.folder.as_posix() for s in sources)
        raise ValueError(
            f"{data} holds none of the recipe's folders ({wanted}) and is no recording, MegaDepth or ScanNet copy, "
            "photo sets, scenes, CSV file of pairs, or folder with photos in it: check --data, or say folder: . in the "
            "recipe for photos at any depth"
        )
    changed = recipe.model_copy(update={"data": recipe.data.model_copy(update={"sources": [source]})})
    return changed, f"{data} is taken as the only source, of the kind `{source.kind}`, in place of the recipe's sources"
