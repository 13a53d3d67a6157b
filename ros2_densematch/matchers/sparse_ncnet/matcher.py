"""`sparse_ncnet`: sparse neighbourhood consensus as a matcher."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from ros2_densematch.geometry.correspondences import Correspondences
from ros2_densematch.matchers.base import Encoding, Image, Mask, Matcher
from ros2_densematch.matchers.common.consensus.cells import (
    CellEncoding,
    correspondences,
    edge_based,
    edge_to_pixels,
    rounded_size,
    working_image,
)
from ros2_densematch.matchers.common.working_image import allowed_cells, is_blank
from ros2_densematch.matchers.sparse_ncnet.extraction import best_entries, mutual_share
from ros2_densematch.matchers.sparse_ncnet.network import NEIGHBOURS, SparseNcnetNetwork, channels_of
from ros2_densematch.matchers.sparse_ncnet.relocalisation import relocalise_hard, relocalise_soft
from ros2_densematch.nn.batch_norm import fold_batch_norms
from ros2_densematch.nn.device import choose_device, to_channels_last
from ros2_densematch.weights.store import read_checkpoint

_CELL = 16


@dataclass(frozen=True)
class SparsePreset:
    """Speed against accuracy.

    Attributes:
        longer_side: pixels of the working image.
        soft: relocalise between cells after the hard stage.
    """

    longer_side: int
    soft: bool = True


PRESETS = {
    "small": SparsePreset(256),
    "base": SparsePreset(1024),
    "large": SparsePreset(1600),
    "hpatches": SparsePreset(3200),
}


class SparseNcnetMatcher(Matcher):
    """Sparse neighbourhood consensus; see `docs/matchers/sparse_ncnet.md`. The reference is the papers' source, A."""

    name = "sparse_ncnet"

    def __init__(
        self,
        *,
        device: str = "auto",
        preset: str = "base",
        weights: str | None = None,
        neighbours: int = NEIGHBOURS,
    ) -> None:
        """
        Args:
            device: "auto", "cpu", "cuda" or "cuda:N".
            preset: one of `PRESETS`.
            weights: None for the imported official checkpoint, "random", or a file: the published checkpoint or a
                safetensors file with its keys.
            neighbours: kept per cell.

        Raises:
            ValueError: unknown preset or device, no neighbours, or weights of another network.
            FileNotFoundError: no such weights file, or the checkpoint was not imported yet.
        """
        if preset not in PRESETS:
            raise ValueError(f"unknown preset {preset!r} of sparse_ncnet: choose one of {', '.join(PRESETS)}")
        if neighbours < 1:
            raise ValueError(f"neighbours must be at least 1, got {neighbours}")
        self.preset = preset
        self._settings = PRESETS[preset]
        self._neighbours = neighbours
        self.device = choose_device(device)
        # a generator of its own: loading a matcher must not disturb the caller's random numbers
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(0)
            self._network = _network(weights)
        self._network.eval().requires_grad_(False)
        fold_batch_norms(self._network.FeatureExtraction)
        self._network.to(self.device)
        to_channels_last(self._network.FeatureExtraction)

    @torch.inference_mode()
    def _encode(self, image: Image, *, reference: bool, mask: Mask | None) -> CellEncoding:
        size = rounded_size((image.shape[1], image.shape[0]), self._settings.longer_side, _CELL)
        tensor = working_image(image, size, self.device).contiguous(memory_format=torch.channels_last)
        coarse, fine = self._network.features(tensor)
        allowed = allowed_cells(mask, coarse.shape[2], coarse.shape[3], self.device)
        if allowed is not None:
            coarse = coarse * allowed
        return CellEncoding(coarse, fine, allowed, is_blank(image, mask))

    @torch.inference_mode()
    def _match(self, reference: Encoding, query: Encoding, *, max_matches: int | None, seed: int) -> Correspondences:
        a: CellEncoding = reference.data
        b: CellEncoding = query.data
        if a.blank or b.blank:
            return Correspondences.empty(reference.size, query.size)
        assert a.finer is not None
        assert b.finer is not None
        filtered = self._network.consensus(a.features[0], b.features[0], neighbours=self._neighbours)
        matches = best_entries(filtered)
        fine = a.finer[0], b.finer[0]
        positions = relocalise_hard(*fine, matches.a, matches.b)
        if self._settings.soft:
            positions = relocalise_soft(*fine, *positions)
        xy = [
            edge_to_pixels(edge_based(position, (features.shape[1], features.shape[2])), size)
            for position, features, size in zip(positions, fine, (reference.size, query.size), strict=True)
        ]
        # the network's output has no upper bound; order is what counts
        raw = np.maximum(matches.score.double().cpu().numpy(), 0.0)
        overlap = mutual_share(filtered, a.allowed, b.allowed)
        return correspondences(reference, query, xy[0], xy[1], raw / (1.0 + raw), overlap, max_matches)


def _network(weights: str | None) -> SparseNcnetNetwork:
    if weights == "random":
        return SparseNcnetNetwork()
    state = read_checkpoint("sparsencnet_k10", weights)
    network = SparseNcnetNetwork(channels_of(state))
    network.load_state_dict(state)
    return network
