"""`roma_v2`: RoMa v2 as released, 2.0.1 and 2.0.0; see `docs/matchers/roma_v2.md`."""

from __future__ import annotations

import weakref
from typing import ClassVar

import torch
from torch import Tensor

from ros2_densematch.matchers.common.dense.guided import GuidedDense, warp_from_prior
from ros2_densematch.matchers.common.dense.matcher import (
    DensePreset,
    SampledMatcher,
    chosen_settings,
    torch_type,
)
from ros2_densematch.matchers.common.dense.result import DenseResult
from ros2_densematch.matchers.common.dense.sampling import Sampling
from ros2_densematch.matchers.encoding import Encoding, Image, Mask
from ros2_densematch.matchers.prior import Prior
from ros2_densematch.matchers.roma_v2.encoding import Encoder, RomaV2Encoding
from ros2_densematch.matchers.roma_v2.network import Refined
from ros2_densematch.matchers.roma_v2.sampling import PUBLISHED, published_certainty
from ros2_densematch.matchers.roma_v2.weights import Weights, load_network
from ros2_densematch.nn.device import choose_device, to_channels_last
from ros2_densematch.nn.dinov3 import PATCH

# the density of drawn matches is estimated against so many of them
_DENSITY_POINTS = 3000

# a prior may be wrong by so many pixels of the low resolution: the first refiner's radius of 3 cells of 4 pixels
_REACH_PX, _FIRST_STRIDE = 12.0, 4

Shares = tuple[dict[int, Tensor], dict[int, Tensor]]


class RomaV2Matcher(GuidedDense, SampledMatcher):
    """Edstedt et al., "RoMa v2: harder, better, faster, denser feature matching", arXiv 2511.15706."""

    name = "roma_v2"
    PRESETS: ClassVar[dict[str, DensePreset]] = {
        "turbo": DensePreset((320, 320), None, "reference_to_query"),
        "fast": DensePreset((512, 512), None, "reference_to_query"),
        "base": DensePreset((640, 640), None, "reference_to_query"),
        "precise": DensePreset((800, 800), (1280, 1280), "both"),
    }

    def __init__(
        self,
        *,
        device: str = "auto",
        preset: str = "base",
        weights: Weights = None,
        version: str | None = None,
        dtype: str = "float32",
        coarse_size: tuple[int, int] | None = None,
        upsample_size: tuple[int, int] | bool | None = True,
        direction: str | None = None,
        overlap_threshold: float | None = None,
        sampling: Sampling | str | None = None,
        compile_network: bool = False,
        keep_shares: bool = True,
    ) -> None:
        """
        Args:
            device: "auto", "cpu", "cuda" or "cuda:N".
            preset: one of `PRESETS`, as published; the released default is "precise".
            weights: None for the fetched roma_v2_2.0.1, "roma_v2_2.0.0", "random", a file, or a state dictionary.
            version: "2.0.1" or "2.0.0", where the weights do not say it.
            dtype: "float32", "float16" or "bfloat16".
            coarse_size: (height, width) of the low resolution, multiples of 16; None for the preset's.
            upsample_size: (height, width) of the high resolution, False for none, True for the preset's.
            direction: "both", "reference_to_query" or "query_to_reference"; None for the preset's.
            overlap_threshold: certainties above it count as 1, as in the released benchmark presets (0.05); None: none.
            sampling: None for ours, "published" for the released draw, or settings.
            compile_network: with `torch.compile`, at the first use.
            keep_shares: keep what a keyframe's features contribute to the refiners; False saves its memory.

        Raises:
            ValueError: unknown preset, device, direction, dtype or sampling, a bad size, an unknown version, or weights
                of another network.
            FileNotFoundError: the checkpoint was not fetched; the message names it, its licence and the command.
        """
        self.settings = chosen_settings(
            self.name,
            self.PRESETS,
            preset,
            PATCH,
            coarse_size=coarse_size,
            upsample_size=upsample_size,
            direction=direction,
        )
        if isinstance(sampling, str) and sampling != "published":
            raise ValueError(f"unknown sampling {sampling!r} of {self.name}: give 'published', or None for ours")
        if overlap_threshold is not None and not 0 <= overlap_threshold <= 1:
            raise ValueError(f"overlap_threshold must lie in [0, 1], got {overlap_threshold}")
        self._published = sampling == "published"
        if isinstance(sampling, str):
            sampling = PUBLISHED
        super().__init__(sampling or Sampling(mode="certainty", density_points=_DENSITY_POINTS))
        self.preset = preset
        self._overlap_threshold = overlap_threshold
        self._keeps_shares = keep_shares
        # whose shares are kept: they take more memory than the features
        self._last_keyframe: weakref.ref[RomaV2Encoding] | None = None
        self._last_shares: Shares | None = None
        target = choose_device(device)
        network = load_network(weights, version, torch_type(dtype))
        self.network = to_channels_last(network.to(target))
        self.version = network.version
        self._encoder = Encoder(self.network, self.settings.coarse_size, self.settings.upsample_size)
        if compile_network:
            for module in self.network.compilable():
                module.compile()

    @torch.inference_mode()
    def _encode(self, image: Image, *, reference: bool, mask: Mask | None) -> RomaV2Encoding:
        # the caller may reuse its memory
        encoding = RomaV2Encoding(image.copy())
        if reference:
            encoder = self._encoder
            encoder.tokens(encoding)
            encoder.low(encoding)
            encoder.high(encoding)
            if self.settings.direction != "query_to_reference":
                encoder.fine_levels(encoding)
                self._shares(encoding)
        return encoding

    @torch.inference_mode()
    def dense(self, reference: Encoding, query: Encoding) -> list[DenseResult]:
        """The dense warps of the matcher's direction or directions, masks not applied, neither clamped nor bounded."""
        a: RomaV2Encoding = reference.data
        b: RomaV2Encoding = query.data
        encoder, network = self._encoder, self.network
        grid = encoder.layers(a).grid
        joint_a, joint_b = network.matcher.mv_vit(encoder.tokens(a), encoder.tokens(b), grid)
        results = []
        if self.settings.direction != "query_to_reference":
            results.append(self._one_direction(a, b, joint_a, joint_b, self._shares(a), reverse=False))
        if self.settings.direction != "reference_to_query":
            results.append(self._one_direction(b, a, joint_b, joint_a, ({}, {}), reverse=True))
        return results

    @torch.inference_mode()
    def _guided(self, reference: Encoding, query: Encoding, prior: Prior) -> tuple[DenseResult, Tensor] | None:
        if self.settings.direction == "query_to_reference":
            return None
        size = self.settings.coarse_size
        grid = (size[0] // _FIRST_STRIDE, size[1] // _FIRST_STRIDE)
        start = warp_from_prior(prior, reference.size, query.size, grid, size, _REACH_PX)
        if start is None:
            return None
        device = self.network.matcher.temp.device
        a: RomaV2Encoding = reference.data
        refined = self._refined(a, query.data, start.flow.to(device), start.certainty.to(device), self._shares(a))
        return self._result(refined, reverse=False), start.covered

    def _one_direction(
        self,
        own: RomaV2Encoding,
        other: RomaV2Encoding,
        joint_own: Tensor,
        joint_other: Tensor,
        shares: Shares,
        *,
        reverse: bool,
    ) -> DenseResult:
        encoder = self._encoder
        found = self.network.match_coarse(encoder.layers(own), encoder.fine_levels(own), joint_own, joint_other)
        refined = self._refined(own, other, found.warp, found.overlap, shares)
        return self._result(refined, reverse=reverse)

    def _refined(
        self, own: RomaV2Encoding, other: RomaV2Encoding, warp: Tensor, overlap: Tensor, shares: Shares
    ) -> Refined:
        """Both passes of the refiners, from a warp and its overlap logits at any resolution."""
        encoder, network = self._encoder, self.network
        refined = network.refine(encoder.low(own), encoder.low(other), warp, overlap, shares[0])[1]
        high_own, high_other = encoder.high(own), encoder.high(other)
        if high_own is not None and high_other is not None:
            refined = network.refine(high_own, high_other, refined.warp, refined.confidence, shares[1])[1]
        return refined

    def _result(self, refined: Refined, *, reverse: bool) -> DenseResult:
        certainty = refined.confidence[0, 0].sigmoid()
        if self._overlap_threshold is not None:
            certainty = certainty.masked_fill(certainty > self._overlap_threshold, 1.0)
        warp = refined.warp[0].permute(1, 2, 0)
        return DenseResult(warp, certainty, reverse, refined.confidence[0, 1:].permute(1, 2, 0))

    def _drawn_certainty(self, result: DenseResult) -> Tensor:
        return published_certainty(result) if self._published else super()._drawn_certainty(result)

    def _shares(self, keyframe: RomaV2Encoding) -> Shares:
        """What the keyframe contributes to the refiners' first blocks; kept for the last one only."""
        if not self._keeps_shares:
            return {}, {}
        last = self._last_keyframe() if self._last_keyframe is not None else None
        if last is keyframe and self._last_shares is not None:
            return self._last_shares
        # those of the keyframe before go first: never two at a time
        self._last_shares = None
        high = self._encoder.high(keyframe)
        shares = (self.network.shares(self._encoder.low(keyframe)), {} if high is None else self.network.shares(high))
        self._last_keyframe, self._last_shares = weakref.ref(keyframe), shares
        return shares
