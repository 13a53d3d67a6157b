"""RoMa v2's transformer over the tokens of both images.

Edstedt et al., "RoMa v2", arXiv 2511.15706, section 3 (coarse matching). Blocks with an even index attend over both
images together, without positions; those with an odd index inside each image, with a rotary embedding.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ros2_densematch.nn.dinov3 import RotaryPeriods
from ros2_densematch.nn.rotary import Rotation, rotation_of
from ros2_densematch.nn.transformer import TransformerBlock


class JointTransformer(nn.Module):
    """Tokens of two images to tokens that know of each other."""

    def __init__(self, inputs: int, width: int, outputs: int, *, depth: int, heads: int) -> None:
        """
        Args:
            inputs: channels of a token as the backbone gives it (its layers side by side).
            width: channels inside; outputs: channels of a result.
            depth: blocks; heads: attention heads.
        """
        super().__init__()
        self.projector = nn.Linear(inputs, width)
        self.rope_embed = RotaryPeriods(width // heads)
        self.blocks = nn.ModuleList(
            TransformerBlock(width, heads, qkv_bias=True, layer_scale=False, eps=1e-6) for _ in range(depth)
        )
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.output_projector = nn.Linear(width, outputs)

    def project(self, layers: list[Tensor]) -> Tensor:
        """The backbone's layers of one image, (B, N, C) each, to its input tokens (B, N, width)."""
        tokens: Tensor = self.projector(torch.cat(layers, -1))
        return tokens

    def rotation(self, rows: int, columns: int) -> Rotation:
        """The rotary table, rounded to bfloat16 after every operation as in the released model, in any precision."""
        return rotation_of(rows, columns, self.rope_embed.periods.to(torch.bfloat16))

    def forward(self, a: Tensor, b: Tensor, grid: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """
        Args:
            a, b: tokens of both images, of `project`; (B, N, width).
            grid: rows and columns of the patches, N together.

        Returns:
            (B, N, outputs) of either image; exchanging the images exchanges the results.
        """
        batch, count, width = a.shape
        rotation = self.rotation(*grid).to(a)
        x = torch.cat([a, b], 1)
        for i, block in enumerate(self.blocks):
            if i % 2 == 0:
                x = block(x.reshape(batch, 2 * count, width))
            else:
                x = block(x.reshape(2 * batch, count, width), rotation)
        x = self.output_projector(self.norm(x)).reshape(batch, 2, count, -1)
        return x[:, 0], x[:, 1]
