"""The pre-norm transformer block that DINOv2, DINOv3 and the transformers of RoMa and RoMa v2 share."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from ros2_densematch.nn.rotary import Rotation, rotate


class _MaskedBiasLinear(nn.Linear):
    """A linear layer whose bias a stored mask switches on and off."""

    bias_mask: Tensor

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs)
        # queries, keys, values: keys have no bias
        mask = torch.ones(3, outputs // 3)
        mask[1] = 0
        self.register_buffer("bias_mask", mask.flatten())

    def forward(self, x: Tensor) -> Tensor:
        return functional.linear(x, self.weight, self.bias * self.bias_mask)


class _Attention(nn.Module):
    def __init__(self, width: int, heads: int, qkv_bias: bool, masked_key_bias: bool) -> None:
        super().__init__()
        self.heads = heads
        if masked_key_bias:
            self.qkv: nn.Linear = _MaskedBiasLinear(width, 3 * width)
        else:
            self.qkv = nn.Linear(width, 3 * width, bias=qkv_bias)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor, rotation: Rotation | None = None) -> Tensor:
        batch, tokens, width = x.shape
        qkv = self.qkv(x).reshape(batch, tokens, 3, self.heads, width // self.heads)
        query, key, value = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        if rotation is not None:
            query, key = rotate(query, rotation), rotate(key, rotation)
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

    def __init__(
        self,
        width: int,
        heads: int,
        *,
        qkv_bias: bool,
        layer_scale: bool,
        eps: float,
        masked_key_bias: bool = False,
    ) -> None:
        """
        Args:
            width: channels of a token.
            heads: attention heads.
            qkv_bias: whether the projection to queries, keys and values has a bias.
            layer_scale: whether a learned gain per channel scales each branch.
            eps: of the layer norms.
            masked_key_bias: whether a stored mask takes the keys' bias out (DINOv3).
        """
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=eps)
        self.attn = _Attention(width, heads, qkv_bias, masked_key_bias)
        self.norm2 = nn.LayerNorm(width, eps=eps)
        self.mlp = _Mlp(width, 4 * width)
        self.ls1 = _LayerScale(width) if layer_scale else nn.Identity()
        self.ls2 = _LayerScale(width) if layer_scale else nn.Identity()

    def forward(self, x: Tensor, rotation: Rotation | None = None) -> Tensor:
        """Tokens (B, N, width) to tokens of the same shape; `rotation` turns queries and keys of the last ones."""
        x = x + self.ls1(self.attn(self.norm1(x), rotation))
        result: Tensor = x + self.ls2(self.mlp(self.norm2(x)))
        return result
