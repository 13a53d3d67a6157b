"""DINOv3 vision transformer (ViT-L/16, four storage tokens) as a dense encoder of two intermediate layers.

Siméoni et al., "DINOv3", 2025. State-dict keys equal those of the published checkpoint (`cls_token`, `storage_tokens`,
`patch_embed.proj`, `rope_embed.periods`, `blocks.I`, `norm`, and the unused `mask_token`).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ros2_densematch.nn.rotary import Rotation, rotary_periods, rotation_of
from ros2_densematch.nn.transformer import TransformerBlock

PATCH = 16
STORAGE_TOKENS = 4


class _PatchEmbedding(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, width, PATCH, PATCH)

    def forward(self, image: Tensor) -> Tensor:
        result: Tensor = self.proj(image)
        return result


class RotaryPeriods(nn.Module):
    """Holds the stored periods of a rotary embedding."""

    periods: Tensor

    def __init__(self, head_width: int) -> None:
        super().__init__()
        self.register_buffer("periods", rotary_periods(head_width))


class Dinov3(nn.Module):
    """Patch tokens after chosen blocks, each through the last layer norm."""

    # blocks of the published model that the default taps need
    USED = 18

    def __init__(
        self, *, width: int = 1024, depth: int = 24, heads: int = 16, taps: tuple[int, ...] = (11, USED - 1)
    ) -> None:
        """
        Args:
            width: channels of a token; depth: transformer blocks; heads: attention heads.
            taps: indices of the blocks whose tokens are wanted, ascending; blocks after the last one are never run.
        """
        super().__init__()
        self._taps = taps
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.storage_tokens = nn.Parameter(torch.zeros(1, STORAGE_TOKENS, width))
        self.mask_token = nn.Parameter(torch.zeros(1, width))
        self.patch_embed = _PatchEmbedding(width)
        self.rope_embed = RotaryPeriods(width // heads)
        self.blocks = nn.ModuleList(
            TransformerBlock(width, heads, qkv_bias=True, layer_scale=True, eps=1e-5, masked_key_bias=True)
            for _ in range(depth)
        )
        self.norm = nn.LayerNorm(width, eps=1e-5)

    def drop_unused(self) -> None:
        """Takes the blocks after the last tap out, in place."""
        self.blocks = self.blocks[: self._taps[-1] + 1]

    def rotation(self, rows: int, columns: int) -> Rotation:
        """The rotary table of a grid of patches, computed in float32."""
        return rotation_of(rows, columns, self.rope_embed.periods.float())

    def tokens(self, image: Tensor) -> Tensor:
        """What enters the first block: class token, storage tokens, patches row by row; (B, 5 + h * w, width)."""
        patches = self.patch_embed(image).flatten(2).transpose(1, 2)
        first = torch.cat([self.cls_token, self.storage_tokens], 1).expand(len(image), -1, -1)
        return torch.cat([first, patches], 1)

    def forward(self, image: Tensor) -> list[Tensor]:
        """Tokens of an image batch.

        Args:
            image: (B, 3, H, W), ImageNet-normalised; H and W multiples of 16.

        Returns:
            per tap, (B, H / 16 * W / 16, width), patches row by row.

        Raises:
            ValueError: the sides are not multiples of 16.
        """
        height, width = image.shape[-2:]
        if height % PATCH or width % PATCH:
            raise ValueError(f"height and width must be multiples of {PATCH}, got {(height, width)}: resize it")
        x = self.tokens(image)
        rotation = self.rotation(height // PATCH, width // PATCH).to(x)
        found = []
        for i, block in enumerate(self.blocks[: self._taps[-1] + 1]):
            x = block(x, rotation)
            if i in self._taps:
                found.append(self.norm(x)[:, 1 + STORAGE_TOKENS :])
        return found
