"""RoMa v2's coarse matcher: joint transformer, attention match, dense prediction head.

Edstedt et al., "RoMa v2", arXiv 2511.15706, section 3. No anchors and no arg-max: the position in the other image
enters as the attention-weighted mean of a code of all its cells, and the head regresses the warp.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from ros2_densematch.matchers.roma_v2.dpt_head import DptHead
from ros2_densematch.matchers.roma_v2.joint_transformer import JointTransformer
from ros2_densematch.nn.grid import cell_centres

_TEMPERATURE = 0.1


@dataclass(frozen=True)
class CoarseMatch:
    """The match before the refiners.

    Attributes:
        warp: float32 (B, 2, h, w) at a quarter of the resolution, normalised (x, y) in the other image, unbounded.
        overlap: logits, float32 (B, 1, h, w).
        attention: logits of the patch attention, float32 (B, N, N), rows: own patches; None unless asked for.
    """

    warp: Tensor
    overlap: Tensor
    attention: Tensor | None = None


class CoarseMatcher(nn.Module):
    """What the checkpoint keeps under `matcher.`."""

    temp: Tensor
    omega: Tensor
    scale: Tensor

    def __init__(self, width: int, head: DptHead, *, joint_width: int = 768, depth: int = 12, heads: int = 12) -> None:
        """
        Args:
            width: channels of the backbone's tokens.
            head: for tokens of that width.
            joint_width: channels inside the joint transformer; depth: its blocks; heads: its attention heads.
        """
        super().__init__()
        self.mv_vit = JointTransformer(2 * width, joint_width, width, depth=depth, heads=heads)
        self.head = head
        self.register_buffer("temp", torch.tensor(_TEMPERATURE))
        self.register_buffer("omega", 2 * math.pi * torch.randn(width // 2, 2))
        self.register_buffer("scale", torch.tensor(1))

    def position_code(self, grid: tuple[int, int]) -> Tensor:
        """Random Fourier features of a grid's cell centres, float32 (rows * columns, width)."""
        centres = cell_centres(*grid, device=self.omega.device).flatten(1).T
        angles = self.scale * (centres @ self.omega.float().T)
        return torch.cat([angles.sin(), angles.cos()], 1)

    def attention(self, own: Tensor, other: Tensor) -> Tensor:
        """Logits, float32 (B, N, N): cosine of the joint transformer's results over the temperature."""
        own, other = own.float(), other.float()
        own, other = (x / x.norm(dim=-1, keepdim=True) for x in (own, other))
        return own @ other.transpose(1, 2) / self.temp.float()

    def forward(
        self,
        fine: list[Tensor],
        tokens: Tensor,
        own: Tensor,
        other: Tensor,
        grid: tuple[int, int],
        *,
        with_attention: bool = False,
    ) -> CoarseMatch:
        """One direction.

        Args:
            fine: of `DptHead.fine_levels`, of the own image.
            tokens: (B, N, C), the backbone's second layer of the own image.
            own, other: results of the joint transformer, (B, N, C).
            grid: rows and columns of the patches.
            with_attention: keep the attention logits, for training.
        """
        with torch.autocast(own.device.type, enabled=False):
            logits = self.attention(own, other)
            code = self.match_code(logits, grid)
        x = self.head(fine, tokens + own + code.to(own.dtype), grid)
        return CoarseMatch(x[:, :2], x[:, 2:], logits if with_attention else None)

    def match_code(self, logits: Tensor, grid: tuple[int, int]) -> Tensor:
        """Attention-weighted mean of the other image's position codes, float32 (B, N, width)."""
        return functional.softmax(logits, -1) @ self.position_code(grid)
