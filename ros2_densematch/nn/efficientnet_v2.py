"""EfficientNetV2-S up to stride 16, as a feature pyramid.

Tan and Le, "EfficientNetV2: smaller models and faster training", ICML 2021, table 4. State-dict keys equal those of the
published PyTorch weights (`features.<stage>.<i>.block.<j>...`), so that they load with the last stage and the
classifier left out.
"""

from __future__ import annotations

from functools import partial

from torch import Tensor, nn

from ros2_densematch.nn.inverted_residual import ConvNormAct, SqueezeExcite, rounded_channels

# fused (one 3 x 3 convolution in place of expansion and depthwise), expansion, stride, output channels, blocks
_STAGES = (
    (True, 1, 1, 24, 2),
    (True, 4, 2, 48, 4),
    (True, 4, 2, 64, 4),
    (False, 4, 2, 128, 6),
    (False, 6, 1, 160, 9),
)
_STEM = 24
# the number of the last member of `features` at each stride
_LAST = {2: 1, 4: 2, 8: 3, 16: 5}


class _Block(nn.Module):
    def __init__(self, inputs: int, fused: bool, expansion: int, stride: int, outputs: int) -> None:
        super().__init__()
        conv = partial(ConvNormAct, eps=1e-3)
        hidden = rounded_channels(inputs * expansion)
        members: list[nn.Module]
        if fused and expansion == 1:
            members = [conv(inputs, outputs, 3, stride, activation=nn.SiLU)]
        elif fused:
            members = [conv(inputs, hidden, 3, stride, activation=nn.SiLU), conv(hidden, outputs, activation=None)]
        else:
            members = [
                conv(inputs, hidden, activation=nn.SiLU),
                conv(hidden, hidden, 3, stride, groups=hidden, activation=nn.SiLU),
                SqueezeExcite(hidden, max(1, inputs // 4), nn.SiLU, nn.Sigmoid),
                conv(hidden, outputs, activation=None),
            ]
        self.block = nn.Sequential(*members)
        self._residual = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.block(x)
        return x + y if self._residual else y


class EfficientNetV2(nn.Module):
    """The pyramid of EfficientNetV2-S: stride -> features, for strides 2, 4, 8 and 16."""

    def __init__(self) -> None:
        super().__init__()
        stages: list[nn.Module] = [ConvNormAct(3, _STEM, 3, 2, activation=nn.SiLU, eps=1e-3)]
        inputs = _STEM
        for fused, expansion, stride, outputs, blocks in _STAGES:
            members = []
            for i in range(blocks):
                members.append(_Block(inputs, fused, expansion, stride if i == 0 else 1, outputs))
                inputs = outputs
            stages.append(nn.Sequential(*members))
        self.features = nn.ModuleList(stages)

    def forward(self, image: Tensor) -> dict[int, Tensor]:
        """Args: image: float (B, 3, H, W), ImageNet-normalised, sides multiples of 16."""
        x, maps = image, []
        for stage in self.features:
            x = stage(x)
            maps.append(x)
        return {stride: maps[i] for stride, i in _LAST.items()}
