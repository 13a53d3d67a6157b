"""The pre-norm transformer block that DINOv2 and RoMa's match decoder share."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


class _Attention(nn.Module):
    def __init__(self, width: int, heads: int, qkv_bias: bool) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width, bias=qkv_bias)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        batch, tokens, width = x.shape
        qkv = self.qkv(x).reshape(batch, tokens, 3, self.heads, width // self.heads)
        query, key, value = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        y = functional.scaled_dot_product_attention(query, key, value)
        result: Tensor = self.proj(y.transpose(1, 2).reshape(batch, tokens, width))
        return result


class _Mlp(nn.Module):
    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, hidden)
        self.fc2 = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.fc2(functional.gelu(self.fc1(x)))
        return result


class _LayerScale(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.full((width,), 1e-5))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gamma


class TransformerBlock(nn.Module):
    """x + scale * attention(norm(x)), then x + scale * mlp(norm(x)); GELU, hidden width 4 times the width."""

    def __init__(self, width: int, heads: int, *, qkv_bias: bool, layer_scale: bool, eps: float) -> None:
        """
        Args:
            width: channels of a token.
            heads: attention heads.
            qkv_bias: whether the projection to queries, keys and values has a bias.
            layer_scale: whether a learned gain per channel scales each branch.
            eps: of the layer norms.
        """
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=eps)
        self.attn = _Attention(width, heads, qkv_bias)
        self.norm2 = nn.LayerNorm(width, eps=eps)
        self.mlp = _Mlp(width, 4 * width)
        self.ls1 = _LayerScale(width) if layer_scale else nn.Identity()
        self.ls2 = _LayerScale(width) if layer_scale else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """Tokens (B, N, width) to tokens of the same shape."""
        x = x + self.ls1(self.attn(self.norm1(x)))
        result: Tensor = x + self.ls2(self.mlp(self.norm2(x)))
        return result
