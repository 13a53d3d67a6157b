"""The kinds of training sources. A new one is a file in this folder and its name in `AnySource`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import get_args

from ros2_densematch.training.data.bag import BagSourceConfig
from ros2_densematch.training.data.megadepth import MegaDepthSource
from ros2_densematch.training.data.multiview import MultiviewSource
from ros2_densematch.training.data.pairs_csv import PairsCsvSource
from ros2_densematch.training.data.photos import PhotosSource
from ros2_densematch.training.data.scannet import ScanNetSource
from ros2_densematch.training.data.scenes import ScenesSource
from ros2_densematch.training.data.source import Opening, PairSource, SourceConfig
from ros2_densematch.training.images import TrainingDataError

# In the order in which a folder of unknown kind is tried: what could be taken for something else comes last.
AnySource = (
    PairsCsvSource | BagSourceConfig | MegaDepthSource | ScanNetSource | MultiviewSource | ScenesSource | PhotosSource
)


def recognise(data: Path, wanted: Sequence[AnySource]) -> AnySource | None:
    """The source that a folder or file is, or None.

    Args:
        data: what a user gave in place of a recipe's sources.
        wanted: those sources; their settings are kept for data of their kind.
    """
    kinds: tuple[type[AnySource], ...] = get_args(AnySource)
    found = next((entry for kind in kinds if (entry := kind.recognise(data, wanted)) is not None), None)
    same = None if found is None else next((s for s in wanted if s.kind == found.kind), None)
    return found if same is None else same.model_copy(update={"folder": Path(".")})


def open_sources(sources: Sequence[SourceConfig], data: Path, opening: Opening) -> list[tuple[PairSource, float]]:
    """Opens the sources of a recipe.

    Args:
        sources: their entries.
        data: folder of the training data, or the one file that it is.
        opening: what all of them share.

    Returns:
        Sources with their weights; with a held-out part only those that have one.

    Raises:
        TrainingDataError: a source is empty or damaged.
    """
    opened = []
    for source in sources:
        pairs = source.open(data / source.folder, opening)
        if pairs is not None and len(pairs) == 0:
            if not opening.part.held_out:
                raise TrainingDataError(
                    f"training source {source.kind} in {data / source.folder} is empty once validation has its share"
                )
            pairs = None
        if pairs is not None:
            opened.append((pairs, source.weight))
    return opened


def problems(sources: Sequence[tuple[PairSource, float]]) -> list[str]:
    """What could not be used when the sources were opened."""
    return [problem for source, _ in sources for problem in source.problems]
