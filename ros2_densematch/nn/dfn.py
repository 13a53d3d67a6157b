"""DKM's embedding decoder, after the discriminative feature network.

Yu et al., "Learning a discriminative feature network for semantic segmentation", CVPR 2018; as used by Edstedt et al.,
"DKM: dense kernelized feature matching for geometry estimation", CVPR 2023.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from ros2_densematch.nn.grid import resize


class _ResidualRefinement(nn.Module):
    """RRB: a projection, and two 3x3 convolutions as a residual."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 1)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1)
        self.bn = nn.BatchNorm2d(outputs)
        self.conv3 = nn.Conv2d(outputs, outputs, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv1(x)
        return functional.relu(x + self.conv3(functional.relu(self.bn(self.conv2(x)))))


class _ChannelAttention(nn.Module):
    """CAB: the context gates the channels of the embedding and is added to it."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(2 * channels, channels, 1)
        self.conv2 = nn.Conv2d(channels, channels, 1)

    def forward(self, context: Tensor, embedding: Tensor) -> Tensor:
        pooled = torch.cat([context, embedding], 1).mean((2, 3), keepdim=True)
        gate = torch.sigmoid(self.conv2(functional.relu(self.conv1(pooled))))
        return gate * embedding + context


class DfnDecoder(nn.Module):
    """Coordinates, certainty and context at the two coarsest scales."""

    def __init__(self, *, features: int = 512, reduced: int = 256, embedding: int = 256, width: int = 384) -> None:
        """
        Args:
            features: channels of the projected query features.
            reduced: channels to which they are reduced.
            embedding: channels of the Gaussian process posterior.
            width: channels inside.
        """
        super().__init__()
        scales = ("32", "16")
        self.width = width
        self.feat_input_modules = nn.ModuleDict({s: nn.Conv2d(features, reduced, 1) for s in scales})
        self.rrb_d = nn.ModuleDict({s: _ResidualRefinement(reduced + embedding, width) for s in scales})
        self.cab = nn.ModuleDict({s: _ChannelAttention(width) for s in scales})
        self.rrb_u = nn.ModuleDict({s: _ResidualRefinement(width, width) for s in scales})
        self.terminal_module = nn.ModuleDict({s: nn.Conv2d(width, 3, 1) for s in scales})

    def forward(
        self, posterior: Tensor, query: Tensor, context: Tensor | None, scale: int
    ) -> tuple[Tensor, Tensor, Tensor]:
        """
        Args:
            posterior: (B, embedding, h, w).
            query: (B, features, h, w).
            context: (B, width, h', w') of the coarser scale, or None at the coarsest.
            scale: 32 or 16.

        Returns:
            coordinates float32 (B, 2, h, w), not bounded; certainty logits float32 (B, 1, h, w); the new context.
        """
        key = str(scale)
        batch, _, height, width = query.shape
        if context is None:
            context = query.new_zeros(batch, self.width, height, width)
        context = resize(context, (height, width))
        embedding = torch.cat([self.feat_input_modules[key](query), posterior.to(query.dtype)], 1)
        context = self.cab[key](context, self.rrb_d[key](embedding))
        context = self.rrb_u[key](context)
        out = self.terminal_module[key](context).float()
        return out[:, 1:], out[:, :1], context
