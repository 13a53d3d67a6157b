"""GCM as published (arXiv 2403.05388): a pyramid of any backbone, refined without thresholds, decided by a descriptor.

`gcm` is our own matcher on the same idea; this one reproduces the paper's released pipeline.
"""

from __future__ import annotations

from torch import Tensor, nn

from ros2_densematch.matchers.common.pyramid.matcher import COARSEST, FIRST, PyramidMatcher
from ros2_densematch.matchers.gcm_paper.adapters import FeatureFunction
from ros2_densematch.matchers.gcm_paper.backbones import build_backbone, complete, official_backbone
from ros2_densematch.matchers.gcm_paper.descriptors import DescriptorFunction, build_descriptor, official_descriptor
from ros2_densematch.nn.device import choose_device
from ros2_densematch.weights.store import require

# "Flexible hierarchical refinement": nothing is decided before the last step
FLEXIBLE = 1.0


class GcmPaperMatcher(PyramidMatcher):
    """GCM's released pipeline; see `docs/matchers/gcm_paper.md`."""

    name = "gcm_paper"

    def __init__(
        self,
        *,
        device: str = "auto",
        preset: str = "base",
        weights: str | None = None,
        backbone: str | FeatureFunction = "vgg19",
        backbone_weights: str | None = None,
        descriptor: str | DescriptorFunction = "student",
        two_stage: bool = True,
        ratio: float = FLEXIBLE,
        fine_ratio: float = 0.95,
    ) -> None:
        """
        Args:
            device: "auto", "cpu", "cuda" or "cuda:N".
            preset: "turbo", "fast", "base" or "precise": how large the working image may be.
            weights: of the patch descriptor: None for the published file, "random" (for the backbone too), or a file.
            backbone: a name of `backbones.BUILT_IN`, "timm:NAME", "torchvision:NAME", or a function of the protocol.
            backbone_weights: "published", "random", or a file; None takes the published ones, and random ones where
                `weights` is "random".
            descriptor: a name of `descriptors.BUILT_IN`, or a function.
            two_stage: warp the query by a first homography.
            ratio: threshold of the steps down to stride 2; 1 leaves the decision to the last step.
            fine_ratio: threshold of the last step; the paper's 0.95 gives many matches, 0.6 few and better ones.

        Raises:
            ValueError: unknown preset, backbone, descriptor or device, or weights of another network.
            FileNotFoundError: weights were not fetched; the message names licence and command.
        """
        ratios = {**dict.fromkeys((FIRST, 16, 8, 4, 2), ratio), 1: fine_ratio}
        super().__init__(preset=preset, two_stage=two_stage, ratios=ratios)
        self.device = str(choose_device(device))
        chosen = backbone_weights or ("random" if weights == "random" else "published")
        # one error for all that was not fetched
        wanted = official_backbone(backbone) if chosen == "published" else []
        require(wanted + (official_descriptor(descriptor) if weights is None else []))
        self._backbone = build_backbone(backbone, None if chosen == "published" else chosen)
        if isinstance(self._backbone, nn.Module):
            self._backbone.to(self.device)
        self._descriptor = build_descriptor(descriptor, weights)

    def draw_maps(self, image: Tensor) -> dict[int, Tensor]:
        """As of `PyramidMatcher.draw_maps`."""
        finest = self._descriptor(image)
        maps = complete(self._backbone(image), finest, image)
        maps[1] = finest
        maps.setdefault(FIRST, maps[COARSEST])
        return maps

    def draw_first(self, image: Tensor) -> Tensor:
        """As of `PyramidMatcher.draw_first`: without the patch descriptor, which is most of the work."""
        maps = self._backbone(image)
        first = maps.get(FIRST, maps.get(COARSEST))
        return super().draw_first(image) if first is None else first
