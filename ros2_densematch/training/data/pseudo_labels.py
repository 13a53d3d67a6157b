"""Correspondences that a matcher finds between two images, as truth for another one: made once and kept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from ros2_densematch.deprecation import current_name
from ros2_densematch.files.atomic import replacing
from ros2_densematch.matchers.base import Matcher
from ros2_densematch.matchers.registry import load_matcher
from ros2_densematch.training.data.photometric import PhotometricConfig
from ros2_densematch.training.data.sample import Pair, Sample, make_sample
from ros2_densematch.training.data.source import PairSource
from ros2_densematch.training.images import TrainingDataError

_MAX_ATTEMPTS = 20


class TeacherConfig(BaseModel):
    """Who writes the labels, and which of them are believed."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    matcher: str = Field(description="This matcher is the teacher, as roma, dkm, tiny_roma or gcm.")
    preset: str = Field("base", description="The teacher runs with this preset.")
    weights: str | None = Field(
        None, description="The teacher has these weights; null takes the fetched or shipped ones."
    )
    options: dict[str, Any] = Field(default_factory=dict, description="These are further arguments of load_matcher.")
    min_score: float = Field(0.5, ge=0, le=1, description="Matches that score less than this are not believed.")
    min_matches: int = Field(60, ge=2, description="Pairs with fewer matches than this are drawn again.")
    max_matches: int = Field(3000, ge=2, description="This many matches of a pair are kept at most.")

    @model_validator(mode="before")
    @classmethod
    def _with_present_names(cls, given: Any) -> Any:
        if not isinstance(given, Mapping):
            return given
        return {current_name(name, cls.model_fields, "field"): value for name, value in given.items()}


class PseudoLabels(torch.utils.data.Dataset[Sample]):
    """Pairs of views with the teacher's matches as points; the truth that the sources may have is not looked at.

    Sample i shows pair i modulo `count`, whose labels depend on the teacher and (seed, i modulo count) alone, changed
    photometrically by (seed, i).
    """

    def __init__(
        self,
        sources: Sequence[tuple[PairSource, float]],
        teacher: TeacherConfig,
        folder: Path,
        *,
        count: int,
        size: int,
        seed: int,
        max_points: int,
        photometric: PhotometricConfig,
    ) -> None:
        """
        Args:
            sources: of views, with weights.
            teacher: who labels them.
            folder: in which the labels are kept.
            count: pairs.
            size: of the views, pixels.
            seed: decides which views.
            max_points: in a sample.
            photometric: how the student's images are changed.
        """
        self._sources = [s for s, _ in sources]
        weights = np.array([w for _, w in sources], np.float64)
        self._chance = weights / weights.sum()
        self._config, self._folder, self._count, self._size = teacher, folder, count, size
        self._seed, self._max_points, self._photometric = seed, max_points, photometric
        self._teacher: Matcher | None = None
        folder.mkdir(parents=True, exist_ok=True)

    def __len__(self) -> int:
        return 1 << 31

    def __getitem__(self, index: int) -> Sample:
        pair = self._labelled(index % self._count)
        rng = np.random.default_rng((self._seed, 11, index))
        return make_sample(pair, rng, self._max_points, self._photometric)

    def _labelled(self, number: int) -> Pair:
        path = self._folder / f"pair_{self._seed}_{number:06d}.safetensors"
        stored = _read(path)
        if stored is None:
            stored = self._label(number)
            with replacing(path) as temporary:
                save_file(stored, str(temporary))
        arrays = {name: tensor.numpy() for name, tensor in stored.items()}
        return Pair(arrays["image0"], arrays["image1"], arrays["points0"], arrays["points1"], None, number)

    def _label(self, number: int) -> dict[str, Tensor]:
        config = self._config
        if self._teacher is None:
            self._teacher = load_matcher(config.matcher, preset=config.preset, weights=config.weights, **config.options)
        rng = np.random.default_rng((self._seed, 7, number))
        for _ in range(_MAX_ATTEMPTS):
            source = self._sources[int(rng.choice(len(self._sources), p=self._chance))]
            try:
                pair = source.draw(rng, self._size)
            except TrainingDataError as error:
                fault = str(error)
                continue
            encodings = [self._teacher.encode(image) for image in (pair.image0, pair.image1)]
            found = self._teacher.match(*encodings, max_matches=config.max_matches, seed=number)
            sure = found.score >= config.min_score
            if sure.sum() >= config.min_matches:
                contents = {
                    "image0": pair.image0,
                    "image1": pair.image1,
                    "points0": found.reference_xy[sure],
                    "points1": found.query_xy[sure],
                }
                return {name: torch.from_numpy(np.ascontiguousarray(value)) for name, value in contents.items()}
            fault = f"{config.matcher} found {int(sure.sum())} matches of score {config.min_score} or more"
        raise TrainingDataError(
            f"{_MAX_ATTEMPTS} pairs in a row gave no labels, the latest: {fault}: lower min_score or min_matches, or "
            "check the data"
        )


def _read(path: Path) -> dict[str, Tensor] | None:
    try:
        return load_file(str(path))
    except FileNotFoundError:
        return None
    except (SafetensorError, OSError):
        return None  # damaged: made again
