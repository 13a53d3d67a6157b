"""The options that CNNGeometric and weak alignment share."""

from __future__ import annotations

from pydantic import Field

from ros2_densematch.matchers.config import MatcherConfig


class ParametricConfig(MatcherConfig):
    """How often the transformation is estimated."""

    iterations: int = Field(
        1, ge=1, le=50, description="The first stage runs this many times; the second runs once after it."
    )
