"""Pairs of photos that show the same thing, from a CSV file: weak supervision without any point."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from ros2_densematch.arrays import Image
from ros2_densematch.training.data.sample import Pair, Part, part_of
from ros2_densematch.training.data.source import Opening, PairSource, SourceConfig
from ros2_densematch.training.images import ImageStore, TrainingDataError


class CsvPairsConfig(BaseModel):
    """How the CSV file is read and images are laid."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    images: Path | None = Field(
        None, description="The images lie in this folder, relative to the CSV file's; null takes the CSV file's own."
    )
    crop: float = Field(0.0, ge=0, lt=0.5, description="At most this share is cut off each side, at random.")
    flip: float = Field(0.0, ge=0, le=1, description="Both images of this share of the pairs are mirrored.")


class PairsCsvSource(SourceConfig):
    """Pairs of photos that show the same thing, without points."""

    kind: Literal["pairs_csv"]
    folder: Path = Field(description="The CSV file lies here, relative to the data folder.")
    settings: CsvPairsConfig = CsvPairsConfig()

    @classmethod
    def recognise(cls, data: Path, wanted: Sequence[SourceConfig]) -> PairsCsvSource | None:
        return cls(kind="pairs_csv", weight=1, folder=Path(".")) if data.suffix.lower() == ".csv" else None

    def open(self, folder: Path, opening: Opening) -> PairSource:
        return CsvPairs(folder, config=self.settings, store=opening.store, part=opening.part)


@dataclass(frozen=True)
class _Row:
    image0: Path
    image1: Path
    group: int
    mirrored: bool


class CsvPairs(PairSource):
    """Draws rows of a CSV file with a header and one pair a line.

    The first two columns are the images. A column `class` (or `group`, `set`) says what they show: images of
    different classes are negatives of each other; without it each line is a class of its own. A column `flip` that is 1
    says that both images are to be mirrored (PF-PASCAL's lists). Images are resized to the crop size, each side by its
    own factor.
    """

    name = "pairs_csv"
    has_dense = False

    def __init__(
        self,
        file: Path | str,
        *,
        config: CsvPairsConfig | None = None,
        store: ImageStore | None = None,
        part: Part | None = None,
    ) -> None:
        """Raises TrainingDataError: the file cannot be read, or has no pair."""
        self.config = config or CsvPairsConfig()
        self._store = store or ImageStore()
        self._file = Path(file)
        rows = self._read(self._file.parent / (self.config.images or ""))
        if not rows:
            raise TrainingDataError(f"{self._file} names no pair: give a header and one pair of images a line")
        self._rows = part_of(rows, part or Part())

    def _read(self, images: Path) -> list[_Row]:
        try:
            with self._file.open(newline="", encoding="utf-8-sig") as stream:
                reader = csv.reader(stream)
                header = [name.strip().lower() for name in next(reader, [])]
                lines = [(reader.line_num, line) for line in reader if line]
        except (OSError, csv.Error, UnicodeDecodeError) as error:
            raise TrainingDataError(f"cannot read {self._file}: {error}: give a CSV file of image pairs") from error
        if header and Path(header[0]).suffix:
            raise TrainingDataError(f"{self._file} has no header: begin it with a line such as image0,image1,class")
        kind = next((header.index(n) for n in ("class", "group", "set") if n in header), None)
        flip = header.index("flip") if "flip" in header else None
        classes: dict[str, int] = {}
        rows = []
        for number, line in lines:
            if len(line) < 2 or len(line) < len(header):
                raise TrainingDataError(
                    f"{self._file} line {number} has {len(line)} columns, not {len(header)}: repair it"
                )
            name = f"line {number}" if kind is None else line[kind].strip()
            group = classes.setdefault(name, len(classes))
            mirrored = flip is not None and line[flip].strip() in ("1", "true", "True")
            rows.append(_Row(images / line[0].strip(), images / line[1].strip(), group, mirrored))
        return rows

    def __len__(self) -> int:
        return len(self._rows)

    def files(self) -> list[Path]:
        """The CSV file and the images that are there; a missing one is told when it is drawn."""
        found = {p for row in self._rows for p in (row.image0, row.image1) if p.is_file()}
        return [self._file, *sorted(found)]

    def draw(self, rng: np.random.Generator, size: int) -> Pair:
        row = self._rows[int(rng.integers(len(self._rows)))]
        mirrored = row.mirrored != (rng.random() < self.config.flip)
        image0, image1 = (self._laid(self._store.get(p), rng, size, mirrored) for p in (row.image0, row.image1))
        none = np.zeros((0, 2), np.float32)
        return Pair(image0, image1, none, none, group=row.group)

    def _laid(self, image: Image, rng: np.random.Generator, size: int, mirrored: bool) -> Image:
        height, width = image.shape[:2]
        left, right = (rng.uniform(0, self.config.crop, 2) * width).astype(int)
        top, bottom = (rng.uniform(0, self.config.crop, 2) * height).astype(int)
        cut = image[top : height - bottom, left : width - right]
        if mirrored:
            cut = cut[:, ::-1]
        smaller = cut.shape[0] > size and cut.shape[1] > size
        method = cv2.INTER_AREA if smaller else cv2.INTER_LINEAR
        return np.ascontiguousarray(cv2.resize(cut, (size, size), interpolation=method), dtype=np.uint8)
