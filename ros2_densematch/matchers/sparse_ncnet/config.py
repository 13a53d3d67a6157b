"""The options of `sparse_ncnet` and its presets."""

from __future__ import annotations

from pydantic import Field

from ros2_densematch.matchers.config import MatcherConfig


class SparseNcnetConfig(MatcherConfig):
    """How large the images are, and how much of the correlation is kept."""

    longer_side: int = Field(
        1024, ge=16, le=100_000, description="The longer side of the working image has this many pixels."
    )
    soft: bool = Field(
        True, description="If true, matches are refined to positions between cells after the hard relocalisation."
    )
    neighbours: int = Field(10, ge=1, le=1000, description="This many partners are kept for every cell.")


PRESETS = {
    "small": SparseNcnetConfig(longer_side=256),
    "base": SparseNcnetConfig(),
    "large": SparseNcnetConfig(longer_side=1600),
    "hpatches": SparseNcnetConfig(longer_side=3200),
}
