"""ResNet 18 to 152, as a feature pyramid.

He et al., "Deep residual learning for image recognition", CVPR 2016; the stride of a bottleneck sits in its 3x3
convolution ("v1.5"), as in the published PyTorch weights, whose state-dict keys (`conv1`, `bn1`, `layerN.I.convJ`,
`layerN.I.downsample.0`, `fc`) are ours.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

# depth -> (bottleneck blocks, blocks of layer1 to layer4)
_DEPTHS: dict[int, tuple[bool, tuple[int, int, int, int]]] = {
    18: (False, (2, 2, 2, 2)),
    34: (False, (3, 4, 6, 3)),
    50: (True, (3, 4, 6, 3)),
    101: (True, (3, 4, 23, 3)),
    152: (True, (3, 8, 36, 3)),
}
# the strides of conv1 (before the pooling) and of layer1 to layer4
STRIDES = (2, 4, 8, 16, 32)


class _BasicBlock(nn.Module):
    expansion = 1

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        # a batch norm is registered right after the convolution that it follows: `fold_batch_norms` relies on it
        self.conv1 = nn.Conv2d(inputs, width, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.downsample = _shortcut(inputs, width, stride)

    def forward(self, x: Tensor) -> Tensor:
        y = functional.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        return functional.relu(y + (x if self.downsample is None else self.downsample(x)))


class _Bottleneck(nn.Module):
    expansion = 4

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, 4 * width, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(4 * width)
        self.downsample = _shortcut(inputs, 4 * width, stride)

    def forward(self, x: Tensor) -> Tensor:
        y = functional.relu(self.bn1(self.conv1(x)))
        y = functional.relu(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y))
        return functional.relu(y + (x if self.downsample is None else self.downsample(x)))


def _shortcut(inputs: int, outputs: int, stride: int) -> nn.Sequential | None:
    if stride == 1 and inputs == outputs:
        return None
    return nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))


class ResNet(nn.Module):
    """The stages of a ResNet.

    Attributes:
        channels: stride -> channels of that stage's output.
    """

    def __init__(self, depth: int = 50, *, stages: int = 4, classes: int | None = None) -> None:
        """
        Args:
            depth: 18, 34, 50, 101 or 152.
            stages: how many of layer1 to layer4 exist (1 to 4).
            classes: size of the classifier `fc`, which takes no part in `forward`; None leaves it out.

        Raises:
            ValueError: another depth or number of stages.
        """
        super().__init__()
        if depth not in _DEPTHS:
            raise ValueError(f"no ResNet of depth {depth}: choose one of {', '.join(map(str, _DEPTHS))}")
        if not 1 <= stages <= 4:
            raise ValueError(f"stages must be 1 to 4, got {stages}")
        bottleneck, blocks = _DEPTHS[depth]
        block = _Bottleneck if bottleneck else _BasicBlock
        self.conv1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.channels = {2: 64}
        inputs = 64
        for stage in range(stages):
            width = 64 << stage
            members: list[nn.Module] = []
            for i in range(blocks[stage]):
                members.append(block(inputs, width, 2 if stage > 0 and i == 0 else 1))
                inputs = width * block.expansion
            self.add_module(f"layer{stage + 1}", nn.Sequential(*members))
            self.channels[STRIDES[stage + 1]] = inputs
        self._stages = stages
        if classes is not None:
            self.fc = nn.Linear(inputs, classes)

    def forward(self, image: Tensor, *, deepest: int | None = None) -> dict[int, Tensor]:
        """Features of an image batch; sides that the strides do not divide are rounded up.

        Args:
            image: float (B, 3, H, W), ImageNet-normalised.
            deepest: the largest stride wanted (2, 4, 8, 16 or 32); stages beyond it are not run. None runs all.

        Returns:
            stride -> (B, C, ceil(H / stride), ceil(W / stride)); stride 2 is the output of conv1, before the pooling.
        """
        x = functional.relu(self.bn1(self.conv1(image)))
        pyramid: dict[int, Tensor] = {2: x}
        if deepest == 2:
            return pyramid
        x = functional.max_pool2d(x, 3, 2, 1)
        for stage in range(1, self._stages + 1):
            x = self.get_submodule(f"layer{stage}")(x)
            pyramid[STRIDES[stage]] = x
            if STRIDES[stage] == deepest:
                break
        return pyramid


def imagenet_normalise(rgb: Tensor) -> Tensor:
    """ImageNet mean and standard deviation on RGB in [0, 1], float (..., 3, H, W)."""
    mean = torch.tensor([0.485, 0.456, 0.406], dtype=rgb.dtype, device=rgb.device)[:, None, None]
    deviation = torch.tensor([0.229, 0.224, 0.225], dtype=rgb.dtype, device=rgb.device)[:, None, None]
    return (rgb - mean) / deviation
