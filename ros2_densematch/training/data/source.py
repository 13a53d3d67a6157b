"""What every source of training pairs has: one file in this folder a source, with all that belongs to it.

Such a file holds the source's entry in a recipe (a `SourceConfig`: its settings, how a data folder of this kind is
recognised, how it is opened), the pairs it draws (a `PairSource`), and how matches in them are judged. The list of
kinds is `data.sources.AnySource`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from ros2_densematch.training.data.judged import JudgedSource, JudgedViews
from ros2_densematch.training.data.posed_views import ViewPair
from ros2_densematch.training.data.recording import Recording
from ros2_densematch.training.data.sample import Pair, Part
from ros2_densematch.training.images import ImageStore

# (what goes on, done, in all, note)
Progress = Callable[[str, int, int, str], None]


class PairSource(ABC):
    """Draws pairs. What it draws depends on `rng` alone, so that training can be resumed to the bit.

    Attributes:
        name: its kind, for messages.
        has_dense: whether its pairs have dense truth.
        has_views: whether `draw_views` has whole views with depth and pose to draw.
        problems: what could not be used when the source was opened, one sentence each.
    """

    name: str = ""
    has_dense: bool = False
    has_views: bool = False
    problems: Sequence[str] = ()

    @abstractmethod
    def __len__(self) -> int:
        """How much there is to draw from; 0 = nothing."""

    @abstractmethod
    def draw(self, rng: np.random.Generator, size: int) -> Pair:
        """One pair of size x size crops. Raises TrainingDataError for a damaged file."""

    @abstractmethod
    def files(self) -> list[Path]:
        """Every file that the source may read."""

    def draw_views(self, rng: np.random.Generator) -> ViewPair:
        """Two whole views with depth and pose. Raises TrainingDataError for a damaged file."""
        raise NotImplementedError(f"training source {self.name!r} has no views with depth and pose")

    def judged(self) -> JudgedSource:
        """Whole image pairs of this source, each with a judge of matches.

        Raises:
            ValueError: nothing in this source can judge a match.
        """
        if self.has_views:
            return JudgedViews(self)
        raise ValueError(
            f"training source {self.name!r} cannot judge matches: use photos, multiview, or views with depth"
        )


@dataclass(frozen=True)
class Opening:
    """What sources need to be opened.

    Attributes:
        out: output folder, for what sources keep.
        report: told about rendering and matching.
        part: the part of each source to draw from.
        primary: whether this process renders what is missing.
        dense: whether the recipe wants dense truth.
        store: decoded images, shared by the sources.
        recordings: those that were read already, by settings; new ones are added.
    """

    out: Path
    report: Progress
    part: Part = field(default_factory=Part)
    primary: bool = True
    dense: bool = False
    store: ImageStore = field(default_factory=ImageStore)
    recordings: dict[str, Recording] = field(default_factory=dict)


class SourceConfig(BaseModel, ABC):
    """A source in a recipe; a subclass adds `kind`, a literal, and its own settings."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: str
    weight: float = Field(gt=0, description="Pairs are drawn from this source so often, relative to the other sources.")
    folder: Path = Field(description="The source lies here, relative to the data folder.")

    def is_there(self, data: Path) -> bool:
        """Whether the data folder holds this source."""
        return (data / self.folder).exists()

    @classmethod
    def recognise(cls, data: Path, wanted: Sequence[SourceConfig]) -> SourceConfig | None:
        """The entry for `data` itself (folder `.`) where it is of this kind, else None.

        Args:
            data: folder or file that a user gave.
            wanted: the sources of the recipe that it takes the place of.
        """
        return None

    @abstractmethod
    def open(self, folder: Path, opening: Opening) -> PairSource | None:
        """Opens the source; None where a held-out part is asked for and it has none.

        Raises:
            TrainingDataError: it is damaged, or not there.
        """
