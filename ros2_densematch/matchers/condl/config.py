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
        description="Larger images are made smaller inside; coordinates stay those of the original.",
    )
    step: float = Field(
        4.0,
        ge=0.5,
        le=256.0,
        description="The samples are this many pixels of the working image apart; any number is possible.",
    )
    detector: Literal["grid", "sift"] = Field(
        "grid",
        description="The detector grid samples everywhere, sift at OpenCV's SIFT key points, of which it takes 4096 "
        "at most.",
    )
    least_similarity: float = Field(0.0, ge=-1.0, lt=1.0, description="Matches with a smaller cosine are dropped.")
    subpixel: bool = Field(
        True,
        description="When true, the query's place of each match moves to where descriptors and grey values agree "
        "best; otherwise it stays on its sample, as in the paper.",
    )


PRESETS = {
    "turbo": CondlConfig(max_pixels=80_000, step=8.0),
    "fast": CondlConfig(max_pixels=160_000),
    "base": CondlConfig(),
    "precise": CondlConfig(max_pixels=640_000, step=2.0),
}
