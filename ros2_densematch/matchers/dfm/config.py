"""The options of `dfm` and its presets."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from ros2_densematch.matchers.common.pyramid.config import PyramidConfig


class DfmConfig(PyramidConfig):
    """Backbone and threshold."""

    backbone: Literal["vgg19", "vgg19_bn"] = Field(
        "vgg19", description="The pyramid comes from this network, without or with batch norm."
    )
    ratio: float = Field(
        0.9, ge=-1.0, le=1.0, description="Threshold of the ratio test at strides 8 to 1; it accepts all matches at -1."
    )


PRESETS = {
    "turbo": DfmConfig(max_pixels=80_000),
    "fast": DfmConfig(max_pixels=200_000),
    "base": DfmConfig(),
    "precise": DfmConfig(max_pixels=4_000_000),
}
