"""The options of `ncnet` and its presets."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from ros2_densematch.matchers.config import MatcherConfig


class NcnetConfig(MatcherConfig):
    """How large the images are, and which cells are matched."""

    longer_side: int = Field(
        1024,
        ge=0,
        le=100_000,
        description="Longer side of the working image in pixels; 0 makes every image 400 x 400, aspect not kept.",
    )
    relocalisation: int = Field(
        2, ge=1, le=8, description="Side of the boxes over which the correlation is pooled; 1 leaves it as it is."
    )
    both_directions: bool = Field(
        True, description="Whether the cells of both images are matched, else those of the query only."
    )
    corner_aligned: bool = Field(
        False,
        description="Whether the outer cells' centres lie on the image's outer pixels (PF-Pascal); else cells tile it.",
    )
    architecture: Literal["ivd", "pfpascal"] = Field(
        "ivd", description="The network of untrained weights, and of the official checkpoint that is loaded."
    )


PRESETS = {
    "small": NcnetConfig(longer_side=320),
    "base": NcnetConfig(),
    "large": NcnetConfig(longer_side=1600),
    "inloc": NcnetConfig(longer_side=3200),
    "pfpascal": NcnetConfig(
        longer_side=0, relocalisation=1, both_directions=False, corner_aligned=True, architecture="pfpascal"
    ),
}
