"""`ncnet`: neighbourhood consensus networks as a matcher."""

from __future__ import annotations

import torch
from torch import Tensor

from ros2_densematch.arrays import Float64, Image, Mask
from ros2_densematch.graphs.graph import Graph
from ros2_densematch.matchers.base import Encoding, RawMatches
from ros2_densematch.matchers.common.consensus.cells import (
    CellEncoding,
    both_directions,
    corner_pixels,
    edge_based,
    edge_to_pixels,
    network_input,
    rounded_size,
)
from ros2_densematch.matchers.common.consensus.matcher import ConsensusMatcher
from ros2_densematch.matchers.common.working_image import allowed_cells, is_blank, to_tensor
from ros2_densematch.matchers.ncnet.config import PRESETS, NcnetConfig
from ros2_densematch.matchers.ncnet.extraction import (
    best_matches,
    relocalise,
)
from ros2_densematch.matchers.ncnet.graph import encoder_graph, matcher_graph
from ros2_densematch.matchers.ncnet.network import ARCHITECTURES, NcnetNetwork, architecture_of
from ros2_densematch.matchers.network import State
from ros2_densematch.nn.resnet import imagenet_normalise
from ros2_densematch.nn.transformations import resize

_CELL = 16


_PFPASCAL_SIDE = 400


class NcnetMatcher(ConsensusMatcher):
    """Neighbourhood consensus; see `docs/matchers/ncnet.md`. The reference is the papers' source, A."""

    name = "ncnet"
    PRESETS = PRESETS
    PARTS = ("encoder", "matcher")
    config: NcnetConfig
    network: NcnetNetwork

    def _checkpoint(self) -> str:
        return f"ncnet_{self.config.architecture}"

    def _build(self, state: State | None) -> NcnetNetwork:
        architecture = ARCHITECTURES[self.config.architecture] if state is None else architecture_of(state)
        return NcnetNetwork(*architecture)

    def _prepared(self, image: Image, device: torch.device) -> Tensor:
        """The network's input, float32 (1, 3, H, W), ImageNet-normalised."""
        settings = self.config
        if settings.longer_side == 0:
            return imagenet_normalise(resize(to_tensor(image, device), _PFPASCAL_SIDE, _PFPASCAL_SIDE))
        size = rounded_size((image.shape[1], image.shape[0]), settings.longer_side, _CELL * settings.relocalisation)
        return network_input(image, size, device)

    def _graph(self, part: str, network: NcnetNetwork, reference: Image, query: Image) -> Graph:
        images = [self._prepared(image, torch.device("cpu")) for image in (reference, query)]
        if part == "encoder":
            return encoder_graph(network, images[0])
        return matcher_graph(network, images[0], images[1], self.config.relocalisation)

    @torch.inference_mode()
    def _encode(self, image: Image, *, reference: bool, mask: Mask | None) -> CellEncoding:
        tensor = self._prepared(image, self.device)
        features = self.network.features(tensor.contiguous(memory_format=torch.channels_last)).contiguous()
        allowed = allowed_cells(mask, features.shape[2], features.shape[3], self.device)
        if allowed is not None:
            features = features * allowed
        return CellEncoding(features, None, allowed, is_blank(image, mask))

    @torch.inference_mode()
    def _match(self, reference: Encoding, query: Encoding, *, max_matches: int | None, seed: int) -> RawMatches:
        a: CellEncoding = reference.data
        b: CellEncoding = query.data
        if a.blank or b.blank:
            return RawMatches.none()
        settings = self.config
        k = settings.relocalisation
        filtered = self.network.consensus(a.features, b.features, relocalisation=k)
        correlation = filtered.correlation[0, 0]
        found = []
        for per in "BA" if settings.both_directions else "B":
            matches = best_matches(correlation, per=per)
            found.append(matches if filtered.places is None else relocalise(matches, filtered.places[0, 0], k))
        matches = both_directions(*found) if len(found) == 2 else found[0]
        xy = [
            self._pixels(cells, encoding.features, size)
            for cells, encoding, size in ((matches.a, a, reference.size), (matches.b, b, query.size))
        ]
        return RawMatches(xy[0], xy[1], matches.score.double().cpu().numpy())

    def _pixels(self, cells: Tensor, features: Tensor, size: tuple[int, int]) -> Float64:
        counts = features.shape[2], features.shape[3]
        if self.config.corner_aligned:
            return corner_pixels(cells, counts, size)
        return edge_to_pixels(edge_based(cells, counts), size)
