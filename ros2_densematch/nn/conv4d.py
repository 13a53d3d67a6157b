"""Convolution in four dimensions, and the neighbourhood-consensus network made of it.

Rocco, "Neighbourhood consensus networks for visual correspondence" (thesis), section 5.3.2.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

# of the widest layer's values that exist at one time where no gradient is wanted
_SLAB_BYTES = 512 << 20
# a slab has so many times the rows of the halo on either side at least: less would be recomputing mostly
_LEAST_HALOS = 4


def conv4d(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Cross-correlation with a 4-D filter, stride 1, zeros outside.

    No loop runs over a spatial axis. The taps of the first axis become channels of one batched 3-D convolution, on
    whichever side has fewer channels; with equal numbers one batched 3-D convolution runs per tap.

    Args:
        x: (B, in, D1, D2, D3, D4).
        weight: (k1, out, in, k2, k3, k4), odd sizes: the published layout, the first axis in front.
        bias: (out,) or None.

    Returns:
        (B, out, D1, D2, D3, D4).

    Raises:
        ValueError: an even filter size, or a number of channels that does not fit.
    """
    k, outputs, inputs, *spatial = weight.shape
    if any(size % 2 == 0 for size in (k, *spatial)):
        raise ValueError(f"the filter's sizes must be odd, got {(k, *spatial)}")
    if x.shape[1] != inputs:
        raise ValueError(f"the filter takes {inputs} channels, the tensor has {x.shape[1]}")
    batch, rows, volume = len(x), x.shape[2], x.shape[3:]
    padding = [size // 2 for size in spatial]
    by_row = x.transpose(1, 2)
    if inputs < outputs:
        half = k // 2
        padded = functional.pad(by_row, (0, 0, 0, 0, 0, 0, 0, 0, half, half))
        stacked = torch.cat([padded[:, tap : tap + rows] for tap in range(k)], 2).flatten(0, 1)
        filters = weight.permute(1, 0, 2, 3, 4, 5).flatten(1, 2)
        out = functional.conv3d(stacked, filters, bias, padding=padding).view(batch, rows, outputs, *volume)
    elif inputs > outputs:
        filters = weight.flatten(0, 1)
        flat = functional.conv3d(by_row.flatten(0, 1), filters, None, padding=padding)
        taps = flat.view(batch, rows, k, outputs, *volume)
        out = _gather_taps([taps[:, :, tap] for tap in range(k)])
        out = out if bias is None else out + bias.view(-1, 1, 1, 1)
    else:
        flat_rows = by_row.flatten(0, 1)
        out = functional.conv3d(flat_rows, weight[k // 2], bias, padding=padding).view(batch, rows, outputs, *volume)
        for tap in range(k):
            shift = tap - k // 2
            if shift == 0 or abs(shift) >= rows:
                continue
            source = by_row[:, max(0, shift) : rows + min(0, shift)].flatten(0, 1)
            part = functional.conv3d(source, weight[tap], None, padding=padding)
            _target(out, shift).add_(part.view(batch, -1, outputs, *volume))
    return out.transpose(1, 2)


def _gather_taps(taps: list[Tensor]) -> Tensor:
    """Sum of the taps (B, D1, ...), each moved along the first spatial axis by its offset from the centre."""
    centre = len(taps) // 2
    out = taps[centre].clone()
    rows = out.shape[1]
    for tap, part in enumerate(taps):
        shift = tap - centre
        if shift != 0 and abs(shift) < rows:
            _target(out, shift).add_(part[:, max(0, shift) : rows + min(0, shift)])
    return out


def _target(out: Tensor, shift: int) -> Tensor:
    """The rows of `out` (B, D1, ...) that take their input `shift` rows further on."""
    rows = out.shape[1]
    return out[:, max(0, -shift) : rows + min(0, -shift)]


class Conv4d(nn.Module):
    """`conv4d` with its parameters, in the published layout (k1, out, in, k2, k3, k4)."""

    def __init__(self, inputs: int, outputs: int, kernel: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(kernel, outputs, inputs, kernel, kernel, kernel))
        self.bias = nn.Parameter(torch.zeros(outputs))
        fan_in = inputs * kernel**4
        # a small mean keeps the ReLU behind the last layer, with its single channel, from starting dead
        bound = 1.0 / math.sqrt(fan_in)
        nn.init.uniform_(self.weight, -bound + 1.0 / fan_in, bound + 1.0 / fan_in)

    def forward(self, x: Tensor) -> Tensor:
        return conv4d(x, self.weight, self.bias)


class NeighConsensus(nn.Module):
    """4-D convolutions, each followed by ReLU, applied to a correlation and, symmetrically, to its swapped self.

    Keys: `conv.0`, `conv.2`, ... as published.
    """

    def __init__(self, kernels: Sequence[int] = (3, 3), channels: Sequence[int] = (16, 1)) -> None:
        """
        Args:
            kernels: odd filter sizes, one per layer.
            channels: outputs of each layer; the last is 1.

        Raises:
            ValueError: lists of different length, or a last layer with more than one channel.
        """
        super().__init__()
        if len(kernels) != len(channels) or not kernels:
            raise ValueError(f"one filter size per layer is needed, got {list(kernels)} and {list(channels)}")
        if channels[-1] != 1:
            raise ValueError(f"the last layer must have 1 channel, got {channels[-1]}")
        layers: list[nn.Module] = []
        inputs = 1
        for kernel, outputs in zip(kernels, channels, strict=True):
            layers += [Conv4d(inputs, outputs, kernel), nn.ReLU()]
            inputs = outputs
        self.conv = nn.Sequential(*layers)
        self._halo = sum(kernel // 2 for kernel in kernels)
        # values per cell that exist at one time, in the widest layer
        self._width = max(k * min(i, o) + i + o for i, o, k in zip((1, *channels[:-1]), channels, kernels, strict=True))

    def forward(self, correlation: Tensor) -> Tensor:
        """N(c) + swap(N(swap(c))), where swap exchanges the axes of A with those of B (thesis, eq. 5.3).

        Where no gradient is wanted, rows are processed in slabs with the halo that makes the result exact, so that the
        hidden layers stay within half a gigabyte, or within what a slab of six halos needs.

        Args:
            correlation: (N, 1, hA, wA, hB, wB).

        Returns:
            The same shape, not negative.
        """
        swapped = correlation.permute(0, 1, 4, 5, 2, 3)
        direct = self.one_way(correlation)
        return direct + self.one_way(swapped).permute(0, 1, 4, 5, 2, 3)

    def one_way(self, correlation: Tensor) -> Tensor:
        """N(c), not symmetric."""
        if torch.is_grad_enabled():
            result: Tensor = self.conv(correlation)
            return result
        rows = correlation.shape[2]
        row_bytes = correlation[:, :, 0].numel() * correlation.element_size() * self._width
        slab = max(1, _LEAST_HALOS * self._halo, _SLAB_BYTES // row_bytes - 2 * self._halo)
        if slab >= rows:
            return self._without_gradient(correlation)
        out = torch.empty(correlation.shape, dtype=correlation.dtype, device=correlation.device)
        for start in range(0, rows, slab):
            stop = min(rows, start + slab)
            first, last = max(0, start - self._halo), min(rows, stop + self._halo)
            part = self._without_gradient(correlation[:, :, first:last])
            out[:, :, start:stop] = part[:, :, start - first : stop - first]
        return out

    def _without_gradient(self, x: Tensor) -> Tensor:
        for layer in self.conv:
            x = x.relu_() if isinstance(layer, nn.ReLU) else layer(x)
        return x
