"""The encoder of `gcm` as a pure function of fixed shape: it reads nothing on the host and chooses nothing by value, so
it can be written as one graph."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from ros2_densematch.matchers.gcm.network import GcmNetwork, pad_to_multiple, sample_descriptors

MULTIPLE = 16  # sides of what the network takes
# TensorRT's top-k gives no more
MOST_KEYPOINTS = 3840
_RADIUS, _BORDER = 2, 4
_NO_PLACE = -1e4  # a logit below every saliency that counts, within half precision

OUTPUTS = {
    "descriptors": "unit descriptors at stride 4; cell (i, j) is centred at pixel (4 i + 1.5, 4 j + 1.5)",
    "saliency": "a logit per pixel: how well this place can be found again",
    "keypoints": "pixels (x, y) of the input, most salient first; (0, 0) is the centre of the top-left pixel",
    "keypoint_saliency": f"their saliency; where it is {_NO_PLACE:g}, and the place (-1, -1), a row is no key point",
    "keypoint_descriptors": "their unit descriptors",
}
TABLE = ("keypoints", "keypoint_saliency", "keypoint_descriptors")


class EncodedImage(NamedTuple):
    """What the graph returns, of fixed shape.

    Attributes:
        descriptors: (B, 64, H / 4, W / 4), of length 1; sides rounded up to multiples of 4.
        saliency: (B, 1, H, W), logits.
        keypoints: (B, K, 2) pixels, most salient first.
        keypoint_saliency: (B, K); -10000 where there were fewer than K key points.
        keypoint_descriptors: (B, K, 64), of length 1.
    """

    descriptors: Tensor
    saliency: Tensor
    keypoints: Tensor
    keypoint_saliency: Tensor
    keypoint_descriptors: Tensor


class GcmEncoder(nn.Module):
    """From a working image to descriptors and key points.

    Args:
        network: ready for inference.
        keypoints: so many rows are returned.
        threshold: least saliency of a key point.
    """

    def __init__(self, network: GcmNetwork, keypoints: int, threshold: float) -> None:
        super().__init__()
        self.network = network
        self._keypoints, self._threshold = keypoints, threshold

    def forward(self, image: Tensor) -> EncodedImage:
        """One pass.

        Args:
            image: float (B, 3, H, W) RGB in [0, 1]; any sides of at least 16 pixels.
        """
        height, width = image.shape[-2:]
        features = self.network(pad_to_multiple(image, MULTIPLE))
        saliency = features.saliency[:, :, :height, :width]
        descriptors = functional.normalize(features.descriptors, dim=1)
        xy, value = fixed_keypoints(saliency[:, 0], self._keypoints, self._threshold)
        return EncodedImage(descriptors, saliency, xy, value, sample_descriptors(descriptors, xy))


def fixed_keypoints(saliency: Tensor, count: int, threshold: float) -> tuple[Tensor, Tensor]:
    """The same local maxima as `encoding.detect`, as tables of fixed length.

    Args:
        saliency: (B, H, W) logits.
        count: rows of the tables.
        threshold: least logit.

    Returns:
        pixels (B, count, 2), most salient first, and their logits (B, count); rows without a key point have (-1, -1)
        and -10000.
    """
    height, width = saliency.shape[-2:]
    largest = functional.max_pool2d(saliency[:, None], 2 * _RADIUS + 1, 1, _RADIUS)[:, 0]
    row = torch.arange(height, device=saliency.device)[:, None]
    column = torch.arange(width, device=saliency.device)[None]
    inside = (row >= _BORDER) & (row < height - _BORDER) & (column >= _BORDER) & (column < width - _BORDER)
    chosen = (saliency == largest) & (saliency > threshold) & inside
    value, index = torch.where(chosen, saliency, _NO_PLACE).flatten(1).topk(count, dim=1)
    y = torch.div(index, width, rounding_mode="floor")
    xy = torch.stack([index - y * width, y], -1).to(saliency.dtype)
    return torch.where((value > _NO_PLACE)[..., None], xy, -1.0), value
