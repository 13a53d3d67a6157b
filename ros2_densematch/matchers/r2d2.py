"""R2D2: key points of several scales where the network finds itself repeatable and reliable, mutual nearest neighbours.

Revaud et al., NeurIPS 2019, section 4 (extraction as in the released code). The official weights are under CC BY-NC-SA
3.0 (non-commercial); they do not ship.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import cast

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from ros2_densematch.geometry.correspondences import Correspondences
from ros2_densematch.matchers.base import Encoding, Image, Mask, Matcher
from ros2_densematch.matchers.common.nearest_neighbours import mutual_nearest_neighbours
from ros2_densematch.nn.batch_norm import fold_batch_norms
from ros2_densematch.nn.device import choose_device
from ros2_densematch.nn.r2d2 import R2d2Network, Variant, local_maxima
from ros2_densematch.nn.resnet import imagenet_normalise
from ros2_densematch.weights.loading import load_exactly
from ros2_densematch.weights.store import read_checkpoint

# preset -> (network, its official weights, longest side of the finest level, key points)
PRESETS: dict[str, tuple[Variant, str, int, int]] = {
    "turbo": ("fast", "faster2d2_WASF_N16", 480, 1000),
    "fast": ("fast", "faster2d2_WASF_N16", 1024, 5000),
    "base": ("quad", "r2d2_WASF_N16", 1024, 5000),
    "precise": ("big", "r2d2_WASF_N8_big", 1600, 10000),
}
_SCALE_STEP = 2**0.25


@dataclass(frozen=True)
class Keypoints:
    """Key points of one image.

    Attributes:
        xy: (N, 2) pixels.
        size: (N,) diameter of the patch that was seen, in pixels.
        score: (N,) in [0, 1], reliability times repeatability.
        descriptors: (N, 128), of length 1.
    """

    xy: Tensor
    size: Tensor
    score: Tensor
    descriptors: Tensor

    def select(self, index: Tensor) -> Keypoints:
        """The key points that a mask or an index picks."""
        return Keypoints(self.xy[index], self.size[index], self.score[index], self.descriptors[index])


def detect_multi_scale(
    network: R2d2Network,
    image: Tensor,
    *,
    least_reliability: float = 0.7,
    least_repeatability: float = 0.7,
    min_scale: float = 0.0,
    max_scale: float = 1.0,
    min_size: int = 256,
    max_size: int = 1024,
) -> Keypoints:
    """Key points of all pyramid levels, finest level first, in row-major order within a level.

    Every level is a bilinear reduction of the one before it by the fourth root of two.

    Args:
        network: in evaluation mode.
        image: float (1, 3, H, W), ImageNet-normalised.
        least_reliability: threshold in [0, 1].
        least_repeatability: threshold in [0, 1].
        min_scale: no level is smaller than this fraction of the image.
        max_scale: no level is larger than this fraction of the image.
        min_size: no level's longer side is smaller than this, in pixels.
        max_size: no level's longer side is larger than this, in pixels.
    """
    height, width = image.shape[-2:]
    longer = max(height, width)
    levels: list[Keypoints] = []
    scale, level = 1.0, image
    while scale + 0.001 >= max(min_scale, min_size / longer):
        if scale - 0.001 <= min(max_scale, max_size / longer):
            rows, columns = level.shape[-2:]
            output = network(level)
            yx = local_maxima(output, least_reliability=least_reliability, least_repeatability=least_repeatability)
            y, x = yx.T
            score = output.reliability[0, 0, y, x] * output.repeatability[0, 0, y, x]
            xy = torch.stack([x * (width / columns), y * (height / rows)], 1)
            size = torch.full_like(score, 32 / scale)
            levels.append(Keypoints(xy, size, score, output.descriptors[0, :, y, x].T))
        scale /= _SCALE_STEP
        target = round(height * scale), round(width * scale)
        if min(target) < 2:
            break
        level = functional.interpolate(level, target, mode="bilinear", align_corners=False)
    if not levels:
        none = image.new_zeros(0)
        return Keypoints(none.view(0, 2), none, none, image.new_zeros(0, 128))
    return Keypoints(*(torch.cat(parts) for parts in zip(*(vars(k).values() for k in levels), strict=True)))


class R2d2Matcher(Matcher):
    """R2D2 key points and mutual nearest neighbours; see `docs/matchers/r2d2.md`."""

    name = "r2d2"

    def __init__(
        self,
        *,
        device: str = "auto",
        preset: str = "base",
        weights: str | None = None,
        least_reliability: float = 0.7,
        least_repeatability: float = 0.7,
    ) -> None:
        """
        Args:
            device: "auto", "cpu", "cuda" or "cuda:N".
            preset: one of `PRESETS`; it chooses the network too.
            weights: None for the official file of the preset, "random", or a file of that network.
            least_reliability: threshold in [0, 1].
            least_repeatability: threshold in [0, 1].

        Raises:
            ValueError: unknown preset or device, thresholds out of range, or weights of another network.
            FileNotFoundError: the official weights were not fetched; the message names licence and command.
        """
        if preset not in PRESETS:
            raise ValueError(f"unknown preset {preset!r} of r2d2: choose one of {', '.join(PRESETS)}")
        for what, value in (("least_reliability", least_reliability), ("least_repeatability", least_repeatability)):
            if not 0.0 <= value <= 1.0:
                raise ValueError(f"{what} must lie in [0, 1], got {value}")
        self.preset = preset
        variant, checkpoint, self._max_size, self._most = PRESETS[preset]
        self._device = choose_device(device)
        self._least = least_reliability, least_repeatability
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(0)
            self._network = R2d2Network(variant)
        if weights != "random":
            state = read_checkpoint(checkpoint, weights)
            load_exactly(self._network, state, Path(weights or checkpoint))
        self._network.eval().requires_grad_(False)
        fold_batch_norms(self._network)
        self._network.to(self._device)

    @torch.inference_mode()
    def _encode(self, image: Image, *, reference: bool, mask: Mask | None) -> Keypoints:
        height, width = image.shape[:2]
        rgb = image if image.ndim == 3 else np.asarray(cv2.cvtColor(image, cv2.COLOR_GRAY2RGB), np.uint8)
        longer = max(height, width)
        if longer > 2 * self._max_size:
            # the pyramid begins at the image itself; a huge one is reduced before it reaches the device
            factor = 2 * self._max_size / longer
            size = max(2, round(width * factor)), max(2, round(height * factor))
            rgb = np.asarray(cv2.resize(rgb, size, interpolation=cv2.INTER_AREA), np.uint8)
        tensor = torch.from_numpy(np.array(rgb, order="C")).to(self._device).permute(2, 0, 1)[None].float() / 255
        rows, columns = rgb.shape[:2]
        found = detect_multi_scale(
            self._network,
            imagenet_normalise(tensor),
            least_reliability=self._least[0],
            least_repeatability=self._least[1],
            max_size=self._max_size,
            min_size=min(256, max(rows, columns), self._max_size),
        )
        # the reduction above has its pixel centres half a pixel inside
        scale = found.xy.new_tensor([width / columns, height / rows])
        xy = (found.xy + 0.5) * scale - 0.5 if (rows, columns) != (height, width) else found.xy
        found = Keypoints(xy, found.size * float(scale.max()), found.score, found.descriptors)
        if mask is not None:
            x, y = (xy + 0.5).floor().long().T
            allowed = torch.from_numpy(mask).to(self._device)
            found = found.select(allowed[y.clamp(0, height - 1), x.clamp(0, width - 1)])
        order = torch.argsort(found.score, descending=True, stable=True)[: self._most]
        return found.select(order)

    @torch.inference_mode()
    def _match(self, reference: Encoding, query: Encoding, *, max_matches: int | None, seed: int) -> Correspondences:
        a, b = cast(Keypoints, reference.data), cast(Keypoints, query.data)
        mutual = mutual_nearest_neighbours(a.descriptors, b.descriptors)
        if len(mutual.first) == 0:
            return Correspondences.empty(reference.size, query.size)
        # both end points must be good, and the descriptors alike
        score = (a.score[mutual.first] * b.score[mutual.second]).sqrt() * mutual.similarity.clamp(0, 1)
        order = torch.argsort(score, descending=True, stable=True)
        order = order if max_matches is None else order[:max_matches]
        first, second = mutual.first[order], mutual.second[order]
        # a key point is known to about a pixel of the level where it was found
        sigma = (0.5 * b.size[second] / 32).clamp(min=0.5).double()
        precision = torch.stack([sigma**-2, torch.zeros_like(sigma), sigma**-2], 1)
        overlap = float(mutual.similarity.clamp(0, 1).sum()) / max(1, min(len(a.score), len(b.score)))
        return Correspondences(
            _numpy(a.xy[first]),
            _numpy(b.xy[second]),
            _numpy(score[order].clamp(0, 1)),
            min(1.0, overlap),
            reference.size,
            query.size,
            _numpy(precision),
        )


def _numpy(tensor: Tensor) -> NDArray[np.float32]:
    return np.asarray(tensor.cpu().numpy(), np.float32)
