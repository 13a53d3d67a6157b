"""The options of matchers with a dense warp."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, field_validator

from ros2_densematch.matchers.common.dense.sampling import Sampling
from ros2_densematch.matchers.config import MatcherConfig

Direction = Literal["both", "reference_to_query", "query_to_reference"]


class SampledConfig(MatcherConfig):
    """In which precision a network runs, and how matches are drawn from its warp."""

    dtype: Literal["float32", "float16", "bfloat16"] = Field(
        "float32", description="The network runs in this number type; warps and certainties stay in float32."
    )
    sampling: Sampling = Field(
        default_factory=Sampling,
        description="These settings control how matches are sampled from the warp; they have their own names.",
    )


class TwoPassConfig(SampledConfig):
    """Sizes of the two passes, direction, and what is kept of a keyframe."""

    coarse_size: tuple[int, int] = Field(
        (560, 560), description="Images are resized to this height and width for the coarse pass."
    )
    upsample_size: tuple[int, int] | None = Field(
        None,
        description="Images are resized to this height and width for the upsampling pass; null or an empty list "
        "disables the pass.",
    )
    direction: Direction = Field(
        "both", description="The warp of this direction is computed; both is the published symmetric mode."
    )
    compile_network: bool = Field(False, description="If true, parts of the network are compiled on first use.")
    keep_shares: bool = Field(
        True,
        description="If true, the contribution of a keyframe's features to the refiners is kept, which saves time and "
        "costs memory.",
    )

    @field_validator("upsample_size", mode="before")
    @classmethod
    def _nothing_is_none(cls, value: Any) -> Any:
        return None if value is False or (isinstance(value, (list, tuple)) and len(value) == 0) else value

    @field_validator("coarse_size", "upsample_size")
    @classmethod
    def _large_enough(cls, value: tuple[int, int] | None) -> tuple[int, int] | None:
        if value is not None and min(value) < 64:
            raise ValueError("sides must be at least 64 pixels: use a larger size")
        return value


class DenseConfig(TwoPassConfig):
    """DKM and RoMa."""

    attenuate_certainty: bool = Field(
        True, description="If true, the certainty is attenuated by the coarse one, as in the released models."
    )


def whole_patches(size: tuple[int, int], patch: int) -> tuple[int, int]:
    """The size itself.

    Raises:
        ValueError: its sides are no multiples of `patch`; the message names the nearest ones.
    """
    if any(side % patch for side in size):
        near = tuple(max(1, round(side / patch)) * patch for side in size)
        raise ValueError(f"sides must be multiples of {patch}: use {near}")
    return size
