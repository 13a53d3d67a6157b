"""MobileNetV3-Large up to stride 16, as a feature pyramid.

Howard et al., "Searching for MobileNetV3", ICCV 2019, table 1. State-dict keys equal those of the published PyTorch
weights (`features.<i>.block.<j>...`), so that they load with the deeper blocks and the classifier left out.
"""

from __future__ import annotations

from functools import partial

from torch import Tensor, nn

from ros2_densematch.nn.inverted_residual import ConvNormAct, SqueezeExcite, rounded_channels

# kernel, hidden channels, output channels, squeeze and excite, hard swish instead of ReLU, stride
_BLOCKS = (
    (3, 16, 16, False, False, 1),
    (3, 64, 24, False, False, 2),
    (3, 72, 24, False, False, 1),
    (5, 72, 40, True, False, 2),
    (5, 120, 40, True, False, 1),
    (5, 120, 40, True, False, 1),
    (3, 240, 80, False, True, 2),
    (3, 200, 80, False, True, 1),
    (3, 184, 80, False, True, 1),
    (3, 184, 80, False, True, 1),
    (3, 480, 112, True, True, 1),
    (3, 672, 112, True, True, 1),
)
# the number of the last member of `features` at each stride
_LAST = {2: 1, 4: 3, 8: 6, 16: 12}


class _Block(nn.Module):
    def __init__(self, inputs: int, kernel: int, hidden: int, outputs: int, se: bool, hs: bool, stride: int) -> None:
        super().__init__()
        activation = nn.Hardswish if hs else nn.ReLU
        conv = partial(ConvNormAct, eps=1e-3)
        members: list[nn.Module] = []
        if hidden != inputs:
            members.append(conv(inputs, hidden, activation=activation))
        members.append(conv(hidden, hidden, kernel, stride, groups=hidden, activation=activation))
        if se:
            members.append(SqueezeExcite(hidden, rounded_channels(hidden // 4), nn.ReLU, nn.Hardsigmoid))
        members.append(conv(hidden, outputs, activation=None))
        self.block = nn.Sequential(*members)
        self._residual = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.block(x)
        return x + y if self._residual else y


class MobileNetV3(nn.Module):
    """The pyramid of MobileNetV3-Large: stride -> features, for strides 2, 4, 8 and 16."""

    def __init__(self) -> None:
        super().__init__()
        members: list[nn.Module] = [ConvNormAct(3, 16, 3, 2, activation=nn.Hardswish, eps=1e-3)]
        inputs = 16
        for kernel, hidden, outputs, se, hs, stride in _BLOCKS:
            members.append(_Block(inputs, kernel, hidden, outputs, se, hs, stride))
            inputs = outputs
        self.features = nn.ModuleList(members)

    def forward(self, image: Tensor) -> dict[int, Tensor]:
        """Args: image: float (B, 3, H, W), ImageNet-normalised, sides multiples of 16."""
        x, maps = image, []
        for member in self.features:
            x = member(x)
            maps.append(x)
        return {stride: maps[i] for stride, i in _LAST.items()}
