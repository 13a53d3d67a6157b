"""Sparse 4-D tensors and submanifold convolution on them, in plain PyTorch.

A sparse correlation holds a value for few of all pairs of cells. A submanifold convolution has its outputs exactly at
the places of its inputs; neighbours without an entry contribute nothing (Graham et al., CVPR 2018). Rocco et al.,
"Efficient neighbourhood consensus networks via submanifold sparse convolutions", ECCV 2020; thesis, chapter 6.

Places are (A row, A column, B row, B column) and sorted in this order.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import torch
from torch import Tensor, nn
from torch.nn import functional

Sides = tuple[int, int, int, int]
_OFFSETS = (-1, 0, 1)
_TAPS = 81


@dataclass(frozen=True)
class SparseCorrelation:
    """N entries of a correlation of one image pair.

    Attributes:
        keys: int64 (N,), ascending: the places in a grid with a rim of one cell on all sides.
        values: (N, C).
        sides: (hA, wA, hB, wB).
    """

    keys: Tensor
    values: Tensor
    sides: Sides

    def places(self) -> Tensor:
        """int64 (N, 4): A row, A column, B row, B column."""
        columns, rest = [], self.keys
        for stride in _strides(self.sides):
            columns.append(torch.div(rest, stride, rounding_mode="floor") - 1)
            rest = rest % stride
        return torch.stack(columns, 1)


def _strides(sides: Sides) -> Sides:
    _, w_a, h_b, w_b = (side + 2 for side in sides)
    return w_a * h_b * w_b, h_b * w_b, w_b, 1


def key_of(a: Tensor, b: Tensor, sides: Sides) -> Tensor:
    """Keys of places given by flat cells (row-major) of A and B, int64 of the common shape."""
    _, w_a, _, w_b = sides
    strides = _strides(sides)
    places = (torch.div(a, w_a, rounding_mode="floor"), a % w_a, torch.div(b, w_b, rounding_mode="floor"), b % w_b)
    return sum(((place + 1) * stride for place, stride in zip(places, strides, strict=True)), torch.zeros_like(a + b))


class Neighbourhoods:
    """Which entries are neighbours: for each of the 81 offsets the pairs (from, to) of entries.

    Shared by all layers and by both halves of the symmetric network. Only one of two opposite offsets is stored.
    """

    def __init__(self, keys: Tensor, sides: Sides) -> None:
        """
        Args:
            keys: int64 (N,), ascending, of a `SparseCorrelation`.
            sides: of the same.
        """
        self.count = len(keys)
        # index -> (to, from), int32: entry `from` lies at the place of entry `to` plus the offset
        self._pairs: dict[int, tuple[Tensor, Tensor]] = {}
        strides = _strides(sides)
        padded = torch.cat([keys, keys.new_full((3,), torch.iinfo(torch.int64).max)])
        own = torch.arange(len(keys), dtype=torch.int32, device=keys.device)
        for front in product(_OFFSETS, repeat=3):
            if front > (0, 0, 0):
                continue
            shift = sum(d * stride for d, stride in zip(front, strides[:3], strict=True))
            # entries that differ in the last axis alone follow one another: one search finds all three
            position = torch.searchsorted(keys, keys + (shift - 1))
            for last in _OFFSETS:
                found = padded[position] == keys + (shift + last)
                if (*front, last) < (0, 0, 0, 0):
                    source = position[found].to(torch.int32)
                    self._pairs[_index((*front, last))] = (own[found], source)
                position = position + found

    def pairs(self, offset: int) -> tuple[Tensor, Tensor] | None:
        """(to, from) of entries, int32 (M,) each, for offset index 0..80; None stands for every entry and itself."""
        if offset == _TAPS // 2:
            return None
        if offset in self._pairs:
            return self._pairs[offset]
        to, source = self._pairs[_TAPS - 1 - offset]
        return source, to


def _index(offset: tuple[int, ...]) -> int:
    """0..80 in the order of places: the last axis varies fastest."""
    number = 0
    for d in offset:
        number = 3 * number + d + 1
    return number


def sparse_conv4d(values: Tensor, kernel: Tensor, bias: Tensor, neighbourhoods: Neighbourhoods) -> Tensor:
    """Submanifold cross-correlation with a filter of 3 x 3 x 3 x 3.

    Args:
        values: (N, in).
        kernel: (81, in, out), in the order of places: the last axis varies fastest.
        bias: (1, out) or (out,).
        neighbourhoods: of the entries.

    Returns:
        (N, out).
    """
    inputs, outputs = kernel.shape[1:]
    out = values @ kernel[_TAPS // 2] + bias
    for offset in range(_TAPS):
        pairs = neighbourhoods.pairs(offset)
        if pairs is None or len(pairs[0]) == 0:
            continue
        to, source = pairs
        # the cheaper order: gather the narrower of the two sides
        if outputs < inputs:
            part = (values @ kernel[offset]).index_select(0, source)
        else:
            part = values.index_select(0, source) @ kernel[offset]
        out = out.index_add(0, to, part) if out.requires_grad else out.index_add_(0, to, part)
    return out


class SparseConv4d(nn.Module):
    """`sparse_conv4d` with its parameters in the published layout: (81, in, out), the FIRST axis varies fastest."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        fan_in = _TAPS * inputs
        bound = 1.0 / math.sqrt(fan_in)
        self.kernel = nn.Parameter(torch.empty(_TAPS, inputs, outputs))
        self.bias = nn.Parameter(torch.zeros(1, outputs))
        nn.init.uniform_(self.kernel, -bound + 1.0 / fan_in, bound + 1.0 / fan_in)

    def forward(self, values: Tensor, neighbourhoods: Neighbourhoods, *, swapped: bool = False) -> Tensor:
        """(N, out) from (N, in); `swapped` exchanges the filter's axes of A with those of B."""
        inputs, outputs = self.kernel.shape[1:]
        # stored: (B column, B row, A column, A row, in, out)
        kernel = self.kernel.view(3, 3, 3, 3, inputs, outputs)
        order = (1, 0, 3, 2, 4, 5) if swapped else (3, 2, 1, 0, 4, 5)
        return sparse_conv4d(values, kernel.permute(order).reshape(_TAPS, inputs, outputs), self.bias, neighbourhoods)


class SparseNeighConsensus(nn.Module):
    """ReLU, then sparse convolutions each followed by ReLU, applied symmetrically. Keys: `conv.1`, `conv.3`, ..."""

    def __init__(self, channels: Sequence[int] = (16, 1)) -> None:
        """`channels`: outputs of each layer; the last is 1.

        Raises:
            ValueError: the last layer has more than one channel.
        """
        super().__init__()
        if not channels or channels[-1] != 1:
            raise ValueError(f"the last layer must have 1 channel, got {list(channels)}")
        layers: list[nn.Module] = [nn.ReLU()]
        inputs = 1
        for outputs in channels:
            layers += [SparseConv4d(inputs, outputs), nn.ReLU()]
            inputs = outputs
        self.conv = nn.ModuleList(layers)

    def forward(self, correlation: SparseCorrelation) -> SparseCorrelation:
        """N(c) + swap(N(swap(c))) on the places of c.

        Swapping the tensor and swapping the filters is the same, so that one neighbour search serves all.
        """
        neighbourhoods = Neighbourhoods(correlation.keys, correlation.sides)
        total = self._one_way(correlation.values, neighbourhoods, swapped=False)
        total = total + self._one_way(correlation.values, neighbourhoods, swapped=True)
        return SparseCorrelation(correlation.keys, total, correlation.sides)

    def _one_way(self, values: Tensor, neighbourhoods: Neighbourhoods, *, swapped: bool) -> Tensor:
        for layer in self.conv:
            if isinstance(layer, SparseConv4d):
                values = layer(values, neighbourhoods, swapped=swapped)
            else:
                values = functional.relu(values)
        return values
