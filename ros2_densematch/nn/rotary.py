"""Rotary position embedding of patch tokens, as in DINOv3.

Su et al., "RoFormer", 2021, in two dimensions: pairs of a head's channels are turned by angles that grow with the row
or the column of the patch. Positions are relative to the image (-1 to +1), whatever its resolution.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

# largest period over smallest
_BASE = 100.0


@dataclass(frozen=True)
class Rotation:
    """Sines and cosines (patches, head width), row-major patches."""

    sin: Tensor
    cos: Tensor

    def to(self, like: Tensor) -> Rotation:
        """In the type and on the device of another tensor."""
        return Rotation(self.sin.to(like), self.cos.to(like))


def rotary_periods(head_width: int) -> Tensor:
    """The published periods, float32 (head_width / 4,): 100^(i / n)."""
    count = head_width // 4
    return _BASE ** (torch.arange(count, dtype=torch.float64) / count).float()


def rotation_of(rows: int, columns: int, periods: Tensor) -> Rotation:
    """The table of a grid of patches, computed in the type of the periods, operation by operation.

    Args:
        rows, columns: of the grid.
        periods: (head width / 4,).
    """
    kind, device = periods.dtype, periods.device
    y, x = (2 * ((torch.arange(n, device=device).to(kind) + 0.5) / n) - 1 for n in (rows, columns))
    # rows first, then columns; the same angles for both halves of a head
    grid = torch.stack(torch.meshgrid(y, x, indexing="ij"), -1).reshape(-1, 2, 1)
    angles = (2 * math.pi * grid / periods).flatten(1).tile(1, 2)
    return Rotation(angles.sin(), angles.cos())


def rotate(vectors: Tensor, rotation: Rotation) -> Tensor:
    """Queries or keys (B, heads, N, head width) turned; tokens before the patches stay as they are."""
    patches = len(rotation.sin)
    first = vectors.shape[2] - patches
    turned = vectors[:, :, first:]
    half = vectors.shape[3] // 2
    partner = torch.cat([-turned[..., half:], turned[..., :half]], -1)
    turned = turned * rotation.cos + partner * rotation.sin
    return turned if first == 0 else torch.cat([vectors[:, :, :first], turned], 2)
