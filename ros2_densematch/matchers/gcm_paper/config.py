"""The options of `gcm_paper` and its presets."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pydantic import Field

from ros2_densematch.matchers.common.pyramid.config import PyramidConfig

Function = Callable[..., Any]


class GcmPaperConfig(PyramidConfig):
    """Backbone, descriptor and thresholds."""

    backbone: str | Function = Field(
        "vgg19",
        description="The pyramid comes from this network: a built-in name, timm:NAME, torchvision:NAME or, in Python, "
        "a function.",
    )
    backbone_weights: str = Field(
        "",
        description="The backbone has these weights: published, random, or those of a file; if empty, they are random "
        "if those of the descriptor are random, otherwise published.",
    )
    descriptor: str | Function = Field(
        "student", description="The last step uses this patch descriptor: a built-in name or, in Python, a function."
    )
    ratio: float = Field(
        1.0,
        ge=-1.0,
        le=1.0,
        description="Threshold of the ratio test down to stride 2; it leaves the decision to the last step at 1.",
    )
    fine_ratio: float = Field(
        0.95,
        ge=-1.0,
        le=1.0,
        description="The ratio test of the last step has this threshold; 0.95 gives many matches, as in the paper, "
        "0.6 fewer and better ones.",
    )


PRESETS = {
    "turbo": GcmPaperConfig(max_pixels=80_000),
    "fast": GcmPaperConfig(max_pixels=200_000),
    "base": GcmPaperConfig(),
    "precise": GcmPaperConfig(max_pixels=4_000_000),
}
