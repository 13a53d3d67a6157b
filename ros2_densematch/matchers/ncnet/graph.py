"""NCNet's features and its consensus as pure functions of fixed shape."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ros2_densematch.graphs.graph import Graph
from ros2_densematch.matchers.ncnet.network import NcnetNetwork


class _Encoder(nn.Module):
    def __init__(self, network: NcnetNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, image: Tensor) -> Tensor:
        return self.network.features(image)


class _Matcher(nn.Module):
    def __init__(self, network: NcnetNetwork, relocalisation: int) -> None:
        super().__init__()
        self.network, self._relocalisation = network, relocalisation

    def forward(self, reference: Tensor, query: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        found = self.network.consensus(reference, query, relocalisation=self._relocalisation)
        return found.correlation if found.places is None else (found.correlation, found.places)


def encoder_graph(network: NcnetNetwork, image: Tensor) -> Graph:
    """The features of one image (1, 3, H, W), ImageNet-normalised."""
    outputs = {"features": "unit features at stride 16"}
    how = "RGB, divided by 255, ImageNet's mean and deviation, planes (1, 3, H, W), resized bilinearly"
    return Graph("ncnet encoder", _Encoder(network).eval(), {"image": image}, outputs, {"image": how})


@torch.no_grad()
def matcher_graph(network: NcnetNetwork, reference: Tensor, query: Tensor, relocalisation: int) -> Graph:
    """From the features of two images to the filtered correlation, (1, 1, hA, wA, hB, wB)."""
    inputs = {"reference": network.features(reference), "query": network.features(query)}
    outputs = {"correlation": "filtered correlation, rows and columns of the reference, then of the query"}
    if relocalisation > 1:
        outputs["places"] = "where in its box each maximum lay"
    return Graph(
        "ncnet matcher",
        _Matcher(network, relocalisation).eval(),
        inputs,
        outputs,
        {name: f"the encoder's output features of the {name}" for name in inputs},
    )
