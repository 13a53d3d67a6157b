"""ConDL's descriptor network: ten convolutions with residuals, a 128-d descriptor for every second pixel.

Kwiatkowski, Matern, Hellrich, "ConDL: detector-free dense image matching" (arXiv 2408.02766): "a 10-layer ResNet with
128 channels". The text at hand is a summary of the paper: stride, kernel sizes, normalisation and the placing of the
residuals are ours to choose, and are these. A stem of stride 2 (so that the receptive field grows while a descriptor
still says where its two pixels are), four residual blocks of two 3 x 3 convolutions with dilations 1, 2, 4 and 8, and
one linear 1 x 1 convolution: 1 + 8 + 1 = 10 layers, receptive field 124 pixels.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

DESCRIPTOR_CHANNELS = 128
STRIDE = 2
_DILATIONS = (1, 2, 4, 8)


class _Block(nn.Module):
    def __init__(self, channels: int, dilation: int) -> None:
        super().__init__()
        # a batch norm is registered right after the convolution that it follows: `fold_batch_norms` relies on it
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=dilation, dilation=dilation, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=dilation, dilation=dilation, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        y = functional.relu(self.bn1(self.conv1(x)))
        return functional.relu(x + self.bn2(self.conv2(y)))


class CondlNetwork(nn.Module):
    """Dense descriptors of an image."""

    def __init__(self, channels: int = DESCRIPTOR_CHANNELS) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, channels, 4, STRIDE, 1, bias=False)
        self.stem_norm = nn.BatchNorm2d(channels)
        self.blocks = nn.ModuleList(_Block(channels, dilation) for dilation in _DILATIONS)
        self.head = nn.Conv2d(channels, channels, 1)

    def forward(self, image: Tensor) -> Tensor:
        """Descriptors of unit length.

        Args:
            image: float (B, 3, H, W), ImageNet-normalised.

        Returns:
            (B, 128, H // 2, W // 2); the cell (i, j) is centred at pixel (2 i + 0.5, 2 j + 0.5).
        """
        x = functional.relu(self.stem_norm(self.stem(image)))
        for block in self.blocks:
            x = block(x)
        return functional.normalize(self.head(x), dim=1)
