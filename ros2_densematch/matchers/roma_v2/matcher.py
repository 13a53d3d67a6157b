"""`roma_v2`: RoMa v2 as released, 2.0.1 and 2.0.0; see `docs/matchers/roma_v2.md`."""

from __future__ import annotations

import weakref
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ros2_densematch.arrays import Image, Mask
from ros2_densematch.matchers.common.dense.guided import GuidedDense, warp_from_prior
from ros2_densematch.matchers.common.dense.matcher import SampledMatcher
from ros2_densematch.matchers.common.dense.result import DenseResult
from ros2_densematch.matchers.encoding import Encoding
from ros2_densematch.matchers.network import State, Weights
from ros2_densematch.matchers.prior import Prior
from ros2_densematch.matchers.roma_v2.config import PRESETS, RomaV2Config
from ros2_densematch.matchers.roma_v2.encoding import Encoder, RomaV2Encoding
from ros2_densematch.matchers.roma_v2.network import VERSIONS, Refined, RomaV2Network
from ros2_densematch.matchers.roma_v2.sampling import published_certainty
from ros2_densematch.matchers.roma_v2.weights import NAME, load_network
from ros2_densematch.nn.device import to_channels_last

# a prior may be wrong by so many pixels of the low resolution: the first refiner's radius of 3 cells of 4 pixels
_REACH_PX, _FIRST_STRIDE = 12.0, 4

Shares = tuple[dict[int, Tensor], dict[int, Tensor]]


class RomaV2Matcher(GuidedDense, SampledMatcher):
    """Edstedt et al., "RoMa v2: harder, better, faster, denser feature matching", arXiv 2511.15706."""

    name = "roma_v2"
    PRESETS = PRESETS
    config: RomaV2Config
    network: RomaV2Network

    def __init__(self, *, device: str = "auto", preset: str = "base", weights: Weights = None, **options: Any) -> None:
        """As of `NetworkMatcher`; the options are those of `RomaV2Config`."""
        super().__init__(device=device, preset=preset, weights=weights, **options)
        self.version = self.network.version
        self._encoder = Encoder(self.network, self.config.coarse_size, self.config.upsample_size)
        # whose shares are kept: they take more memory than the features
        self._last_keyframe: weakref.ref[RomaV2Encoding] | None = None
        self._last_shares: Shares | None = None

    def _checkpoint(self) -> str:
        return f"{NAME}_{VERSIONS[0]}"

    def _build(self, state: State | None) -> RomaV2Network:
        raise NotImplementedError("the file is mapped, not read: see _loaded")

    def _loaded(self, weights: Weights) -> RomaV2Network:
        version = None if self.config.version == "auto" else self.config.version
        given = str(weights) if isinstance(weights, Path) else weights
        return load_network(given, version, self.dtype)

    def _ready(self, network: RomaV2Network) -> RomaV2Network:
        ready = to_channels_last(network.to(self.device))
        if self.config.compile_network:
            for module in ready.compilable():
                module.compile()
        return ready

    @torch.inference_mode()
    def _encode(self, image: Image, *, reference: bool, mask: Mask | None) -> RomaV2Encoding:
        # the caller may reuse its memory
        encoding = RomaV2Encoding(image.copy())
        if reference:
            encoder = self._encoder
            encoder.tokens(encoding)
            encoder.low(encoding)
            encoder.high(encoding)
            if self.config.direction != "query_to_reference":
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
        if self.config.direction != "query_to_reference":
            results.append(self._one_direction(a, b, joint_a, joint_b, self._shares(a), reverse=False))
        if self.config.direction != "reference_to_query":
            results.append(self._one_direction(b, a, joint_b, joint_a, ({}, {}), reverse=True))
        return results

    @torch.inference_mode()
    def _guided(self, reference: Encoding, query: Encoding, prior: Prior) -> tuple[DenseResult, Tensor] | None:
        if self.config.direction == "query_to_reference":
            return None
        size = self.config.coarse_size
        grid = (size[0] // _FIRST_STRIDE, size[1] // _FIRST_STRIDE)
        start = warp_from_prior(prior, reference.size, query.size, grid, size, _REACH_PX)
        if start is None:
            return None
        device = self.device
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
        certainty = certainty.masked_fill(certainty > self.config.overlap_threshold, 1.0)
        warp = refined.warp[0].permute(1, 2, 0)
        return DenseResult(warp, certainty, reverse, refined.confidence[0, 1:].permute(1, 2, 0))

    def _drawn_certainty(self, result: DenseResult) -> Tensor:
        return published_certainty(result) if self.config.published_draw else super()._drawn_certainty(result)

    def _shares(self, keyframe: RomaV2Encoding) -> Shares:
        """What the keyframe contributes to the refiners' first blocks; kept for the last one only."""
        if not self.config.keep_shares:
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
