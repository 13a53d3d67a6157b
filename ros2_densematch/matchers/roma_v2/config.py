"""The options of `roma_v2` and its presets."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from ros2_densematch.matchers.common.dense.config import TwoPassConfig, whole_patches
from ros2_densematch.matchers.common.dense.sampling import Sampling

_PATCH = 16  # pixels of a side of DINOv3's patches
# the density of drawn matches is estimated against so many of them
_OURS = Sampling(mode="certainty", density_points=3000)
# exact density, chances proportional to the certainty
PUBLISHED = Sampling(mode="certainty")


class RomaV2Config(TwoPassConfig):
    """As of `TwoPassConfig`, with the version and the released draw; `sampling="published"` is short for both settings
    of the latter."""

    version: Literal["auto", "2.0.1", "2.0.0"] = Field(
        "auto", description="The network has this version if the weights do not state one."
    )
    direction: Literal["both", "reference_to_query", "query_to_reference"] = Field(
        "reference_to_query",
        description="The warp of this direction is computed; both is the published symmetric mode.",
    )
    overlap_threshold: float = Field(
        1.0,
        ge=0.0,
        le=1.0,
        description="Certainties above this count as 1; the released benchmark presets use 0.05, and 1 has no effect.",
    )
    sampling: Sampling = Field(
        _OURS, description="These settings control how matches are sampled from the warp; they have their own names."
    )
    published_draw: bool = Field(
        False,
        description="If true, cells near the border are left out as in the released sampling; use this for comparison.",
    )

    @model_validator(mode="before")
    @classmethod
    def _published(cls, values: Any) -> Any:
        sampling = values.get("sampling")
        if not isinstance(sampling, str):
            return values
        if sampling != "published":
            raise ValueError(f"unknown sampling {sampling!r}: give 'published', or single settings")
        return {**values, "sampling": PUBLISHED, "published_draw": True}

    @field_validator("coarse_size")
    @classmethod
    def _whole_patches(cls, value: tuple[int, int]) -> tuple[int, int]:
        return whole_patches(value, _PATCH)


# as published; the released default is "precise"
PRESETS = {
    "turbo": RomaV2Config(coarse_size=(320, 320)),
    "fast": RomaV2Config(coarse_size=(512, 512)),
    "base": RomaV2Config(coarse_size=(640, 640)),
    "precise": RomaV2Config(coarse_size=(800, 800), upsample_size=(1280, 1280), direction="both"),
}
