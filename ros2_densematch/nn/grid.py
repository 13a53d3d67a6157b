"""Grids and sampling in the edge convention: the outer edges of an image are -1 and +1, channel order (x, y)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def cell_centres(height: int, width: int, *, device: torch.device | None = None) -> Tensor:
    """Normalised (x, y) of the cell centres, float32 (2, H, W); column j of W lies at -1 + (2j + 1) / W."""
    x = torch.linspace(-1 + 1 / width, 1 - 1 / width, width, device=device)
    y = torch.linspace(-1 + 1 / height, 1 - 1 / height, height, device=device)
    return torch.stack([x[None, :].expand(height, width), y[:, None].expand(height, width)])


def sample_features(features: Tensor, position: Tensor) -> Tensor:
    """Bilinear samples, zero outside, computed in float32: a half-precision grid is too coarse for positions.

    Args:
        features: (B, C, H, W).
        position: (B, 2, h, w), normalised (x, y) in `features`.

    Returns:
        (B, C, h, w) in the type of `features`.
    """
    grid = position.float().permute(0, 2, 3, 1)
    sampled = functional.grid_sample(features.float(), grid, mode="bilinear", padding_mode="zeros", align_corners=False)
    return sampled.to(features.dtype)


def resize(x: Tensor, size: tuple[int, int]) -> Tensor:
    """Bilinear resize of (B, C, H, W) to (height, width), half-pixel centres, no antialiasing."""
    if tuple(x.shape[-2:]) == tuple(size):
        return x
    return functional.interpolate(x, size=size, mode="bilinear", align_corners=False)
