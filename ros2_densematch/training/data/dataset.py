"""A mixture of pair sources as a map-style dataset: sample i depends only on (seed, i), so training resumes exactly."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from ros2_densematch.training.data.photometric import PhotometricConfig
from ros2_densematch.training.data.sample import Pair, Sample, make_sample
from ros2_densematch.training.data.source import PairSource
from ros2_densematch.training.images import TrainingDataError

MAX_SKIPS = 20


class PairDataset(torch.utils.data.Dataset[Sample]):
    """Samples drawn from weighted sources.

    Sample i is made from a random generator seeded with (seed, i) and nothing else: any worker, any order and any
    resumed run give the same sample. A damaged file is skipped and counted in `skipped` (file or message -> times);
    the sample is then drawn again, still determined by (seed, i).
    """

    def __init__(
        self,
        sources: Sequence[tuple[PairSource, float]],
        *,
        length: int = 1 << 31,
        size: int = 256,
        max_points: int = 1024,
        seed: int = 0,
        photometric: PhotometricConfig | None = None,
        strict: bool = False,
        skip_log: Path | None = None,
        dense: bool = False,
    ) -> None:
        """
        Args:
            sources: pair sources with their weights (any positive numbers).
            length: number of samples; the default is practically endless.
            size: crops are size x size pixels, a multiple of 16.
            max_points: points in a sample, padded.
            seed: decides every sample.
            photometric: how the images are changed.
            strict: raise TrainingDataError for a damaged file instead of skipping it.
            skip_log: text file that gets one line per skip, from worker processes too.
            dense: samples hold the dense truth too.

        Raises:
            ValueError: no source, a weight that is not positive, a size that is no multiple of 32, or dense truth
                wanted of a source that has none.
        """
        if not sources:
            raise ValueError("no source of training pairs: give at least one with a weight")
        without = [s.name for s, _ in sources if dense and not s.has_dense]
        if without:
            raise ValueError(
                f"the recipe says dense: true, but {', '.join(without)} among its sources can give no dense truth: "
                "take photos, scenes, megadepth, scannet, or a bag with depth and poses"
            )
        weights = np.array([w for _, w in sources], np.float64)
        if not (np.isfinite(weights).all() and (weights > 0).all()):
            raise ValueError(f"weights of training sources must be positive, got {weights.tolist()}")
        if size <= 0 or size % 16:
            raise ValueError(f"crop size must be a positive multiple of 16, got {size}")
        self.sources = [s for s, _ in sources]
        self._chance = weights / weights.sum()
        self._length, self.size, self.max_points, self.seed = length, size, max_points, seed
        self._photometric = photometric or PhotometricConfig()
        self._strict, self._skip_log, self._dense = strict, skip_log, dense
        self.skipped: Counter[str] = Counter()

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: int) -> Sample:
        if not 0 <= index < self._length:
            raise IndexError(f"sample {index} of {self._length}")
        rng = np.random.default_rng((self.seed, index))
        pair = self._draw(rng)
        return make_sample(pair, rng, self.max_points, self._photometric, dense=self._dense, group=index)

    def _draw(self, rng: np.random.Generator) -> Pair:
        for _ in range(MAX_SKIPS):
            number = int(rng.choice(len(self.sources), p=self._chance))
            try:
                pair = self.sources[number].draw(rng, self.size)
                # each source counts its groups from 0
                return pair if pair.group < 0 else replace(pair, group=(number << 40) + pair.group)
            except TrainingDataError as error:
                if self._strict:
                    raise
                self._note_skip(str(error))
        worst = self.skipped.most_common(1)[0][0]
        raise TrainingDataError(f"{MAX_SKIPS} training files in a row could not be used, the latest cause: {worst}")

    def _note_skip(self, message: str) -> None:
        self.skipped[message] += 1
        if self._skip_log is not None:
            with self._skip_log.open("a", encoding="utf-8") as stream:
                stream.write(" ".join(message.split()) + "\n")

    def weighted_sources(self) -> list[tuple[PairSource, float]]:
        """The sources with their chances, for stages that draw in their own way."""
        return list(zip(self.sources, self._chance.tolist(), strict=True))

    def files(self) -> list[Path]:
        """Every file the sources may read, each once, sorted."""
        return sorted({path for source in self.sources for path in source.files()})
