"""DINOv2 vision transformer (ViT-L/14, no register tokens) as a dense encoder.

Oquab et al., "DINOv2: learning robust visual features without supervision", 2023. State-dict keys equal those of the
published checkpoint (`cls_token`, `pos_embed`, `patch_embed.proj`, `blocks.I`, `norm`, and the unused `mask_token`).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from ros2_densematch.nn.transformer import TransformerBlock

PATCH = 14


class _PatchEmbedding(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, width, PATCH, PATCH)

    def forward(self, image: Tensor) -> Tensor:
        result: Tensor = self.proj(image)
        return result


class Dinov2(nn.Module):
    """Patch tokens after the last layer norm, as a feature map of stride 14."""

    def __init__(self, *, width: int = 1024, depth: int = 24, heads: int = 16, trained_grid: int = 37) -> None:
        """
        Args:
            width: channels of a token; depth: transformer blocks; heads: attention heads.
            trained_grid: patches along a side of the training images.
        """
        super().__init__()
        self._trained_grid = trained_grid
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + trained_grid**2, width))
        self.mask_token = nn.Parameter(torch.zeros(1, width))
        self.patch_embed = _PatchEmbedding(width)
        self.blocks = nn.ModuleList(
            TransformerBlock(width, heads, qkv_bias=True, layer_scale=True, eps=1e-6) for _ in range(depth)
        )
        self.norm = nn.LayerNorm(width, eps=1e-6)

    def _position(self, rows: int, columns: int) -> Tensor:
        """Positional embedding (1, rows * columns, width) of the patches."""
        patches = self.pos_embed[:, 1:]
        grid = self._trained_grid
        if rows == grid and columns == grid:
            return patches
        square = patches.reshape(1, grid, grid, -1).permute(0, 3, 1, 2).float()
        # the published code interpolates with these factors, not with the ratio of the sizes
        factor = ((rows + 0.1) / grid, (columns + 0.1) / grid)
        resized = functional.interpolate(square, scale_factor=factor, mode="bicubic", align_corners=False)
        if resized.shape[-2:] != (rows, columns):
            raise ValueError(f"no positional embedding for {rows} x {columns} patches: use another image size")
        return resized.flatten(2).transpose(1, 2).to(patches.dtype)

    def forward(self, image: Tensor) -> Tensor:
        """Features of an image batch.

        Args:
            image: (B, 3, H, W), ImageNet-normalised; H and W multiples of 14.

        Returns:
            (B, width, H / 14, W / 14).

        Raises:
            ValueError: the sides are not multiples of 14.
        """
        if image.shape[-2] % PATCH or image.shape[-1] % PATCH:
            raise ValueError(f"height and width must be multiples of 14, got {tuple(image.shape[-2:])}: resize it")
        patches = self.patch_embed(image)
        batch, width, rows, columns = patches.shape
        x = patches.flatten(2).transpose(1, 2) + self._position(rows, columns)
        x = torch.cat([(self.cls_token + self.pos_embed[:, :1]).expand(batch, -1, -1), x], 1)
        for block in self.blocks:
            x = block(x)
        tokens: Tensor = self.norm(x)[:, 1:]
        return tokens.transpose(1, 2).reshape(batch, width, rows, columns)
