"""The refiner of DKM, RoMa and RoMa v2 for inference: the same function with less work, one image's share apart.

Three things that change the outputs by rounding only:

- The first block's depthwise convolution acts on every channel alone and the convolution after it is linear, so what
  the query image's features contribute does not depend on the other image: `share` computes it, once for a keyframe.
- Between the last hidden block and the output lies no non-linearity: its convolution and the last one are one with few
  outputs.
- On a CPU a block is computed in strips of rows, so that what lies between its two convolutions stays in the cache.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from ros2_densematch.nn.refiner import RefinerInterface

# of the depthwise convolutions
_REACH = 2
# a strip has at least this many elements and cells: less, and the product waits for its weights
_STRIP_ELEMENTS, _STRIP_CELLS = 1 << 20, 4096
# elsewhere whole maps: a GPU has nothing to gain from strips, and `torch.compile` takes whole modules
_strip_devices: tuple[str, ...] = ("cpu",)


class _Block(nn.Module):
    def __init__(self, depthwise: nn.Conv2d, pointwise: nn.Conv2d) -> None:
        super().__init__()
        self.depthwise, self.pointwise = depthwise, pointwise

    def forward(self, x: Tensor) -> Tensor:
        return torch.as_tensor(self.pointwise(functional.relu(self.depthwise(x), inplace=True)))


class PreparedRefiner(RefinerInterface):
    """A refiner without batch norms, prepared for inference.

    The features may have another type than the blocks' weights: they are converted before the blocks.
    """

    def __init__(self, refiner: RefinerInterface) -> None:
        """
        Args:
            refiner: with `block1` and `hidden_blocks`, batch norms folded; it keeps its own weights.

        Raises:
            ValueError: the batch norms are not folded.
        """
        super().__init__()
        if any(isinstance(module, nn.BatchNorm2d) for module in refiner.modules()):
            raise ValueError("a refiner is prepared after its batch norms were folded: call fold_batch_norms first")
        self.spec = refiner.spec
        self.disp_emb = refiner.disp_emb
        self._certainty_first = refiner._certainty_first
        self._displacement_gain = refiner._displacement_gain
        self._detach_sampled = refiner._detach_sampled
        depthwise, pointwise = _convolutions(refiner.get_submodule("block1"))
        channels = self.spec.channels
        own = channels * depthwise.out_channels // depthwise.in_channels
        inputs, middle = depthwise.in_channels, depthwise.out_channels
        self.own = _Block(_slice(depthwise, channels, 0, own), _columns(pointwise, 0, own, bias=True))
        self.pair = _Block(
            _slice(depthwise, inputs - channels, own, middle), _columns(pointwise, own, middle, bias=False)
        )
        hidden = list(refiner.get_submodule("hidden_blocks").children())
        self.blocks = nn.ModuleList([_Block(*_convolutions(block)) for block in hidden[:-1]])
        self.last, pointwise = _convolutions(hidden[-1])
        self.out_conv = _composed(pointwise, refiner.output_layer())

    def compilable(self) -> list[nn.Module]:
        return [self.own, self.pair, *self.blocks, self.last]

    def share(self, query: Tensor) -> Tensor:
        """What the query features contribute to the first block's result.

        Args:
            query: (B, C, H, W) features.

        Returns:
            (B, hidden, H, W), for `forward` with any support and flow.
        """
        if query.device.type not in _strip_devices:
            return torch.as_tensor(self.own(query.to(self.own.depthwise.weight.dtype)))
        return torch.stack([self._share_in_strips(features) for features in query]).permute(0, 3, 1, 2)

    def forward(
        self, query: Tensor, support: Tensor, flow: Tensor, gain: float | Tensor = 1.0, share: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """As of `Refiner.forward`; `share` is that of `query`, computed here where it is not given."""
        parts = self.pair_inputs(query, support, flow, gain)
        if query.device.type in _strip_devices:
            if share is None:
                share = self.share(query)
            items = [self._in_strips([part[b] for part in parts], share[b]) for b in range(len(query))]
            return self.displacement_and_certainty(torch.cat(items))
        hidden = self.pair(torch.cat(parts, 1).to(self.pair.depthwise.weight.dtype))
        hidden = hidden + (self.share(query) if share is None else share)
        for block in self.blocks:
            hidden = block(hidden)
        hidden = functional.relu(self.last(hidden)).float()
        # as released: in float32 under mixed precision too
        with torch.autocast(hidden.device.type, enabled=False):
            return self.displacement_and_certainty(self.out_conv(hidden))

    def _share_in_strips(self, query: Tensor) -> Tensor:
        """(C, H, W) -> (H, W, hidden)."""
        pointwise = self.own.pointwise
        kind = pointwise.weight.dtype
        target = query.new_empty((query.shape[1], query.shape[2], pointwise.out_channels), dtype=kind)
        _run(self.own.depthwise, pointwise, _padded([query], kind), target, _bias(pointwise))
        return target

    def _in_strips(self, parts: list[Tensor], share: Tensor) -> Tensor:
        """Other inputs and share (hidden, H, W) of one image -> (1, outputs, H, W)."""
        hidden, height, width = share.shape
        # rows of zeros above and below, which the blocks leave alone
        here, there = (share.new_zeros((height + 2 * _REACH, width, hidden)) for _ in range(2))
        _run(
            self.pair.depthwise, self.pair.pointwise, _padded(parts, share.dtype), _inside(here), share.permute(1, 2, 0)
        )
        for module in self.blocks:
            block = cast(_Block, module)
            _run(block.depthwise, block.pointwise, here, _inside(there), _bias(block.pointwise))
            here, there = there, here
        out = torch.empty((height, width, self.out_conv.out_channels))
        _run(self.last, self.out_conv, here, out, _bias(self.out_conv))
        return out.permute(2, 0, 1)[None]


def _run(depthwise: nn.Conv2d, pointwise: nn.Conv2d, source: Tensor, target: Tensor, base: Tensor) -> None:
    """Depthwise convolution, ReLU and pointwise convolution of one image, in strips of rows.

    Args:
        depthwise: the first convolution.
        pointwise: the second; its bias is not used.
        source: (H + 4, W, C), with two rows of zeros above and below.
        target: (H, W, N), written.
        base: what the products are added to: a bias (N,), or (H, W, N).
    """
    weight = pointwise.weight.flatten(1).T
    height, width, outputs = target.shape
    rows = max(1, -(-max(_STRIP_ELEMENTS // source.shape[2], _STRIP_CELLS) // width))
    for start in range(0, height, rows):
        end = min(start + rows, height)
        # a leading axis added after the permutation would hide the layout from the convolution
        strip = source[None, start : end + 2 * _REACH].permute(0, 3, 1, 2)
        between = functional.conv2d(
            strip, depthwise.weight, depthwise.bias, padding=(0, _REACH), groups=depthwise.groups
        )
        between = between.relu_()[0].permute(1, 2, 0).reshape(-1, pointwise.in_channels).to(weight.dtype)
        added = base if base.ndim == 1 else base[start:end].reshape(-1, outputs)
        torch.addmm(added, between, weight, out=target[start:end].view(-1, outputs))


def _inside(padded: Tensor) -> Tensor:
    return padded[_REACH:-_REACH]


def _padded(parts: list[Tensor], kind: torch.dtype) -> Tensor:
    """(C, H, W) each -> (H + 4, W, sum of C), channels last, with two rows of zeros above and below."""
    _, height, width = parts[0].shape
    padded = parts[0].new_empty((height + 2 * _REACH, width, sum(len(part) for part in parts)), dtype=kind)
    padded[:_REACH] = 0
    padded[-_REACH:] = 0
    start = 0
    for part in parts:
        _inside(padded)[:, :, start : start + len(part)] = part.permute(1, 2, 0)
        start += len(part)
    return padded


def _convolutions(block: nn.Module) -> tuple[nn.Conv2d, nn.Conv2d]:
    depthwise, pointwise = (module for module in block.children() if isinstance(module, nn.Conv2d))
    return depthwise, pointwise


def _slice(depthwise: nn.Conv2d, inputs: int, start: int, end: int) -> nn.Conv2d:
    """The depthwise convolution that makes the outputs from start to end, of so many inputs."""
    part = nn.Conv2d(inputs, end - start, 2 * _REACH + 1, padding=_REACH, groups=inputs)
    return _with(part, depthwise.weight[start:end], _bias(depthwise)[start:end])


def _columns(pointwise: nn.Conv2d, start: int, end: int, *, bias: bool) -> nn.Conv2d:
    """The pointwise convolution of the inputs from start to end."""
    part = nn.Conv2d(end - start, pointwise.out_channels, 1, bias=bias)
    return _with(part, pointwise.weight[:, start:end], _bias(pointwise) if bias else None)


def _composed(first: nn.Conv2d, second: nn.Conv2d) -> nn.Conv2d:
    """One pointwise convolution in place of two."""
    weight, outer = first.weight.double().flatten(1), second.weight.double().flatten(1)
    bias = outer @ _bias(first).double() + _bias(second).double()
    part = nn.Conv2d(first.in_channels, second.out_channels, 1)
    return _with(part, (outer @ weight)[:, :, None, None], bias)


def _with(convolution: nn.Conv2d, weight: Tensor, bias: Tensor | None) -> nn.Conv2d:
    convolution.weight = nn.Parameter(weight.detach().float().contiguous(), requires_grad=False)
    if bias is not None:
        convolution.bias = nn.Parameter(bias.detach().float().contiguous(), requires_grad=False)
    return convolution


def _bias(convolution: nn.Conv2d) -> Tensor:
    if convolution.bias is None:
        raise ValueError("the refiners' convolutions have a bias")
    return convolution.bias
