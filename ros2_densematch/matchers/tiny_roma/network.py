"""Tiny RoMa's network: XFeat backbone, one coarse match over all cells, one fine refinement.

State-dict keys equal those of the released checkpoint.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ros2_densematch.nn.grid import cell_centres, resize, sample_features
from ros2_densematch.nn.xfeat import COARSE_CHANNELS, FINE_CHANNELS, ConvLayer, XFeatBackbone

POSITION_RULES = ("released", "intended", "exact")

# every such row and column of the support takes part in the approximate softmax
_SUBSAMPLING = 4
# elements of the correlation volume that exist at a time
_VOLUME_ELEMENTS = 1 << 23


@dataclass(frozen=True)
class TinyFeatures:
    """What the network keeps of an image batch.

    Attributes:
        fine: (B, 24, H / 4, W / 4).
        coarse: (B, 64, H / 8, W / 8).
        size: (H, W) of the network's input.
    """

    fine: Tensor
    coarse: Tensor
    size: tuple[int, int]


@dataclass(frozen=True)
class TinyOutput:
    """The prediction of one scale.

    Attributes:
        flow: float32 (B, 2, h, w), normalised (x, y) in the support image, not clamped.
        certainty: logits, float32 (B, 1, h, w).
        delta: float32 (B, 3, h, w), output of the matcher network.
        flow_before: flow that the matcher network was given.
    """

    flow: Tensor
    certainty: Tensor
    delta: Tensor
    flow_before: Tensor


class TinyRomaNetwork(nn.Module):
    """Released Tiny RoMa v1."""

    def __init__(self, *, position_rule: str = "released") -> None:
        """
        Args:
            position_rule: "released" (the extra logit of the approximate softmax is the index of the best cell, as
                the released code computes it), "intended" (its correlation), or "exact" (softmax over all cells;
                training always does this).

        Raises:
            ValueError: another rule.
        """
        super().__init__()
        if position_rule not in POSITION_RULES:
            raise ValueError(f"unknown position_rule {position_rule!r}: choose one of {', '.join(POSITION_RULES)}")
        self._position_rule = position_rule
        self.xfeat = nn.Sequential(XFeatBackbone())
        self.coarse_matcher = _matcher(2 * COARSE_CHANNELS + 2, 256)
        self.fine_matcher = _matcher(2 * FINE_CHANNELS + 2, 64)

    def features(self, image: Tensor) -> TinyFeatures:
        """Features of an image batch (B, 3, H, W) in [0, 1]; H and W multiples of 32."""
        fine, coarse = self.xfeat(image)
        return TinyFeatures(fine, coarse, (image.shape[-2], image.shape[-1]))

    def match(self, query: TinyFeatures, support: TinyFeatures) -> dict[int, TinyOutput]:
        """Predictions of scales 8 and 4 for query cells in the support image; the images may differ in size."""
        height, width = support.size
        cell = torch.tensor([2 / width, 2 / height, 1.0], device=query.coarse.device).reshape(1, 3, 1, 1)
        rule = "exact" if self.training else self._position_rule
        position = coarse_position(query.coarse, support.coarse, rule)
        start = torch.cat([position, torch.zeros_like(position[:, :1])], 1)
        outputs: dict[int, TinyOutput] = {}
        for scale, matcher, a, b in (
            (8, self.coarse_matcher, query.coarse, support.coarse),
            (4, self.fine_matcher, query.fine, support.fine),
        ):
            start = resize(start, (a.shape[-2], a.shape[-1]))
            if self.training and scale == 4:
                start = start.detach()
            flow = start[:, :2]
            delta = matcher(torch.cat([a, sample_features(b, flow), flow.to(a.dtype)], 1)).float()
            after = start + delta * cell
            outputs[scale] = TinyOutput(after[:, :2], after[:, 2:], delta, flow)
            start = after
        return outputs

    def forward(self, query: Tensor, support: Tensor) -> dict[int, TinyOutput]:
        """Both scales on two image batches in [0, 1], for training; sides multiples of 32."""
        return self.match(self.features(query), self.features(support))


def correlate(query: Tensor, support: Tensor) -> Tensor:
    """Dot products over sqrt(C): (N, C) and (M, C) to float32 (N, M)."""
    volume: Tensor = (query.float() @ support.float().T) * query.shape[1] ** -0.5
    return volume


def coarse_position(query: Tensor, support: Tensor, rule: str) -> Tensor:
    """Where each query cell lies, from the correlation with all support cells; query cells are taken in tiles.

    Args:
        query: (B, C, h, w); support: (B, C, H, W).
        rule: one of `POSITION_RULES`.

    Returns:
        normalised (x, y), float32 (B, 2, h, w).
    """
    rows, columns = support.shape[-2:]
    centres = cell_centres(rows, columns, device=query.device).flatten(1).T
    step = _SUBSAMPLING
    blocks = cell_centres(rows // step, columns // step, device=query.device).flatten(1).T
    corner = torch.arange(rows * columns, device=query.device).reshape(rows, columns)
    # top-left cells of the blocks
    corner = corner[: rows // step * step : step, : columns // step * step : step].flatten()
    tile = max(1, _VOLUME_ELEMENTS // (rows * columns))
    positions = []
    for b in range(len(query)):
        a, s = query[b].flatten(1).T, support[b].flatten(1).T
        parts = []
        for start in range(0, len(a), tile):
            volume = correlate(a[start : start + tile], s)
            if rule == "exact":
                parts.append(volume.softmax(1) @ centres)
                continue
            value, best = volume.max(1)
            extra = best.float() if rule == "released" else value
            chance = torch.cat([volume[:, corner], extra[:, None]], 1).softmax(1)
            parts.append(chance[:, :-1] @ blocks + chance[:, -1:] * centres[best])
        positions.append(torch.cat(parts).T.reshape(2, *query.shape[-2:]))
    return torch.stack(positions)


def _matcher(inputs: int, width: int) -> nn.Sequential:
    layers = [ConvLayer(inputs, width), *(ConvLayer(width, width) for _ in range(3))]
    return nn.Sequential(*layers, nn.Conv2d(width, 3, 1))
