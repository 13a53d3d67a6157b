"""EfficientNet-Lite0 up to stride 16, as a feature pyramid.

Tan and Le, "EfficientNet: rethinking model scaling for convolutional neural networks", ICML 2019; the Lite variant
leaves out squeeze-excitation and uses ReLU6. State-dict keys equal those of the published PyTorch weights
(`_conv_stem`, `_bn0`, `_blocks.I...`), so that they load with the deeper blocks and the classifier left out.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

# (expansion, kernel, stride, output channels) of blocks 0 to 10; the remaining five are at stride 32
_BLOCKS = (
    (1, 3, 1, 16),
    (6, 3, 2, 24),
    (6, 3, 1, 24),
    (6, 5, 2, 40),
    (6, 5, 1, 40),
    (6, 3, 2, 80),
    (6, 3, 1, 80),
    (6, 3, 1, 80),
    (6, 5, 1, 112),
    (6, 5, 1, 112),
    (6, 5, 1, 112),
)
_STEM_CHANNELS = 32
_BATCH_NORM_EPS = 1e-3
# the index of the last block at each stride
_LAST_BLOCK = {2: 0, 4: 2, 8: 4, 16: 10}
PYRAMID_CHANNELS = {2: 16, 4: 24, 8: 40, 16: 112}


class _SamePaddingConv(nn.Conv2d):
    """Convolution with TensorFlow's "same" padding for inputs whose sides the stride divides."""

    def prepare_for_inference(self) -> None:
        """Moves an uneven padding of the input into the kernel, for inference: the same result without a copy."""
        total = self.kernel_size[0] - self.stride[0]
        uneven = total - 2 * (total // 2)
        if uneven:
            self.weight = nn.Parameter(functional.pad(self.weight, (uneven, 0, uneven, 0)), requires_grad=False)
            self.kernel_size = (self.kernel_size[0] + uneven, self.kernel_size[1] + uneven)

    def forward(self, x: Tensor) -> Tensor:
        total = self.kernel_size[0] - self.stride[0]
        before, after = total // 2, total - total // 2
        if before == after:
            return functional.conv2d(x, self.weight, self.bias, self.stride, before, groups=self.groups)
        x = functional.pad(x, (before, after, before, after))
        return functional.conv2d(x, self.weight, self.bias, self.stride, 0, groups=self.groups)


class _InvertedBottleneck(nn.Module):
    def __init__(self, inputs: int, expansion: int, kernel: int, stride: int, outputs: int) -> None:
        super().__init__()
        hidden = inputs * expansion
        self.expands = expansion != 1
        if self.expands:
            self._expand_conv = nn.Conv2d(inputs, hidden, 1, bias=False)
            self._bn0 = nn.BatchNorm2d(hidden, eps=_BATCH_NORM_EPS)
        self._depthwise_conv = _SamePaddingConv(hidden, hidden, kernel, stride, groups=hidden, bias=False)
        self._bn1 = nn.BatchNorm2d(hidden, eps=_BATCH_NORM_EPS)
        self._project_conv = nn.Conv2d(hidden, outputs, 1, bias=False)
        self._bn2 = nn.BatchNorm2d(outputs, eps=_BATCH_NORM_EPS)
        self.residual = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        y = x
        if self.expands:
            y = functional.relu6(self._bn0(self._expand_conv(y)), inplace=True)
        y = functional.relu6(self._bn1(self._depthwise_conv(y)), inplace=True)
        y = self._bn2(self._project_conv(y))
        result: Tensor = x + y if self.residual else y
        return result


class EfficientNetLite0(nn.Module):
    """The pyramid of EfficientNet-Lite0: stride -> features, for strides 2, 4, 8 and 16 (`PYRAMID_CHANNELS`)."""

    def __init__(self) -> None:
        super().__init__()
        self._conv_stem = _SamePaddingConv(3, _STEM_CHANNELS, 3, 2, bias=False)
        self._bn0 = nn.BatchNorm2d(_STEM_CHANNELS, eps=_BATCH_NORM_EPS)
        blocks = []
        channels = _STEM_CHANNELS
        for expansion, kernel, stride, outputs in _BLOCKS:
            blocks.append(_InvertedBottleneck(channels, expansion, kernel, stride, outputs))
            channels = outputs
        self._blocks = nn.ModuleList(blocks)

    def forward(self, image: Tensor) -> dict[int, Tensor]:
        """Features of an image batch.

        Args:
            image: float (B, 3, H, W), zero mean; H and W multiples of 16.

        Returns:
            stride -> (B, C, H / stride, W / stride).
        """
        if image.shape[-1] % 16 or image.shape[-2] % 16:
            raise ValueError(f"height and width must be multiples of 16, got {tuple(image.shape[-2:])}: pad the image")
        x = functional.relu6(self._bn0(self._conv_stem(image)), inplace=True)
        pyramid: dict[int, Tensor] = {}
        stride_of_block = {block: stride for stride, block in _LAST_BLOCK.items()}
        for i, block in enumerate(self._blocks):
            x = block(x)
            if i in stride_of_block:
                pyramid[stride_of_block[i]] = x
        return pyramid


def load_imagenet(network: EfficientNetLite0, state: dict[str, Tensor]) -> None:
    """Loads published ImageNet weights; blocks beyond stride 16 and the classifier are left out.

    Raises:
        ValueError: a needed key is missing or has another shape; the message lists them.
    """
    own = network.state_dict()
    wrong = [k for k, v in own.items() if k not in state or state[k].shape != v.shape]
    if wrong:
        raise ValueError(f"not EfficientNet-Lite0 weights: missing or of another shape: {', '.join(wrong[:8])}")
    network.load_state_dict({k: state[k] for k in own}, strict=True)
