"""The matcher around a dense network: preparation of images, both directions, sampling, precision."""

from __future__ import annotations

import weakref
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image as PilImage
from torch import Tensor

from ros2_densematch.arrays import Image, Mask
from ros2_densematch.deprecation import renamed
from ros2_densematch.geometry.correspondences import DenseWarp
from ros2_densematch.graphs.graph import Graph
from ros2_densematch.matchers.base import Encoding, RawMatches
from ros2_densematch.matchers.common.dense.config import DenseConfig, SampledConfig
from ros2_densematch.matchers.common.dense.graph import encoder_graph
from ros2_densematch.matchers.common.dense.guided import GuidedDense, warp_from_prior
from ros2_densematch.matchers.common.dense.keypoints import KeypointMatches, match_keypoints
from ros2_densematch.matchers.common.dense.network import FINE_SCALES, DenseNetwork, Pyramid
from ros2_densematch.matchers.common.dense.precision import (
    carried_precision,
    precision_at,
    predicted_precision,
    upper_triangle,
    warp_precision,
)
from ros2_densematch.matchers.common.dense.result import (
    DenseResult,
    attenuate,
    bounded,
    cell_positions,
    hide_masked,
    to_pixels,
)
from ros2_densematch.matchers.common.dense.sampling import Sampling, sample_matches
from ros2_densematch.matchers.config import MatcherConfig, chosen_config
from ros2_densematch.matchers.network import NetworkMatcher, Weights, for_inference
from ros2_densematch.matchers.prior import Prior
from ros2_densematch.nn.device import to_channels_last
from ros2_densematch.nn.gaussian_process import Conditioned
from ros2_densematch.nn.resnet import imagenet_normalise

# of a warp into the reference: cells that tell the overlap, and about how many of them
_BELIEVED, _SPREAD = 0.5, 2000


# of the local correlation at the first scale that a guided match refines
_FIRST_RADIUS = 3


class SampledMatcher(NetworkMatcher):
    """A matcher whose network predicts a dense warp: everything after the warp is here."""

    config: SampledConfig

    def _configured(self, preset: str, weights: Any, options: Mapping[str, Any]) -> MatcherConfig:
        return self._chosen(self.PRESETS, preset, options)

    def _chosen(self, presets: Mapping[str, MatcherConfig], preset: str, options: Mapping[str, Any]) -> MatcherConfig:
        given = {name: value for name, value in options.items() if value is not True or name != "upsample_size"}
        return chosen_config(self.name, presets, preset, given)

    @property
    def dtype(self) -> torch.dtype:
        """Type of the network's numbers."""
        chosen: torch.dtype = getattr(torch, self.config.dtype)
        return chosen

    @property
    def sampling(self) -> Sampling:
        """How matches are drawn."""
        return self.config.sampling

    @abstractmethod
    def dense(self, reference: Encoding, query: Encoding) -> list[DenseResult]:
        """The dense warps of the directions that this matcher computes, masks not applied."""

    @renamed(least_certainty="min_certainty")
    def match_keypoints(
        self,
        reference: Encoding,
        query: Encoding,
        reference_xy: NDArray[np.floating[Any]],
        query_xy: NDArray[np.floating[Any]],
        *,
        min_certainty: float = 0.0,
        max_distance: float = 0.005,
    ) -> KeypointMatches:
        """Matches between given key points of both images; see `dense.keypoints.match_keypoints`.

        Raises:
            ValueError: this matcher does not compute the direction from reference to query, or wrong shapes.
        """
        forward = [r for r in self.dense(reference, query) if not r.reversed]
        if not forward:
            raise ValueError(f"{self.name} computes query_to_reference only: build it with direction='both'")
        result = hide_masked(forward[0], reference, query)
        return match_keypoints(
            result,
            reference.size,
            query.size,
            reference_xy,
            query_xy,
            min_certainty=min_certainty,
            max_distance=max_distance,
        )

    def _match(self, reference: Encoding, query: Encoding, *, max_matches: int | None, seed: int) -> RawMatches:
        results = []
        for result in self.dense(reference, query):
            own, other = (query, reference) if result.reversed else (reference, query)
            hidden = hide_masked(result, own, other)
            results.append(_on_cpu(hidden, self._drawn_certainty(hidden)))
        index = self._drawn(results, max_matches, seed)
        forward = [result for result in results if not result.reversed]
        parts = []
        start = 0
        for result in results:
            end = start + result.certainty.numel()
            chosen = index[(index >= start) & (index < end)] - start
            parts.append(_matches(result, chosen, reference, query, forward[0] if forward else None))
            start = end
        reference_xy, query_xy, score, precision = (np.concatenate(columns) for columns in zip(*parts, strict=True))
        if forward:
            warp = _dense_warp(forward[0], reference, query)
            return RawMatches(reference_xy, query_xy, score, precision, warp=warp)
        return RawMatches(reference_xy, query_xy, score, precision, seen=_believed(results[0], reference, query))

    def _drawn_certainty(self, result: DenseResult) -> Tensor:
        """The certainty (H, W) with which cells are drawn: 0 for those that are no match."""
        # what leaves the image is no match, even where the network does not clamp
        return result.certainty * (result.flow.abs() <= 1).all(2)

    def _drawn(self, results: list[DenseResult], max_matches: int | None, seed: int) -> NDArray[np.intp]:
        """Indices into the concatenated cells of all directions."""
        certainty = torch.cat([r.certainty.flatten() for r in results])
        if max_matches is None:
            return np.asarray(torch.nonzero(certainty > 0)[:, 0].numpy(), np.intp)
        generator = torch.Generator().manual_seed(seed)
        drawn = sample_matches(certainty, lambda i: _pairs(results, i), max_matches, self.sampling, generator)
        return np.asarray(drawn.numpy(), np.intp)


@dataclass
class DenseEncoding:
    """What DKM and RoMa keep of one image. Features are computed when first needed, and then kept.

    Attributes:
        image: uint8 RGB, as given.
        coarse: scale -> features of the coarse pass, projected; a guided match needs those of 8 and below only.
        fine: scale -> features of the upsampling pass, or None.
        conditioned: the Gaussian processes conditioned on this image: made by `encode(reference=True)`, otherwise by
            the first match that needs them; then kept.
        shares: of the coarse and the upsampling pass, what this image contributes to the refiners' first blocks when it
            is the keyframe. Made like `conditioned`, but kept only for the keyframe that its matcher used last: they
            take more memory than the features.
    """

    image: Image
    coarse: Pyramid = field(default_factory=dict)
    fine: Pyramid | None = None
    conditioned: dict[int, Conditioned] = field(default_factory=dict)
    shares: tuple[Pyramid, Pyramid] | None = None


class DenseMatcher(GuidedDense, SampledMatcher):
    """DKM and RoMa: coarse to fine with Gaussian processes, in one or both directions."""

    PARTS = ("encoder",)
    config: DenseConfig
    network: DenseNetwork

    def __init__(self, *, device: str = "auto", preset: str = "base", weights: Weights = None, **options: Any) -> None:
        """As of `NetworkMatcher`; the options are those of `DenseConfig`. `upsample_size` True keeps the preset's."""
        super().__init__(device=device, preset=preset, weights=weights, **options)
        # whose shares are kept
        self._last_keyframe: weakref.ref[DenseEncoding] | None = None

    def _ready(self, network: DenseNetwork) -> DenseNetwork:
        for_inference(network)
        network.prepare_refiners()
        if self.dtype != torch.float32:
            network.set_precision(self.dtype)
        network.to(device=self.device)
        to_channels_last(network)
        if self.config.compile_network:
            for module in network.compilable():
                module.compile()
        return network

    @torch.inference_mode()
    def _encode(self, image: Image, *, reference: bool, mask: Mask | None) -> DenseEncoding:
        # a copy: the caller may reuse its memory
        encoding = DenseEncoding(image.copy() if image.ndim == 3 else np.repeat(image[..., None], 3, 2))
        if reference:
            self._coarse(encoding)
            self._fine(encoding)
        if reference and self.config.direction != "reference_to_query":
            self._condition(encoding)
        if reference and self.config.direction != "query_to_reference":
            self._keep_shares(encoding)
        return encoding

    def _coarse(self, encoding: DenseEncoding) -> Pyramid:
        """All features of the coarse pass."""
        if 16 not in encoding.coarse:
            encoding.coarse = self.network.pyramid(self._prepared(encoding.image, self.config.coarse_size))
        return encoding.coarse

    def _shallow(self, encoding: DenseEncoding) -> Pyramid:
        """Those that a guided match needs, at least: the deeper stages of the encoders are not run."""
        if not encoding.coarse:
            image = self._prepared(encoding.image, self.config.coarse_size)
            encoding.coarse = self.network.pyramid(image, fine=True)
        return encoding.coarse

    def _fine(self, encoding: DenseEncoding) -> Pyramid | None:
        """Features of the upsampling pass, where there is one."""
        if encoding.fine is None and self.config.upsample_size is not None:
            image = self._prepared(encoding.image, self.config.upsample_size)
            encoding.fine = self.network.pyramid(image, fine=True)
        return encoding.fine

    def _graph(self, part: str, network: DenseNetwork, reference: Image, query: Image) -> Graph:
        image = self._prepared(reference, self.config.coarse_size).to("cpu", torch.float32)
        return encoder_graph(self.name, network, image)

    def _prepared(self, rgb: Image, size: tuple[int, int]) -> Tensor:
        resized = PilImage.fromarray(rgb).resize((size[1], size[0]), PilImage.Resampling.BICUBIC)
        image = torch.from_numpy(np.array(resized)).permute(2, 0, 1)[None].float() / 255
        return imagenet_normalise(image).to(device=self.device, dtype=self.dtype)

    def _condition(self, support: DenseEncoding) -> dict[int, Conditioned]:
        if not support.conditioned:
            support.conditioned = self.network.condition(self._coarse(support))
        return support.conditioned

    def _keep_shares(self, keyframe: DenseEncoding) -> None:
        if self.config.keep_shares and keyframe.shares is None:
            # those of the keyframe before go first: never two at a time
            before = self._last_keyframe() if self._last_keyframe is not None else None
            if before is not None:
                before.shares = None
            fine = self._fine(keyframe)
            shares = {} if fine is None else self.network.shares(fine)
            keyframe.shares = (self.network.shares(self._coarse(keyframe)), shares)
            self._last_keyframe = weakref.ref(keyframe)

    @torch.inference_mode()
    def dense(self, reference: Encoding, query: Encoding) -> list[DenseResult]:
        """The dense warps of the matcher's direction or directions, masks not applied.

        The two directions run one after the other, which halves the memory of the released symmetric mode.
        """
        results = []
        if self.config.direction != "query_to_reference":
            self._keep_shares(reference.data)
            results.append(self._one_direction(reference.data, query.data, reverse=False))
        if self.config.direction != "reference_to_query":
            results.append(self._one_direction(query.data, reference.data, reverse=True))
        return results

    def _one_direction(self, query: DenseEncoding, support: DenseEncoding, *, reverse: bool) -> DenseResult:
        coarse_shares, fine_shares = query.shares or (None, None)
        outputs = self.network.match_coarse(
            self._coarse(query), self._coarse(support), self._condition(support), coarse_shares
        )
        coarse = outputs[16].certainty
        flow, certainty = self._upsampled(query, support, outputs[1].flow, outputs[1].certainty, fine_shares)
        if self.config.attenuate_certainty:
            certainty = attenuate(certainty, coarse)
        bounded_flow, bounded_certainty = bounded(flow, certainty)
        return DenseResult(bounded_flow[0], bounded_certainty[0], reverse)

    def _upsampled(
        self, query: DenseEncoding, support: DenseEncoding, flow: Tensor, certainty: Tensor, shares: Pyramid | None
    ) -> tuple[Tensor, Tensor]:
        """Flow and certainty after the upsampling pass, where there is one."""
        own, other = self._fine(query), self._fine(support)
        if own is None or other is None:
            return flow, certainty
        out = self.network.match_fine(own, other, flow, certainty, shares)[1]
        return out.flow, out.certainty

    @torch.inference_mode()
    def _guided(self, reference: Encoding, query: Encoding, prior: Prior) -> tuple[DenseResult, Tensor] | None:
        if self.config.direction == "query_to_reference":
            return None
        a: DenseEncoding = reference.data
        b: DenseEncoding = query.data
        size, stride = self.config.coarse_size, FINE_SCALES[0]
        grid = (size[0] // stride, size[1] // stride)
        start = warp_from_prior(prior, reference.size, query.size, grid, size, float(_FIRST_RADIUS * stride))
        if start is None:
            return None
        flow, certainty = start.flow.to(self.device), start.certainty.to(self.device)
        coarse_shares, fine_shares = a.shares or (None, None)
        out = self.network.match_fine(self._shallow(a), self._shallow(b), flow, certainty, coarse_shares)[1]
        flow, certainty = self._upsampled(a, b, out.flow, out.certainty, fine_shares)
        # without the coarse certainty there is nothing to attenuate by
        bounded_flow, bounded_certainty = bounded(flow, certainty)
        return DenseResult(bounded_flow[0], bounded_certainty[0]), start.covered


def _on_cpu(result: DenseResult, certainty: Tensor) -> DenseResult:
    precision = None if result.precision is None else result.precision.float().cpu()
    return DenseResult(result.flow.float().cpu(), certainty.float().cpu(), result.reversed, precision)


def _pairs(results: list[DenseResult], index: Tensor) -> Tensor:
    """Both normalised positions (M, 4) of concatenated cells, reference first."""
    points = torch.zeros(len(index), 4)
    start = 0
    for result in results:
        height, width = result.certainty.shape
        own = (index >= start) & (index < start + height * width)
        local = index[own] - start
        cells = torch.from_numpy(cell_positions(local.numpy(), height, width))
        flow = result.flow.reshape(-1, 2)[local]
        points[own] = torch.cat([flow, cells] if result.reversed else [cells, flow], 1)
        start += height * width
    return points


def _matches(
    result: DenseResult,
    index: NDArray[np.intp],
    reference: Encoding,
    query: Encoding,
    forward: DenseResult | None,
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
    """Reference and query pixels (N, 2), scores (N,) and precisions (N, 3) of chosen cells of one direction.

    `forward` is the result from reference to query, where there is one: what its network predicts of the precision in
    the query image holds for matches of both directions.
    """
    own, other = (query, reference) if result.reversed else (reference, query)
    height, width = result.certainty.shape
    warp_xy = to_pixels(result.flow.numpy(), other.size)
    certainty = result.certainty.numpy()
    cells = to_pixels(cell_positions(index, height, width), own.size)
    predicted = warp_xy.reshape(-1, 2)[index]
    precision, linear = warp_precision(warp_xy, certainty, index, other.size)
    if result.precision is not None:
        precision = predicted_precision(result.precision, torch.from_numpy(index), other.size)
    score = certainty.reshape(-1)[index]
    if not result.reversed:
        return cells, predicted, score, upper_triangle(precision)
    if forward is not None and forward.precision is not None:
        at = result.flow.reshape(-1, 2)[torch.from_numpy(index)]
        return predicted, cells, score, upper_triangle(precision_at(forward.precision, at, query.size))
    # the prediction lies in the reference image: carried over to the query image by the local affine map
    per_pixel = linear * np.array([width / own.size[0], height / own.size[1]])
    return predicted, cells, score, upper_triangle(carried_precision(precision, per_pixel))


def _dense_warp(result: DenseResult, reference: Encoding, query: Encoding) -> DenseWarp:
    return DenseWarp(to_pixels(result.flow.numpy(), query.size), result.certainty.numpy(), reference.size, query.size)


def _believed(
    result: DenseResult, reference: Encoding, query: Encoding
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Reference and query pixels of the more certain cells of a result, evenly spread."""
    cells = np.flatnonzero(result.certainty.numpy().reshape(-1) > _BELIEVED)
    xy0, xy1, _, _ = _matches(result, cells[:: max(1, len(cells) // _SPREAD)], reference, query, None)
    return xy0, xy1
