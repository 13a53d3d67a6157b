"""`dkm`: DKM v3, outdoor or indoor, as released; see `docs/matchers/dkm.md`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ros2_densematch.matchers.common.dense.matcher import DenseMatcher
from ros2_densematch.matchers.config import MatcherConfig
from ros2_densematch.matchers.dkm.config import INDOOR_PRESETS, PRESETS, DkmConfig
from ros2_densematch.matchers.dkm.network import DkmNetwork
from ros2_densematch.matchers.network import State, Weights, load_network


class DkmMatcher(DenseMatcher):
    """Edstedt et al., "DKM: dense kernelized feature matching for geometry estimation", CVPR 2023; version 3."""

    name = "dkm"
    PRESETS = PRESETS
    config: DkmConfig
    network: DkmNetwork

    def _configured(self, preset: str, weights: Any, options: Mapping[str, Any]) -> MatcherConfig:
        indoor = isinstance(weights, str) and weights == "dkm_indoor"
        return self._chosen(INDOOR_PRESETS if indoor else PRESETS, preset, options)

    def _checkpoint(self) -> str:
        return "dkm_outdoor"

    def _build(self, state: State | None) -> DkmNetwork:
        return DkmNetwork(local_correlation=self.config.local_correlation)

    def _loaded(self, weights: Weights) -> DkmNetwork:
        return load_network(self._build, self._checkpoint(), weights, lean=True)
