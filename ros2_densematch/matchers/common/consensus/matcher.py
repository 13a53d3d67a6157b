"""The frame of NCNet and Sparse-NCNet."""

from __future__ import annotations

from typing import Any

from ros2_densematch.matchers.network import NetworkMatcher, for_inference
from ros2_densematch.nn.device import to_channels_last


class ConsensusMatcher(NetworkMatcher):
    """A network of a feature extraction, which is folded, and a consensus, which stays as it is."""

    def _ready(self, network: Any) -> Any:
        network.eval().requires_grad_(False)
        for_inference(network.FeatureExtraction)
        network.to(self.device)
        to_channels_last(network.FeatureExtraction)
        return network
