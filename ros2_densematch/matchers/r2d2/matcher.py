"""R2D2: key points of several scales where the network finds itself repeatable and reliable, mutual nearest neighbours.

Revaud et al., NeurIPS 2019, section 4 (extraction as in the released code). The official weights are under CC BY-NC-SA
3.0 (non-commercial); they do not ship.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from ros2_densematch.arrays import Image, Mask
from ros2_densematch.matchers.base import Encoding, RawMatches
from ros2_densematch.matchers.common.nearest_neighbours import mutual_nearest_neighbours
from ros2_densematch.matchers.common.working_image import rescaled, to_tensor
from ros2_densematch.matchers.network import NetworkMatcher, State
from ros2_densematch.matchers.r2d2.config import CHECKPOINTS, PRESETS, R2d2Config
from ros2_densematch.nn.r2d2 import R2d2Network, local_maxima
from ros2_densematch.nn.resnet import imagenet_normalise

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
    min_reliability: float = 0.7,
    min_repeatability: float = 0.7,
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
        min_reliability: threshold in [0, 1].
        min_repeatability: threshold in [0, 1].
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
            yx = local_maxima(output, min_reliability=min_reliability, min_repeatability=min_repeatability)
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


class R2d2Matcher(NetworkMatcher):
    """R2D2 key points and mutual nearest neighbours; see `docs/matchers/r2d2.md`."""

    name = "r2d2"
    PRESETS = PRESETS
    channels_last = False
    config: R2d2Config
    network: R2d2Network

    def _checkpoint(self) -> str:
        return CHECKPOINTS[self.config.variant]

    def _build(self, state: State | None) -> R2d2Network:
        return R2d2Network(self.config.variant)

    @torch.inference_mode()
    def _encode(self, image: Image, *, reference: bool, mask: Mask | None) -> Keypoints:
        height, width = image.shape[:2]
        # the pyramid begins at the image itself; a huge one is reduced before it reaches the device
        rgb, _, _ = rescaled(image, None, min(1.0, 2 * self.config.max_size / max(height, width)))
        tensor = to_tensor(rgb, self.device)
        rows, columns = rgb.shape[:2]
        found = detect_multi_scale(
            self.network,
            imagenet_normalise(tensor),
            min_reliability=self.config.min_reliability,
            min_repeatability=self.config.min_repeatability,
            max_size=self.config.max_size,
            min_size=min(256, max(rows, columns), self.config.max_size),
        )
        # the reduction above has its pixel centres half a pixel inside
        scale = found.xy.new_tensor([width / columns, height / rows])
        xy = (found.xy + 0.5) * scale - 0.5 if (rows, columns) != (height, width) else found.xy
        found = Keypoints(xy, found.size * float(scale.max()), found.score, found.descriptors)
        if mask is not None:
            x, y = (xy + 0.5).floor().long().T
            allowed = torch.from_numpy(mask).to(self.device)
            found = found.select(allowed[y.clamp(0, height - 1), x.clamp(0, width - 1)])
        order = torch.argsort(found.score, descending=True, stable=True)[: self.config.keypoints]
        return found.select(order)

    @torch.inference_mode()
    def _match(self, reference: Encoding, query: Encoding, *, max_matches: int | None, seed: int) -> RawMatches:
        a, b = cast(Keypoints, reference.data), cast(Keypoints, query.data)
        first, second, similarity = mutual_nearest_neighbours(a.descriptors, b.descriptors)
        # both end points must be good, and the descriptors alike
        score = (a.score[first] * b.score[second]).sqrt() * similarity.clamp(0, 1)
        # a key point is known to about a pixel of the level where it was found
        sigma = (0.5 * b.size[second] / 32).clamp(min=0.5).double()
        precision = torch.stack([sigma**-2, torch.zeros_like(sigma), sigma**-2], 1)
        return RawMatches(_numpy(a.xy[first]), _numpy(b.xy[second]), _numpy(score), _numpy(precision))


def _numpy(tensor: Tensor) -> NDArray[np.float32]:
    return np.asarray(tensor.cpu().numpy(), np.float32)
