"""Pairs from single photos: two crops related by a random homography, with exact points."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
from pydantic import Field

from ros2_densematch.arrays import Float64
from ros2_densematch.io.sources.folder import SUFFIXES as IMAGE_SUFFIXES
from ros2_densematch.io.sources.storage import is_bag
from ros2_densematch.training.data.crops import apply_homography
from ros2_densematch.training.data.homography import HomographyConfig, homography_pair
from ros2_densematch.training.data.judged import RIGHT_PX, JudgedPair, MatchLabels
from ros2_densematch.training.data.sample import Pair, Part, part_of
from ros2_densematch.training.data.source import Opening, PairSource, SourceConfig
from ros2_densematch.training.images import ImageStore, TrainingDataError


class PhotosSource(SourceConfig):
    """Single photos, two crops related by a homography."""

    kind: Literal["photos"]
    folder: Path = Field(
        Path("train_photos"), description="The photos lie in this folder, relative to the data folder."
    )
    settings: HomographyConfig = HomographyConfig()

    def is_there(self, data: Path) -> bool:
        if self.folder == Path("."):
            # "whatever --data is": a bag or a video holds frames, but no image files
            return data.is_dir() and not is_bag(data) and _holds_images(data)
        return super().is_there(data)

    @classmethod
    def recognise(cls, data: Path, wanted: Sequence[SourceConfig]) -> PhotosSource | None:
        # Images farther below may be anything, the ones that are measured on among them: `folder: .` asks for them.
        if not data.is_dir() or not any(f.suffix.lower() in IMAGE_SUFFIXES for f in data.iterdir()):
            return None
        return cls(kind="photos", weight=1, folder=Path("."), settings=photo_settings(wanted))

    def open(self, folder: Path, opening: Opening) -> PairSource:
        return HomographyPairs(folder, config=self.settings, store=opening.store, part=opening.part)


def photo_settings(wanted: Sequence[SourceConfig]) -> HomographyConfig:
    """How a recipe's photos are cropped, or the default."""
    return next((s.settings for s in wanted if isinstance(s, PhotosSource)), HomographyConfig())


def _holds_images(folder: Path) -> bool:
    return any(p.suffix.lower() in IMAGE_SUFFIXES for p in folder.rglob("*"))


class HomographyPairs(PairSource):
    """Draws a photo and two crops of it related by a random homography."""

    name = "photos"
    has_dense = True

    def __init__(
        self,
        folder: Path | str,
        *,
        config: HomographyConfig | None = None,
        store: ImageStore | None = None,
        name: str = "photos",
        part: Part | None = None,
    ) -> None:
        """Args: folder: searched for .jpg and .png files at any depth; part: of the photos, for validation."""
        self.name = name
        self.config = config or HomographyConfig()
        self._store = store or ImageStore()
        root = Path(folder)
        found = (p for p in root.rglob("*") if p.suffix.lower() in (".jpg", ".jpeg", ".png"))
        self._paths = sorted(p for p in found if not is_depth_map(p))
        if not self._paths:
            raise TrainingDataError(f"no .jpg or .png photo in {root}: point --data to the training data")
        self._paths = part_of(self._paths, part or Part())

    def __len__(self) -> int:
        return len(self._paths)

    def files(self) -> list[Path]:
        return list(self._paths)

    def draw(self, rng: np.random.Generator, size: int) -> Pair:
        group = int(rng.integers(len(self._paths)))
        return homography_pair(self._store.get(self._paths[group]), rng, size, self.config, group)

    def judged(self) -> JudgedPhotos:
        return JudgedPhotos(self)


class JudgedPhotos:
    """Two crops of a photo under a random homography."""

    def __init__(self, source: HomographyPairs, size: int = 416) -> None:
        self._source, self._size = source, size

    def draw(self, rng: np.random.Generator) -> JudgedPair:
        pair = self._source.draw(rng, self._size)
        # the points are exact: any method recovers the homography
        h, _ = cv2.findHomography(pair.points0.astype(np.float64), pair.points1.astype(np.float64), 0)
        if h is None:
            raise TrainingDataError("a crop of a photo without common points: widen the recipe's photo settings")
        homography = np.asarray(h, np.float64)

        def judge(xy0: Float64, xy1: Float64) -> MatchLabels:
            error = np.linalg.norm(apply_homography(homography, xy0) - xy1, axis=1)
            return np.asarray(error < RIGHT_PX, np.int8)

        return JudgedPair(pair.image0, pair.image1, judge)


def is_depth_map(path: Path) -> bool:
    """Whether a file is a PNG of one 16-bit channel, as depth is stored in beside the photos of a sequence."""
    if path.suffix.lower() != ".png":
        return False
    try:
        with path.open("rb") as stream:
            header = stream.read(26)
    except OSError:
        return False  # told when it is drawn
    # signature, length and name of the first chunk, width and height; then bits a sample and colour type
    return header[12:16] == b"IHDR" and header[24:26] == b"\x10\x00"
