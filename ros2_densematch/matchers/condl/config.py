"""The options of `condl` and its presets."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from ros2_densematch.matchers.config import MatcherConfig


class CondlConfig(MatcherConfig):
    """How large the working image is, and where it is sampled."""

    max_pixels: int = Field(
        320_000,
        ge=256,
        le=100_000_000,
        description="Images with more pixels are reduced internally; coordinates stay those of the original.",
    )
    step: float = Field(
        4.0,
        ge=0.5,
        le=256.0,
        description="The samples are this many pixels of the working image apart; any number in the range is possible.",
    )
    detector: Literal["grid", "sift"] = Field(
        "grid",
        description="The detector grid samples everywhere, sift at up to 4096 of OpenCV's SIFT key points.",
    )
    min_similarity: float = Field(
        0.0, ge=-1.0, lt=1.0, description="Matches with a smaller cosine than this are dropped."
    )
    subpixel: bool = Field(
        True,
        description="If true, the query position of each match moves to the best agreement of descriptors and grey "
        "values; otherwise it stays on its sample, as in the paper.",
    )


PRESETS = {
    "turbo": CondlConfig(max_pixels=80_000, step=8.0),
    "fast": CondlConfig(max_pixels=160_000),
    "base": CondlConfig(),
    "precise": CondlConfig(max_pixels=640_000, step=2.0),
}
