"""Tiny RoMa's encoder and matcher as pure functions of fixed shape."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ros2_densematch.graphs.graph import Graph
from ros2_densematch.matchers.tiny_roma.network import TinyFeatures, TinyRomaNetwork

_HOW = (
    "RGB, divided by 255, planes (1, 3, H, W), enlarged or reduced bilinearly to sides that are the next smaller "
    "multiples of 32"
)


class _Encoder(nn.Module):
    def __init__(self, network: TinyRomaNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        features = self.network.features(image)
        return features.fine, features.coarse


class _Matcher(nn.Module):
    def __init__(self, network: TinyRomaNetwork, size: tuple[int, int]) -> None:
        super().__init__()
        self.network, self._size = network, size

    def forward(self, fine0: Tensor, coarse0: Tensor, fine1: Tensor, coarse1: Tensor) -> tuple[Tensor, Tensor]:
        first, second = TinyFeatures(fine0, coarse0, self._size), TinyFeatures(fine1, coarse1, self._size)
        last = self.network.match(first, second)[4]
        return last.flow, last.certainty


def encoder_graph(network: TinyRomaNetwork, image: Tensor) -> Graph:
    """The features of one image (1, 3, H, W) in [0, 1]."""
    outputs = {"fine": "features at stride 4", "coarse": "features at stride 8"}
    return Graph("tiny_roma encoder", _Encoder(network).eval(), {"image": image}, outputs, {"image": _HOW})


@torch.no_grad()
def matcher_graph(network: TinyRomaNetwork, reference: Tensor, query: Tensor) -> Graph:
    """From the features of two images of one size to the warp from reference to query."""
    a, b = network.features(reference), network.features(query)
    inputs = {"reference_fine": a.fine, "reference_coarse": a.coarse, "query_fine": b.fine, "query_coarse": b.coarse}
    return Graph(
        "tiny_roma matcher",
        _Matcher(network, a.size).eval(),
        inputs,
        {
            "flow": "places (x, y) in the query at stride 4 of the reference, -1 and 1 at the image's outer edges",
            "certainty": "logits at stride 4",
        },
        {name: f"the encoder's output {name.partition('_')[2]} of the {name.partition('_')[0]}" for name in inputs},
    )
