"""The encoder of `condl` as a pure function of fixed shape."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

from ros2_densematch.nn.condl import MULTIPLE, CondlNetwork
from ros2_densematch.nn.resnet import imagenet_normalise

OUTPUTS = {"descriptors": "unit descriptors at stride 2; cell (i, j) is centred at pixel (2 i + 0.5, 2 j + 0.5)"}


class CondlEncoder(nn.Module):
    """From a working image to descriptors, which `condl` samples on a grid or at key points."""

    def __init__(self, network: CondlNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, image: Tensor) -> Tensor:
        """Unit descriptors (B, 128, H / 2, W / 2), sides rounded up to multiples of 4 first, of a float image
        (B, 3, H, W), RGB in [0, 1]."""
        height, width = image.shape[-2:]
        padded = functional.pad(imagenet_normalise(image), (0, -width % MULTIPLE, 0, -height % MULTIPLE))
        descriptors: Tensor = self.network(padded)
        return descriptors
