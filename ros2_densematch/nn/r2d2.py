"""R2D2's patch networks: dilated convolutions at full resolution, a 128-d descriptor for every pixel.

Revaud et al., "R2D2: repeatable and reliable detector and descriptor", NeurIPS 2019, section 3, in the released sizes
(`quad`, `big`, `fast`), and the distilled student of GCM (arXiv 2403.05388, section III-C). State-dict keys equal those
of the published files.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

DESCRIPTOR_CHANNELS = 128
Variant = Literal["quad", "big", "fast", "student"]


class _Layer(NamedTuple):
    channels: int
    kernel: int
    dilation: int
    norm: bool
    relu: bool


class R2d2Output(NamedTuple):
    """What the network says about every pixel.

    Attributes:
        descriptors: (B, 128, H, W) of length 1.
        reliability: (B, 1, H, W) in [0, 1]: a descriptor taken here is matched rightly.
        repeatability: (B, 1, H, W) in [0, 1]: a key point here is found again.
    """

    descriptors: Tensor
    reliability: Tensor
    repeatability: Tensor


def _layers(variant: Variant) -> tuple[list[_Layer], int | None]:
    """The convolutions of a variant, and after which of them (counted from 1) the fast one pools."""
    if variant == "student":
        trunk = [_Layer(32, 3, 1, True, True), _Layer(64, 3, 1, True, True), _Layer(128, 3, 2, True, True)]
        tail = [_Layer(128, 2, 4, True, False), _Layer(128, 2, 8, True, False), _Layer(128, 2, 16, False, False)]
        return trunk + tail, None
    m = 6 if variant == "big" else 4
    channels = (8 * m, 8 * m, 16 * m, 16 * m, 32 * m, 32 * m, 32 * m, 32 * m, DESCRIPTOR_CHANNELS)
    # every halving of the resolution of the original L2-Net is a doubling of the dilation, or one pooling
    dilations = (1, 1, 1, 1, 1, 2, 2, 4, 8) if variant == "fast" else (1, 1, 1, 2, 2, 4, 4, 8, 16)
    layers = [
        _Layer(channels[i], 3 if i < 6 else 2, dilations[i], norm=i < 8, relu=i < 6) for i in range(len(channels))
    ]
    return layers, 3 if variant == "fast" else None


class R2d2Network(nn.Module):
    """One of R2D2's networks; `ops` in the published numbering, heads `clf` (reliability) and `sal` (repeatability)."""

    def __init__(self, variant: Variant = "quad") -> None:
        """
        Args:
            variant: "quad" (r2d2_WASF_N16, r2d2_WAF_N16), "big" (r2d2_WASF_N8_big), "fast" (faster2d2_WASF_N16) or
                "student" (the descriptor distilled for GCM, whose heads were not trained).

        Raises:
            ValueError: another variant.
        """
        super().__init__()
        if variant not in ("quad", "big", "fast", "student"):
            raise ValueError(f"no R2D2 network {variant!r}: choose quad, big, fast or student")
        self.variant = variant
        layers, pooled_after = _layers(variant)
        ops: list[nn.Module] = []
        inputs = 3
        for number, layer in enumerate(layers, 1):
            padding = (layer.kernel - 1) * layer.dilation // 2
            ops.append(nn.Conv2d(inputs, layer.channels, layer.kernel, padding=padding, dilation=layer.dilation))
            if layer.norm:
                ops.append(nn.BatchNorm2d(layer.channels, affine=False))
            if layer.relu:
                ops.append(nn.ReLU(inplace=True))
            if number == pooled_after:
                ops.append(nn.MaxPool2d(2, 2))
            inputs = layer.channels
        self.ops = nn.ModuleList(ops)
        self.clf = nn.Conv2d(inputs, 2, 1)
        self.sal = nn.Conv2d(inputs, 1, 1)

    def features(self, image: Tensor) -> Tensor:
        """Descriptors before normalisation.

        Args:
            image: float (B, 3, H, W), ImageNet-normalised.

        Returns:
            (B, 128, H, W); the fast network gives 2 (H // 2) x 2 (W // 2).
        """
        x = image
        for op in self.ops:
            x = op(x)
        if self.variant == "fast":
            x = functional.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
        return x

    def forward(self, image: Tensor) -> R2d2Output:
        """Descriptors, reliability and repeatability; arguments as of `features`."""
        x = self.features(image)
        squared = x**2
        positive = functional.softplus(self.sal(squared))
        return R2d2Output(
            functional.normalize(x, dim=1),
            functional.softmax(self.clf(squared), dim=1)[:, 1:2],
            positive / (1 + positive),
        )


def local_maxima(output: R2d2Output, *, min_reliability: float = 0.7, min_repeatability: float = 0.7) -> Tensor:
    """Pixels that are the largest of their 3 x 3 neighbourhood in repeatability and pass both thresholds.

    Args:
        output: of one image (batch size 1).
        min_reliability: in [0, 1].
        min_repeatability: in [0, 1].

    Returns:
        (N, 2) integers, row and column, in row-major order.
    """
    repeatability = output.repeatability
    largest = functional.max_pool2d(repeatability, 3, 1, 1)
    keep = (repeatability == largest) & (repeatability >= min_repeatability) & (output.reliability >= min_reliability)
    return torch.nonzero(keep[0, 0])
