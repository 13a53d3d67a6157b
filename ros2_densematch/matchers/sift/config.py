"""The options of `sift` and its presets."""

from __future__ import annotations

from pydantic import Field

from ros2_densematch.matchers.config import MatcherConfig


class SiftConfig(MatcherConfig):
    """How many key points, and how distinct a match must be."""

    keypoints: int = Field(4096, ge=1, le=1_000_000, description="At most this many key points are taken per image.")
    ratio: float = Field(
        0.8,
        gt=0.0,
        le=1.0,
        description="A match is kept if the ratio of the distances to its nearest and its second-nearest descriptor "
        "is at most this.",
    )


PRESETS = {"base": SiftConfig()}
