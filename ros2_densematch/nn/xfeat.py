"""The XFeat backbone without its heads: fine features at stride 4, coarse features at stride 8.

Potje et al., "XFeat: accelerated features for lightweight image matching", CVPR 2024, section 3.1. State-dict keys
equal those of the trunk in the released checkpoints.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

from ros2_densematch.nn.grid import resize

FINE_CHANNELS = 24
COARSE_CHANNELS = 64


class ConvLayer(nn.Module):
    """Convolution without bias, batch norm without learned scale or shift, ReLU."""

    def __init__(self, inputs: int, outputs: int, *, kernel: int = 3, stride: int = 1) -> None:
        super().__init__()
        self.layer = nn.Sequential(
            nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False),
            nn.BatchNorm2d(outputs, affine=False),
            nn.ReLU(inplace=True),
        )

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.layer(x)
        return result


class XFeatBackbone(nn.Module):
    """The trunk of XFeat."""

    def __init__(self) -> None:
        super().__init__()
        layer = ConvLayer
        self.skip1 = nn.Sequential(nn.AvgPool2d(4, 4), nn.Conv2d(1, FINE_CHANNELS, 1))
        self.block1 = nn.Sequential(layer(1, 4), layer(4, 8, stride=2), layer(8, 8), layer(8, 24, stride=2))
        self.block2 = nn.Sequential(layer(24, 24), layer(24, 24))
        self.block3 = nn.Sequential(layer(24, 64, stride=2), layer(64, 64), layer(64, 64, kernel=1))
        self.block4 = nn.Sequential(layer(64, 64, stride=2), layer(64, 64), layer(64, 64))
        self.block5 = nn.Sequential(
            layer(64, 128, stride=2), layer(128, 128), layer(128, 128), layer(128, 64, kernel=1)
        )
        self.block_fusion = nn.Sequential(layer(64, 64), layer(64, 64), nn.Conv2d(64, COARSE_CHANNELS, 1))

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Features of an image batch.

        Args:
            image: (B, 3, H, W) in [0, 1]; H and W multiples of 32.

        Returns:
            fine (B, 24, H / 4, W / 4) and coarse (B, 64, H / 8, W / 8).

        Raises:
            ValueError: the sides are not multiples of 32.
        """
        if image.shape[-2] % 32 or image.shape[-1] % 32:
            raise ValueError(f"height and width must be multiples of 32, got {tuple(image.shape[-2:])}: resize it")
        grey = functional.instance_norm(image.float().mean(1, keepdim=True)).to(image.dtype)
        fine = self.block2(self.block1(grey) + self.skip1(grey))
        x3 = self.block3(fine)
        x4 = self.block4(x3)
        x5 = self.block5(x4)
        size = (x3.shape[-2], x3.shape[-1])
        coarse: Tensor = self.block_fusion(x3 + resize(x4, size) + resize(x5, size))
        return fine, coarse
