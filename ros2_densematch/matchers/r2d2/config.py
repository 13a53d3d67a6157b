"""The options of `r2d2` and its presets."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from ros2_densematch.matchers.config import MatcherConfig


class R2d2Config(MatcherConfig):
    """Which network, how large the image, and which key points."""

    variant: Literal["fast", "quad", "big"] = Field(
        "quad", description="Size of the network, from small to large; each has its own official weights."
    )
    max_size: int = Field(
        1024, ge=16, le=100_000, description="The longer side of the finest level has at most this many pixels."
    )
    keypoints: int = Field(5000, ge=1, le=1_000_000, description="At most this many key points are taken per image.")
    min_reliability: float = Field(0.7, ge=0.0, le=1.0, description="A key point has at least this reliability.")
    min_repeatability: float = Field(0.7, ge=0.0, le=1.0, description="A key point has at least this repeatability.")


PRESETS = {
    "turbo": R2d2Config(variant="fast", max_size=480, keypoints=1000),
    "fast": R2d2Config(variant="fast"),
    "base": R2d2Config(),
    "precise": R2d2Config(variant="big", max_size=1600, keypoints=10_000),
}
CHECKPOINTS = {"fast": "faster2d2_WASF_N16", "quad": "r2d2_WASF_N16", "big": "r2d2_WASF_N8_big"}
