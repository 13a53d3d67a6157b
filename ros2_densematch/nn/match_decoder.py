"""RoMa's match decoder: a transformer that classifies, for every query cell, where it lies in the support image.

Edstedt et al., "RoMa: robust dense feature matching", CVPR 2024, sections 3.3 and 3.4 (regression by classification).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ros2_densematch.nn.grid import cell_centres
from ros2_densematch.nn.transformer import TransformerBlock

# anchors along each side of the support image
ANCHORS = 64


class TransformerMatchDecoder(nn.Module):
    """Anchor logits and a certainty logit from the Gaussian process posterior and the query features."""

    def __init__(self, width: int = 1024, *, depth: int = 5, heads: int = 8) -> None:
        """
        Args:
            width: channels of posterior and query features together.
            depth: transformer blocks; heads: attention heads.
        """
        super().__init__()
        self.blocks = nn.ModuleList(
            TransformerBlock(width, heads, qkv_bias=False, layer_scale=False, eps=1e-5) for _ in range(depth)
        )
        self.to_out = nn.Linear(width, ANCHORS**2 + 1)

    def forward(self, posterior: Tensor, query: Tensor) -> tuple[Tensor, Tensor]:
        """
        Args:
            posterior: (B, D, h, w); query: (B, C, h, w), D + C = width.

        Returns:
            anchor logits float32 (B, 4096, h, w), index 64 * row + column, and certainty logits float32 (B, 1, h, w).
        """
        batch, _, height, width = query.shape
        x = torch.cat([posterior.to(query.dtype), query], 1).flatten(2).transpose(1, 2)
        for block in self.blocks:
            x = block(x)
        out = self.to_out(x).float().transpose(1, 2).reshape(batch, -1, height, width)
        return out[:, :-1], out[:, -1:]


@torch.no_grad()
def anchors_to_coordinates(logits: Tensor) -> Tensor:
    """The mode of the anchor distribution, refined over the arg-max and its four neighbours.

    As in the released code a neighbour index is clamped to the list of anchors but not to the row.

    Args:
        logits: (B, 4096, h, w).

    Returns:
        normalised (x, y), float32 (B, 2, h, w).
    """
    probability = logits.softmax(1)
    best = probability.argmax(1)
    offsets = torch.tensor([-1, 0, 1, -ANCHORS, ANCHORS], device=logits.device)
    index = (best[:, None] + offsets[:, None, None]).clamp(0, ANCHORS**2 - 1)
    weight = probability.gather(1, index)
    anchors = cell_centres(ANCHORS, ANCHORS, device=logits.device).flatten(1)
    # (2, B, 5, h, w)
    position = anchors[:, index.flatten()].reshape(2, *index.shape)
    return ((position * weight).sum(2) / weight.sum(1)).transpose(0, 1)
