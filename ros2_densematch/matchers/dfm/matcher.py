"""DFM as released: Efe, Ince, Alatan, "DFM: a performance baseline for deep feature matching", CVPR workshops 2021."""

from __future__ import annotations

from functools import cached_property

from torch import Tensor

from ros2_densematch.matchers.common.pyramid.matcher import FIRST, PyramidMatcher
from ros2_densematch.matchers.dfm.config import PRESETS, DfmConfig
from ros2_densematch.matchers.network import State
from ros2_densematch.nn.vgg_maps import VggMaps

# stride -> module of VGG-19 (conv1_2, conv2_2, relu3_2, relu4_2, conv5_2; conv5_3 for the first homography)
TAPS: dict[str, dict[int, int]] = {
    "vgg19": {1: 2, 2: 7, 4: 12, 8: 21, 16: 30, FIRST: 32},
    "vgg19_bn": {1: 3, 2: 10, 4: 17, 8: 30, 16: 43, FIRST: 46},
}
# of the coarsest stride and of the first homography, as released
_COARSE_RATIOS = {16: 0.95, FIRST: 1.0}


class DfmMatcher(PyramidMatcher):
    """DFM; see `docs/matchers/dfm.md`."""

    name = "dfm"
    PRESETS = PRESETS
    config: DfmConfig
    network: VggMaps
    # the released code drops what lies nearer to the rim than a cell
    margin = 16

    def _checkpoint(self) -> str:
        return self.config.backbone

    def _build(self, state: State | None) -> VggMaps:
        backbone = self.config.backbone
        return VggMaps(TAPS[backbone], batch_norm=backbone == "vgg19_bn")

    def _ready(self, network: VggMaps) -> VggMaps:
        # its maps are taken between convolution and batch norm: nothing can be folded
        return network.eval().requires_grad_(False).to(self.device)

    @cached_property
    def ratios(self) -> dict[int, float]:
        """As of `PyramidMatcher.ratios`."""
        return {**_COARSE_RATIOS, **dict.fromkeys((1, 2, 4, 8), self.config.ratio)}

    def draw_maps(self, image: Tensor) -> dict[int, Tensor]:
        """As of `PyramidMatcher.draw_maps`."""
        maps: dict[int, Tensor] = self.network(image)
        return maps
