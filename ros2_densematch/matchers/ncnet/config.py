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
        description="The longer side of the working image has this many pixels; with 0, every image is resized to 400 "
        "x 400 regardless of its aspect ratio.",
    )
    relocalisation: int = Field(
        2, ge=1, le=8, description="The correlation is pooled over boxes of this side; 1 disables the pooling."
    )
    both_directions: bool = Field(
        True, description="If true, the cells of both images are matched, otherwise only those of the query."
    )
    corner_aligned: bool = Field(
        False,
        description="If true, the centres of the outer cells lie on the outer pixels of the image (PF-Pascal); "
        "otherwise the cells tile the image.",
    )
    architecture: Literal["ivd", "pfpascal"] = Field(
        "ivd",
        description="The network has this architecture: that of the official checkpoint to load, or of "
        "untrained weights.",
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
