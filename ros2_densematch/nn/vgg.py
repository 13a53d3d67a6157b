"""VGG 16 and 19, with or without batch norm.

Simonyan and Zisserman, "Very deep convolutional networks for large-scale image recognition", ICLR 2015. The layers are
numbered as in the published PyTorch weights (`features.<i>`), so that their state-dict keys fit.
"""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor, nn

# convolutions per block; the blocks have 64, 128, 256, 512 and 512 channels and end in a max-pooling
_BLOCKS = {16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}
_CHANNELS = (64, 128, 256, 512, 512)


def vgg_layers(depth: int, *, batch_norm: bool, count: int | None = None) -> list[nn.Module]:
    """The first `count` modules of the published `features` list; None gives all.

    Args:
        depth: 16 or 19.
        batch_norm: whether a batch norm follows every convolution.
        count: how many modules, in the numbering of the published list.

    Raises:
        ValueError: another depth, or more modules than there are.
    """
    if depth not in _BLOCKS:
        raise ValueError(f"no VGG of depth {depth}: choose 16 or 19")
    layers: list[nn.Module] = []
    inputs = 3
    for convolutions, channels in zip(_BLOCKS[depth], _CHANNELS, strict=True):
        for _ in range(convolutions):
            layers.append(nn.Conv2d(inputs, channels, 3, padding=1))
            if batch_norm:
                layers.append(nn.BatchNorm2d(channels))
            layers.append(nn.ReLU(inplace=True))
            inputs = channels
        layers.append(nn.MaxPool2d(2, 2))
    if count is not None and not 1 <= count <= len(layers):
        raise ValueError(f"VGG-{depth} has {len(layers)} modules, asked for {count}")
    return layers[:count]


class VggPyramid(nn.Module):
    """What enters each max-pooling: stride -> features; keys `layers.<i>` in the published numbering."""

    def __init__(self, depth: int = 19, *, batch_norm: bool = True, count: int | None = None) -> None:
        """Arguments as of `vgg_layers`."""
        super().__init__()
        self.layers = nn.ModuleList(vgg_layers(depth, batch_norm=batch_norm, count=count))

    def forward(self, image: Tensor) -> dict[int, Tensor]:
        """Features of an image batch.

        Args:
            image: float (B, 3, H, W), ImageNet-normalised.

        Returns:
            stride 1, 2, 4, ... -> (B, C, H // stride, W // stride), each halving rounded down on its own.
        """
        return dict(self.levels(image))

    def levels(self, image: Tensor) -> Iterator[tuple[int, Tensor]]:
        """As `forward`, one stride after the other: who needs none of them for long keeps none in memory."""
        x, stride = image, 1
        # a pooling at the very end of the list only marks where its input is taken
        for i, layer in enumerate(self.layers):
            if isinstance(layer, nn.MaxPool2d):
                yield stride, x
                stride *= 2
                if i == len(self.layers) - 1:
                    return
            x = layer(x)
        yield stride, x
