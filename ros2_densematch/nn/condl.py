"""ConDL's descriptor network: ten convolutions with residuals, a 128-d descriptor for every second pixel.

Kwiatkowski, Matern, Hellrich, "ConDL: detector-free dense image matching" (arXiv 2408.02766): "a 10-layer ResNet with
128 channels". The text at hand is a summary of the paper: strides, kernel sizes, normalisation and the placing of the
residuals are ours to choose, and are these. A stem of stride 2; three residual blocks of two convolutions at stride 4,
where context is cheap (dilations 1, 2 and 4); their result, enlarged, is added to the stem's, so that a descriptor
still says where its two pixels are; a fourth block at stride 2 and one linear 1 x 1 convolution: 1 + 8 + 1 = 10 layers,
receptive field 126 pixels, twice as fast as with stride 2 throughout.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

DESCRIPTOR_CHANNELS = 128
STRIDE = 2
MULTIPLE = 4  # image sides must be multiples of it
_DILATIONS = (1, 2, 4)


class _Block(nn.Module):
    def __init__(self, channels: int, dilation: int = 1, stride: int = 1) -> None:
        super().__init__()
        # a batch norm is registered right after the convolution that it follows: `fold_batch_norms` relies on it
        if stride == 1:
            self.conv1 = nn.Conv2d(channels, channels, 3, padding=dilation, dilation=dilation, bias=False)
        else:  # an even kernel keeps the new cell centred on the cells that it stands for
            self.conv1 = nn.Conv2d(channels, channels, 2 * stride, stride, stride // 2, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=dilation, dilation=dilation, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self._stride = stride

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv2(functional.relu(self.bn1(self.conv1(x)))))
        short = x if self._stride == 1 else functional.avg_pool2d(x, self._stride)
        return functional.relu(short + y)


class CondlNetwork(nn.Module):
    """Dense descriptors of an image."""

    def __init__(self, channels: int = DESCRIPTOR_CHANNELS) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, channels, 2 * STRIDE, STRIDE, STRIDE // 2, bias=False)
        self.stem_norm = nn.BatchNorm2d(channels)
        self.context = nn.ModuleList(
            _Block(channels, dilation, 2 if number == 0 else 1) for number, dilation in enumerate(_DILATIONS)
        )
        self.merge = _Block(channels)
        self.head = nn.Conv2d(channels, channels, 1)

    def forward(self, image: Tensor) -> Tensor:
        """Descriptors of unit length.

        Args:
            image: float (B, 3, H, W), ImageNet-normalised, sides multiples of 4.

        Returns:
            (B, 128, H / 2, W / 2); the cell (i, j) is centred at pixel (2 i + 0.5, 2 j + 0.5).
        """
        fine = functional.relu(self.stem_norm(self.stem(image)))
        context = fine
        for block in self.context:
            context = block(context)
        enlarged = functional.interpolate(context, size=fine.shape[2:], mode="bilinear", align_corners=False)
        return functional.normalize(self.head(self.merge(fine + enlarged)), dim=1)
