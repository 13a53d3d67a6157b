"""GCM as published (arXiv 2403.05388): a pyramid of any backbone, refined without thresholds, decided by a descriptor.

`gcm` is our own matcher on the same idea; this one reproduces the paper's released pipeline.
"""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from ros2_densematch.matchers.common.pyramid.matcher import COARSEST, FIRST, PyramidMatcher
from ros2_densematch.matchers.gcm_paper.adapters import FeatureFunction
from ros2_densematch.matchers.gcm_paper.backbones import build_backbone, complete, official_backbone
from ros2_densematch.matchers.gcm_paper.config import PRESETS, GcmPaperConfig
from ros2_densematch.matchers.gcm_paper.descriptors import DescriptorFunction, build_descriptor, official_descriptor
from ros2_densematch.matchers.network import State, Weights
from ros2_densematch.weights.store import require


class GcmPaperMatcher(PyramidMatcher):
    """GCM's released pipeline; see `docs/matchers/gcm_paper.md`."""

    name = "gcm_paper"
    PRESETS = PRESETS
    config: GcmPaperConfig
    network: tuple[FeatureFunction, DescriptorFunction]

    def _checkpoint(self) -> str:
        return "gcm_student"

    def _build(self, state: State | None) -> Any:
        raise NotImplementedError("two parts are loaded: see _loaded")

    def _loaded(self, weights: Weights) -> tuple[FeatureFunction, DescriptorFunction]:
        """Backbone and descriptor; `weights` are the descriptor's, and "random" is for both."""
        if not (weights is None or isinstance(weights, (str, Path))):
            raise ValueError(f"weights of {self.name} must be a file or 'random', got {type(weights).__name__}")
        backbone, descriptor = self.config.backbone, self.config.descriptor
        chosen = self.config.backbone_weights or ("random" if weights == "random" else "published")
        # one error for all that was not fetched
        wanted = official_backbone(backbone) if chosen == "published" else []
        require(wanted + (official_descriptor(descriptor) if weights is None else []))
        return (
            build_backbone(backbone, None if chosen == "published" else chosen),
            build_descriptor(descriptor, None if weights is None else str(weights)),
        )

    def _ready(self, network: tuple[FeatureFunction, DescriptorFunction]) -> tuple[FeatureFunction, DescriptorFunction]:
        for part in network:
            if isinstance(part, nn.Module):
                part.to(self.device)
        return network

    @cached_property
    def ratios(self) -> dict[int, float]:
        """As of `PyramidMatcher.ratios`; by default only the last step decides ("flexible hierarchical refinement")."""
        return {**dict.fromkeys((FIRST, 16, 8, 4, 2), self.config.ratio), 1: self.config.fine_ratio}

    def draw_maps(self, image: Tensor) -> dict[int, Tensor]:
        """As of `PyramidMatcher.draw_maps`."""
        finest = self.network[1](image)
        maps = complete(self.network[0](image), finest, image)
        maps[1] = finest
        maps.setdefault(FIRST, maps[COARSEST])
        return maps

    def draw_first(self, image: Tensor) -> Tensor:
        """As of `PyramidMatcher.draw_first`: without the patch descriptor, which is most of the work."""
        maps = self.network[0](image)
        first = maps.get(FIRST, maps.get(COARSEST))
        return super().draw_first(image) if first is None else first
