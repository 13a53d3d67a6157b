"""The options of `tiny_roma` and its presets."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from ros2_densematch.matchers.common.dense.config import SampledConfig


class TinyRomaConfig(SampledConfig):
    """How large the image is, and how the coarse match is read."""

    max_pixels: int = Field(
        1_000_000,
        ge=1024,
        le=100_000_000,
        description="Images with more pixels are reduced internally; coordinates stay those of the original.",
    )
    position_rule: Literal["released", "intended", "exact"] = Field(
        "released",
        description="This rule computes the position of a coarse match from its best cell: as in the released code, "
        "as intended there, or exactly.",
    )
    cpu_density_stride: int = Field(
        8,
        ge=1,
        le=1_000_000,
        description="On a CPU the density of matches is estimated against every Nth point, and this is N.",
    )


PRESETS = {
    "turbo": TinyRomaConfig(max_pixels=160_000),
    "fast": TinyRomaConfig(max_pixels=320_000),
    "base": TinyRomaConfig(),
    "precise": TinyRomaConfig(max_pixels=2_500_000),
}
