"""`tiny_roma`: Tiny RoMa v1 as released; see `docs/matchers/tiny_roma.md`."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ros2_densematch.arrays import Image, Mask
from ros2_densematch.graphs.graph import Graph
from ros2_densematch.matchers.base import Encoding
from ros2_densematch.matchers.common.dense.matcher import SampledMatcher
from ros2_densematch.matchers.common.dense.result import DenseResult
from ros2_densematch.matchers.common.dense.sampling import Sampling
from ros2_densematch.matchers.common.working_image import to_tensor, working_image
from ros2_densematch.matchers.network import State, for_inference
from ros2_densematch.matchers.tiny_roma.config import PRESETS, TinyRomaConfig
from ros2_densematch.matchers.tiny_roma.graph import encoder_graph, matcher_graph
from ros2_densematch.matchers.tiny_roma.network import TinyFeatures, TinyRomaNetwork
from ros2_densematch.nn.device import to_channels_last
from ros2_densematch.nn.grid import resize

# the network's input sides are multiples of this
_MULTIPLE = 32


@dataclass(frozen=True)
class TinyEncoding:
    """What Tiny RoMa keeps of one image.

    Attributes:
        features: of the network.
        grid: (height, width) of the warp: the image's own, unless it was made smaller first.
    """

    features: TinyFeatures
    grid: tuple[int, int]


class TinyRomaMatcher(SampledMatcher):
    """The small model published with RoMa (Edstedt et al., CVPR 2024), on the XFeat backbone; reference to query."""

    name = "tiny_roma"
    PRESETS = PRESETS
    PARTS = ("encoder", "matcher")
    config: TinyRomaConfig
    network: TinyRomaNetwork

    @property
    def sampling(self) -> Sampling:
        """As configured; on a CPU against fewer points, because the density of all would take most of the time."""
        sampling = self.config.sampling
        if self.device.type != "cpu":
            return sampling
        stride = max(sampling.density_stride, self.config.cpu_density_stride)
        return sampling.model_copy(update={"density_stride": stride})

    def _checkpoint(self) -> str:
        return "tiny_roma_outdoor"

    def _build(self, state: State | None) -> TinyRomaNetwork:
        return TinyRomaNetwork(position_rule=self.config.position_rule)

    def _ready(self, network: TinyRomaNetwork) -> TinyRomaNetwork:
        # folded in float32 first
        return to_channels_last(for_inference(network).to(device=self.device, dtype=self.dtype))

    def _prepared(self, image: Image, device: torch.device) -> tuple[Tensor, tuple[int, int]]:
        """The network's input, float32 (1, 3, H, W) in [0, 1], and the size of the warp."""
        rgb, _, _ = working_image(image, None, self.config.max_pixels)
        height, width = rgb.shape[:2]
        # the released code rounds down; an image smaller than one multiple is enlarged to it
        sides = [max(1, side // _MULTIPLE) * _MULTIPLE for side in (height, width)]
        return resize(to_tensor(rgb, device), (sides[0], sides[1])), (height, width)

    @torch.inference_mode()
    def _encode(self, image: Image, *, reference: bool, mask: Mask | None) -> TinyEncoding:
        tensor, grid = self._prepared(image, self.device)
        return TinyEncoding(self.network.features(tensor.to(self.dtype)), grid)

    def _graph(self, part: str, network: TinyRomaNetwork, reference: Image, query: Image) -> Graph:
        images = [self._prepared(image, torch.device("cpu"))[0] for image in (reference, query)]
        return encoder_graph(network, images[0]) if part == "encoder" else matcher_graph(network, *images)

    @torch.inference_mode()
    def dense(self, reference: Encoding, query: Encoding) -> list[DenseResult]:
        """The warp from reference to query, masks not applied; as released it is neither clamped nor bounded."""
        a: TinyEncoding = reference.data
        b: TinyEncoding = query.data
        last = self.network.match(a.features, b.features)[4]
        flow, certainty = resize(last.flow, a.grid), resize(last.certainty, a.grid).sigmoid()
        return [DenseResult(flow[0].permute(1, 2, 0), certainty[0, 0])]
