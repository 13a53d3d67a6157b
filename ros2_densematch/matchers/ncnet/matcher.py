"""`ncnet`: neighbourhood consensus networks as a matcher."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from ros2_densematch.geometry.correspondences import Correspondences
from ros2_densematch.matchers.base import Encoding, Image, Mask, Matcher
from ros2_densematch.matchers.common.consensus.cells import (
    CellEncoding,
    FloatArray,
    both_directions,
    corner_pixels,
    correspondences,
    edge_based,
    edge_to_pixels,
    rounded_size,
    working_image,
)
from ros2_densematch.matchers.common.working_image import allowed_cells, is_blank, to_tensor
from ros2_densematch.matchers.ncnet.extraction import (
    best_matches,
    mutual_share,
    relocalise,
)
from ros2_densematch.matchers.ncnet.network import ARCHITECTURES, NcnetNetwork, architecture_of
from ros2_densematch.nn.batch_norm import fold_batch_norms
from ros2_densematch.nn.device import choose_device, to_channels_last
from ros2_densematch.nn.resnet import imagenet_normalise
from ros2_densematch.nn.transformations import resize
from ros2_densematch.weights.store import read_checkpoint

_CELL = 16


@dataclass(frozen=True)
class NcnetPreset:
    """Speed against accuracy.

    Attributes:
        longer_side: pixels; 0 makes every image 400 x 400, aspect not kept.
        relocalisation: side of the boxes over which the correlation is pooled.
        both_directions: matches of every cell of either image, else of the query's cells only.
        corner_aligned: the outer cells' centres lie on the image's outer pixels (PF-Pascal), else the cells tile it.
        architecture: key of `ARCHITECTURES`, for untrained weights and for the name of the checkpoint.
    """

    longer_side: int
    relocalisation: int
    both_directions: bool = True
    corner_aligned: bool = False
    architecture: str = "ivd"


PRESETS = {
    "small": NcnetPreset(320, 2),
    "base": NcnetPreset(1024, 2),
    "large": NcnetPreset(1600, 2),
    "inloc": NcnetPreset(3200, 2),
    "pfpascal": NcnetPreset(0, 1, both_directions=False, corner_aligned=True, architecture="pfpascal"),
}
_PFPASCAL_SIDE = 400


class NcnetMatcher(Matcher):
    """Neighbourhood consensus; see `docs/matchers/ncnet.md`. The reference is the papers' source, A."""

    name = "ncnet"

    def __init__(self, *, device: str = "auto", preset: str = "base", weights: str | None = None) -> None:
        """
        Args:
            device: "auto", "cpu", "cuda" or "cuda:N".
            preset: one of `PRESETS`.
            weights: None for the fetched official checkpoint of the preset, "random", or a file: a published checkpoint
                or a safetensors file with its keys, of either architecture.

        Raises:
            ValueError: unknown preset or device, or weights of another network.
            FileNotFoundError: no such weights file, or the checkpoint was not fetched yet.
        """
        if preset not in PRESETS:
            raise ValueError(f"unknown preset {preset!r} of ncnet: choose one of {', '.join(PRESETS)}")
        self.preset = preset
        self._settings = PRESETS[preset]
        self.device = choose_device(device)
        # a generator of its own: loading a matcher must not disturb the caller's random numbers
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(0)
            self._network = _network(self._settings.architecture, weights)
        self._network.eval().requires_grad_(False)
        fold_batch_norms(self._network.FeatureExtraction)
        self._network.to(self.device)
        to_channels_last(self._network.FeatureExtraction)

    @torch.inference_mode()
    def _encode(self, image: Image, *, reference: bool, mask: Mask | None) -> CellEncoding:
        settings = self._settings
        if settings.longer_side == 0:
            side = _PFPASCAL_SIDE
            tensor = imagenet_normalise(resize(to_tensor(image, self.device), side, side))
        else:
            size = rounded_size((image.shape[1], image.shape[0]), settings.longer_side, _CELL * settings.relocalisation)
            tensor = working_image(image, size, self.device)
        features = self._network.features(tensor.contiguous(memory_format=torch.channels_last)).contiguous()
        allowed = allowed_cells(mask, features.shape[2], features.shape[3], self.device)
        if allowed is not None:
            features = features * allowed
        return CellEncoding(features, None, allowed, is_blank(image, mask))

    @torch.inference_mode()
    def _match(self, reference: Encoding, query: Encoding, *, max_matches: int | None, seed: int) -> Correspondences:
        a: CellEncoding = reference.data
        b: CellEncoding = query.data
        if a.blank or b.blank:
            return Correspondences.empty(reference.size, query.size)
        settings = self._settings
        k = settings.relocalisation
        filtered = self._network.consensus(a.features, b.features, relocalisation=k)
        correlation = filtered.correlation[0, 0]
        found = []
        for per in "BA" if settings.both_directions else "B":
            matches = best_matches(correlation, per=per)
            found.append(matches if filtered.places is None else relocalise(matches, filtered.places[0, 0], k))
        matches = both_directions(*found) if len(found) == 2 else found[0]
        overlap = mutual_share(correlation, _pooled(a.allowed, k), _pooled(b.allowed, k))
        xy = [
            self._pixels(cells, encoding.features, size)
            for cells, encoding, size in ((matches.a, a, reference.size), (matches.b, b, query.size))
        ]
        return correspondences(
            reference, query, xy[0], xy[1], matches.score.double().cpu().numpy(), overlap, max_matches
        )

    def _pixels(self, cells: Tensor, features: Tensor, size: tuple[int, int]) -> FloatArray:
        counts = features.shape[2], features.shape[3]
        if self._settings.corner_aligned:
            return corner_pixels(cells, counts, size)
        return edge_to_pixels(edge_based(cells, counts), size)


def _network(architecture: str, weights: str | None) -> NcnetNetwork:
    if weights == "random":
        return NcnetNetwork(*ARCHITECTURES[architecture])
    state = read_checkpoint(f"ncnet_{architecture}", weights)
    network = NcnetNetwork(*architecture_of(state))
    network.load_state_dict(state)
    return network


def _pooled(allowed: Tensor | None, k: int) -> Tensor | None:
    if allowed is None or k == 1:
        return allowed
    return functional.max_pool2d(allowed[None].float(), k)[0] > 0
