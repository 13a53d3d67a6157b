"""Images as RoMa v2 takes them."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from ros2_densematch.arrays import Image
from ros2_densematch.nn.resnet import imagenet_normalise


def prepared(image: Image, size: tuple[int, int], device: torch.device | None = None) -> Tensor:
    """A picture at another size, ImageNet-normalised.

    Resized as a float image, bicubic with antialiasing: values leave [0, 1] a little, as in the released code.

    Args:
        image: uint8, RGB (H, W, 3) or grey (H, W).
        size: (height, width); the aspect ratio is not kept.
        device: None for the CPU.

    Returns:
        float32 (1, 3, height, width).
    """
    rgb = image if image.ndim == 3 else np.repeat(image[..., None], 3, 2)
    tensor = torch.from_numpy(np.ascontiguousarray(rgb)).to(device).permute(2, 0, 1)[None].float() / 255
    resized = functional.interpolate(tensor, size=size, mode="bicubic", align_corners=False, antialias=True)
    return imagenet_normalise(resized)
