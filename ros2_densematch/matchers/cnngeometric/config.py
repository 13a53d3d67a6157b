"""The options of `cnngeometric` and its presets."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from ros2_densematch.matchers.common.parametric.config import ParametricConfig


class CnnGeometricConfig(ParametricConfig):
    """Which transformation is estimated, and from which features."""

    second_weights: str = Field(
        "",
        description="This file holds the second stage of a cascade if the weights hold only the first; if empty, "
        "there is no second stage.",
    )
    transformation: Literal["auto", "affine", "homography", "tps", "affine+tps", "homography+tps"] = Field(
        "auto",
        description="The network estimates this transformation, in one or two stages; auto uses that of the weights, "
        "or a homography without weights.",
    )
    backbone: Literal["auto", "vgg16", "resnet101"] = Field(
        "auto",
        description="The features come from this network; auto uses that of the weights, or VGG-16 without weights.",
    )


PRESETS = {"base": CnnGeometricConfig(), "refined": CnnGeometricConfig(iterations=5)}
