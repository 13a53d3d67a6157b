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
        description="The longer side of the working image has this many pixels; 0 makes every image 400 x 400, "
        "whatever its aspect.",
    )
    relocalisation: int = Field(
        2, ge=1, le=8, description="The correlation is pooled over boxes of this side; 1 leaves it as it is."
    )
    both_directions: bool = Field(
        True, description="When true, the cells of both images are matched, otherwise those of the query only."
    )
    corner_aligned: bool = Field(
        False,
        description="When true, the outer cells' centres lie on the image's outer pixels (PF-Pascal); otherwise cells "
        "tile it.",
    )
    architecture: Literal["ivd", "pfpascal"] = Field(
        "ivd", description="Untrained weights, and the official checkpoint that is loaded, belong to this network."
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
