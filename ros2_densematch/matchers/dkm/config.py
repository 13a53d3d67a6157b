"""The options of `dkm` and its presets."""

from __future__ import annotations

from pydantic import Field

from ros2_densematch.matchers.common.dense.config import DenseConfig


class DkmConfig(DenseConfig):
    """As of `DenseConfig`, and which refiners."""

    coarse_size: tuple[int, int] = Field(
        (540, 720), description="Images are resized to this height and width for the coarse pass."
    )
    local_correlation: bool = Field(
        True,
        description="If true, the refiners correlate locally, as released; otherwise they are those that the paper "
        "describes.",
    )


PRESETS = {
    "turbo": DkmConfig(coarse_size=(384, 512), direction="reference_to_query"),
    "fast": DkmConfig(direction="reference_to_query"),
    "base": DkmConfig(upsample_size=(864, 1152)),
    "precise": DkmConfig(coarse_size=(660, 880), upsample_size=(1152, 1536)),
}
# the released indoor model's settings take the place of base
INDOOR_PRESETS = {**PRESETS, "base": DkmConfig(coarse_size=(480, 640))}
