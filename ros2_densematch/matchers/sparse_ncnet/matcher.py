"""`sparse_ncnet`: sparse neighbourhood consensus as a matcher."""

from __future__ import annotations

import numpy as np
import torch

from ros2_densematch.arrays import Image, Mask
from ros2_densematch.matchers.base import Encoding, RawMatches
from ros2_densematch.matchers.common.consensus.cells import (
    CellEncoding,
    edge_based,
    edge_to_pixels,
    network_input,
    rounded_size,
)
from ros2_densematch.matchers.common.consensus.matcher import ConsensusMatcher
from ros2_densematch.matchers.common.working_image import allowed_cells, is_blank
from ros2_densematch.matchers.network import State
from ros2_densematch.matchers.sparse_ncnet.config import PRESETS, SparseNcnetConfig
from ros2_densematch.matchers.sparse_ncnet.extraction import best_entries
from ros2_densematch.matchers.sparse_ncnet.network import SparseNcnetNetwork, channels_of
from ros2_densematch.matchers.sparse_ncnet.relocalisation import relocalise_hard, relocalise_soft

_CELL = 16


class SparseNcnetMatcher(ConsensusMatcher):
    """Sparse neighbourhood consensus; see `docs/matchers/sparse_ncnet.md`. The reference is the papers' source, A."""

    name = "sparse_ncnet"
    PRESETS = PRESETS
    config: SparseNcnetConfig
    network: SparseNcnetNetwork

    def _checkpoint(self) -> str:
        return "sparsencnet_k10"

    def _build(self, state: State | None) -> SparseNcnetNetwork:
        return SparseNcnetNetwork() if state is None else SparseNcnetNetwork(channels_of(state))

    @torch.inference_mode()
    def _encode(self, image: Image, *, reference: bool, mask: Mask | None) -> CellEncoding:
        size = rounded_size((image.shape[1], image.shape[0]), self.config.longer_side, _CELL)
        tensor = network_input(image, size, self.device).contiguous(memory_format=torch.channels_last)
        coarse, fine = self.network.features(tensor)
        allowed = allowed_cells(mask, coarse.shape[2], coarse.shape[3], self.device)
        if allowed is not None:
            coarse = coarse * allowed
        return CellEncoding(coarse, fine, allowed, is_blank(image, mask))

    @torch.inference_mode()
    def _match(self, reference: Encoding, query: Encoding, *, max_matches: int | None, seed: int) -> RawMatches:
        a: CellEncoding = reference.data
        b: CellEncoding = query.data
        if a.blank or b.blank:
            return RawMatches.none()
        assert a.finer is not None
        assert b.finer is not None
        filtered = self.network.consensus(a.features[0], b.features[0], neighbours=self.config.neighbours)
        matches = best_entries(filtered)
        fine = a.finer[0], b.finer[0]
        positions = relocalise_hard(*fine, matches.a, matches.b)
        if self.config.soft:
            positions = relocalise_soft(*fine, *positions)
        xy = [
            edge_to_pixels(edge_based(position, (features.shape[1], features.shape[2])), size)
            for position, features, size in zip(positions, fine, (reference.size, query.size), strict=True)
        ]
        # the network's output has no upper bound; order is what counts
        raw = np.maximum(matches.score.double().cpu().numpy(), 0.0)
        return RawMatches(xy[0], xy[1], raw / (1.0 + raw))
