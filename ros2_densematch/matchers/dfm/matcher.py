"""DFM as released: Efe, Ince, Alatan, "DFM: a performance baseline for deep feature matching", CVPR workshops 2021."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from ros2_densematch.matchers.common.pyramid.matcher import FIRST, PyramidMatcher
from ros2_densematch.nn.device import choose_device
from ros2_densematch.nn.vgg_maps import VggMaps
from ros2_densematch.weights.loading import load_exactly
from ros2_densematch.weights.store import read_checkpoint

# stride -> module of VGG-19 (conv1_2, conv2_2, relu3_2, relu4_2, conv5_2; conv5_3 for the first homography)
TAPS: dict[str, dict[int, int]] = {
    "vgg19": {1: 2, 2: 7, 4: 12, 8: 21, 16: 30, FIRST: 32},
    "vgg19_bn": {1: 3, 2: 10, 4: 17, 8: 30, 16: 43, FIRST: 46},
}
RATIOS = {1: 0.9, 2: 0.9, 4: 0.9, 8: 0.9, 16: 0.95, FIRST: 1.0}


class DfmMatcher(PyramidMatcher):
    """DFM; see `docs/matchers/dfm.md`."""

    name = "dfm"
    # the released code drops what lies nearer to the rim than a cell
    margin = 16

    def __init__(
        self,
        *,
        device: str = "auto",
        preset: str = "base",
        weights: str | None = None,
        backbone: Literal["vgg19", "vgg19_bn"] = "vgg19",
        two_stage: bool = True,
        ratio: float | None = None,
    ) -> None:
        """
        Args:
            device: "auto", "cpu", "cuda" or "cuda:N".
            preset: "turbo", "fast", "base" or "precise": how large the working image may be.
            weights: None for torchvision's ImageNet weights of the backbone, "random", or a file of them.
            backbone: "vgg19" or "vgg19_bn".
            two_stage: warp the query by a first homography.
            ratio: one threshold for strides 1 to 8 in place of the released 0.9.

        Raises:
            ValueError: unknown preset, backbone or device, or weights of another network.
            FileNotFoundError: the weights were not fetched; the message names licence and command.
        """
        if backbone not in TAPS:
            raise ValueError(f"unknown backbone {backbone!r} of dfm: choose one of {', '.join(TAPS)}")
        ratios = RATIOS if ratio is None else {**RATIOS, **dict.fromkeys((1, 2, 4, 8), ratio)}
        super().__init__(preset=preset, two_stage=two_stage, ratios=ratios)
        self.device = str(choose_device(device))
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(0)
            self._network = VggMaps(TAPS[backbone], batch_norm=backbone == "vgg19_bn")
        if weights != "random":
            load_exactly(self._network, read_checkpoint(backbone, weights), Path(weights or backbone))
        self._network.eval().requires_grad_(False).to(self.device)

    def draw_maps(self, image: Tensor) -> dict[int, Tensor]:
        """As of `PyramidMatcher.draw_maps`."""
        maps: dict[int, Tensor] = self._network(image)
        return maps
