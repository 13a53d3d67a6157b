"""The options of `cnngeometric` and its presets."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from ros2_densematch.matchers.common.parametric.config import ParametricConfig


class CnnGeometricConfig(ParametricConfig):
    """Which transformation is estimated, and from which features."""

    second_weights: str = Field(
        "",
        description="This file holds the second stage of a cascade, where the weights hold the first alone; empty "
        "takes none.",
    )
    transformation: Literal["auto", "affine", "homography", "tps", "affine+tps", "homography+tps"] = Field(
        "auto",
        description="The network estimates this transformation, in one or two stages; auto takes what the weights "
        "hold, and a homography without any.",
    )
    backbone: Literal["auto", "vgg16", "resnet101"] = Field(
        "auto",
        description="The features come from this network; auto takes what the weights hold, and VGG-16 without any.",
    )


PRESETS = {"base": CnnGeometricConfig(), "refined": CnnGeometricConfig(iterations=5)}
