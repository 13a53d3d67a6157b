"""Blocks that MobileNetV3 and EfficientNetV2 share, with the published key names."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn


class ConvNormAct(nn.Sequential):
    """Convolution without bias (`0`), batch norm (`1`), activation (`2`, where there is one)."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int = 1,
        stride: int = 1,
        *,
        groups: int = 1,
        activation: Callable[[], nn.Module] | None,
        eps: float,
    ) -> None:
        members: list[nn.Module] = [
            nn.Conv2d(inputs, outputs, kernel, stride, (kernel - 1) // 2, groups=groups, bias=False),
            nn.BatchNorm2d(outputs, eps=eps),
        ]
        super().__init__(*members, *([activation()] if activation is not None else []))


class SqueezeExcite(nn.Module):
    """Channels weighted by what the whole image holds; keys `fc1`, `fc2` (1 x 1 convolutions)."""

    def __init__(
        self, channels: int, squeezed: int, activation: Callable[[], nn.Module], gate: Callable[[], nn.Module]
    ) -> None:
        super().__init__()
        self.fc1 = nn.Conv2d(channels, squeezed, 1)
        self.fc2 = nn.Conv2d(squeezed, channels, 1)
        self._activation, self._gate = activation(), gate()

    def forward(self, x: Tensor) -> Tensor:
        weight: Tensor = self._gate(self.fc2(self._activation(self.fc1(x.mean((2, 3), keepdim=True)))))
        return x * weight


def rounded_channels(channels: float, divisor: int = 8) -> int:
    """The nearest multiple of the divisor that is not more than a tenth below the number."""
    rounded = max(divisor, int(channels + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < 0.9 * channels else rounded
