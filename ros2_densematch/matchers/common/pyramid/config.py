"""The options that DFM and GCM as published share."""

from __future__ import annotations

from pydantic import Field, field_validator

from ros2_densematch.matchers.config import MatcherConfig


class PyramidConfig(MatcherConfig):
    """How large the working image is, and how many stages there are."""

    max_pixels: int = Field(
        1_000_000,
        ge=256,
        le=100_000_000,
        description="Images with more pixels are reduced internally; coordinates stay those of the original.",
    )
    two_stage: bool = Field(
        True, description="If true, the query is warped by a first homography before it is matched."
    )

    @field_validator("ratio", "fine_ratio", check_fields=False)
    @classmethod
    def _accepting_or_a_share(cls, value: float) -> float:
        if value != -1 and not 0 < value <= 1:
            raise ValueError("the ratio must lie in (0, 1], or be -1, which accepts all")
        return value
