"""`roma`: RoMa, outdoor or indoor, as released; see `docs/matchers/roma.md`."""

from __future__ import annotations

from typing import Any

from ros2_densematch.matchers.common.dense.matcher import DenseMatcher
from ros2_densematch.matchers.network import RANDOM, State, Weights, load_network, require_all
from ros2_densematch.matchers.roma.config import PRESETS, RomaConfig
from ros2_densematch.matchers.roma.network import RomaNetwork
from ros2_densematch.nn.dinov2 import Dinov2

_DINOV2 = "dinov2_vitl14"


class RomaMatcher(DenseMatcher):
    """Edstedt et al., "RoMa: robust dense feature matching", CVPR 2024."""

    name = "roma"
    PRESETS = PRESETS
    config: RomaConfig
    network: RomaNetwork

    def __init__(
        self,
        *,
        device: str = "auto",
        preset: str = "base",
        weights: Weights = None,
        dinov2_weights: Weights = None,
        **options: Any,
    ) -> None:
        """As of `DenseMatcher`.

        Args:
            device, preset, weights, options: as there; "random" weights are random for DINOv2 too.
            dinov2_weights: None for the fetched dinov2_vitl14, a file, or tensors by key.
        """
        self._dinov2_weights = dinov2_weights
        super().__init__(device=device, preset=preset, weights=weights, **options)

    def _checkpoint(self) -> str:
        return "roma_outdoor"

    def checkpoints(self) -> tuple[str, ...]:
        return self._checkpoint(), _DINOV2

    def _build(self, state: State | None) -> RomaNetwork:
        return RomaNetwork(dinov2=self._dinov2)

    def _loaded(self, weights: Weights) -> RomaNetwork:
        """The network around the frozen DINOv2, whose weights are a file of their own."""
        for_dinov2 = RANDOM if isinstance(weights, str) and weights == RANDOM else self._dinov2_weights
        require_all([(self._checkpoint(), weights), (_DINOV2, for_dinov2)])
        self._dinov2 = load_network(lambda _: Dinov2(), _DINOV2, for_dinov2, lean=True)
        return load_network(self._build, self._checkpoint(), weights, lean=True)
