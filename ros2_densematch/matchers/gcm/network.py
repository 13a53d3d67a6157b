"""The network of `gcm`: one pass gives deep descriptors at stride 4 and a saliency for every pixel.

The pyramid is EfficientNet-Lite0's; a plain feature pyramid (Lin et al., CVPR 2017) brings stride 16 down to stride 4.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from ros2_densematch.nn.efficientnet_lite import PYRAMID_CHANNELS, EfficientNetLite0

DESCRIPTOR_STRIDE = 4
DESCRIPTOR_SIZE = 64
_WIDTH = 64
_SALIENCY_WIDTH = 16


class Features(NamedTuple):
    """Output of `GcmNetwork`.

    Attributes:
        descriptors: (B, 64, H / 4, W / 4), not normalised: sample first, then normalise.
        saliency: (B, 1, H, W), a logit per pixel: how well this place can be found again.
    """

    descriptors: Tensor
    saliency: Tensor


def _conv(inputs: int, outputs: int, kernel: int = 3) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
    )


class GcmNetwork(nn.Module):
    """Descriptors and saliency of an image batch; 0.9 M parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = EfficientNetLite0()
        self.lateral = nn.ModuleDict({str(s): nn.Conv2d(PYRAMID_CHANNELS[s], _WIDTH, 1) for s in (4, 8, 16)})
        self.smooth8 = _conv(_WIDTH, _WIDTH)
        self.smooth4 = _conv(_WIDTH, _WIDTH)
        self.descriptor = nn.Sequential(_conv(_WIDTH, _WIDTH), nn.Conv2d(_WIDTH, DESCRIPTOR_SIZE, 1))
        self.saliency_coarse = nn.Conv2d(_WIDTH, _SALIENCY_WIDTH, 1)
        self.saliency_fine = nn.Conv2d(PYRAMID_CHANNELS[2], _SALIENCY_WIDTH, 1)
        self.saliency = nn.Sequential(
            nn.ReLU(inplace=True),
            nn.Conv2d(_SALIENCY_WIDTH, _SALIENCY_WIDTH, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(_SALIENCY_WIDTH, _SALIENCY_WIDTH, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(_SALIENCY_WIDTH, 4, 3, padding=1),
            nn.PixelShuffle(2),
        )

    def forward(self, image: Tensor) -> Features:
        """One pass.

        Args:
            image: float (B, 3, H, W) RGB in [0, 1]; H and W multiples of 16. Contrast is normalised per image inside.
        """
        mean, deviation = _contrast(image)
        # the floor keeps the noise of a blank image from being blown up into structure
        pyramid = self.backbone((image - mean) / deviation.clamp_min(0.02))
        top = self.lateral["16"](pyramid[16])
        middle = self.smooth8(self.lateral["8"](pyramid[8]) + _twice(top))
        bottom = self.smooth4(self.lateral["4"](pyramid[4]) + _twice(middle))
        saliency = self.saliency_fine(pyramid[2]) + _twice(self.saliency_coarse(bottom))
        return Features(self.descriptor(bottom), self.saliency(saliency))


def _contrast(image: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and deviation of all values of each image of (B, 3, H, W), (B, 1, 1, 1)."""
    if not torch.compiler.is_exporting():
        return image.mean((1, 2, 3), keepdim=True), image.std((1, 2, 3), keepdim=True)
    # ONNX Runtime adds a million numbers one after the other in single precision, which costs three digits; rows first
    # keeps them
    count = image.shape[1] * image.shape[2] * image.shape[3]
    mean = _mean_by_rows(image)
    variance = _mean_by_rows((image - mean).square()) * (count / (count - 1))
    return mean, variance.sqrt()


def _mean_by_rows(x: Tensor) -> Tensor:
    return x.mean(3, keepdim=True).mean(2, keepdim=True).mean(1, keepdim=True)


def _twice(x: Tensor) -> Tensor:
    return functional.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=False)


def sample_descriptors(descriptors: Tensor, xy: Tensor) -> Tensor:
    """Unit descriptors at image positions, bilinear.

    Args:
        descriptors: (B, C, h, w) at stride `DESCRIPTOR_STRIDE`.
        xy: (B, N, 2) pixels of the image, (0, 0) = centre of the top-left pixel.

    Returns:
        (B, N, C), each of length 1.
    """
    height, width = descriptors.shape[-2:]
    size = xy.new_tensor([width * DESCRIPTOR_STRIDE, height * DESCRIPTOR_STRIDE])
    grid = ((xy + 0.5) / size * 2 - 1)[:, :, None]
    sampled = functional.grid_sample(descriptors, grid, mode="bilinear", padding_mode="border", align_corners=False)
    return functional.normalize(sampled[..., 0].transpose(1, 2), dim=-1)


def pad_to_multiple(image: Tensor, multiple: int) -> Tensor:
    """Repeats the last row and column until both sides of (B, C, H, W) are multiples of `multiple`."""
    bottom = -image.shape[-2] % multiple
    right = -image.shape[-1] % multiple
    if not bottom and not right:
        return image
    return functional.pad(image, (0, right, 0, bottom), mode="replicate")


def parameter_count(module: nn.Module) -> int:
    """Number of trainable and frozen parameters."""
    return sum(p.numel() for p in module.parameters())
