"""From the network's last flow and certainty to a dense result in pixels of the original images."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ros2_densematch.arrays import Float32
from ros2_densematch.matchers.base import Encoding
from ros2_densematch.nn.grid import resize

_ATTENUATION = 0.5


@dataclass(frozen=True)
class DenseResult:
    """Where every cell of one image lies in the other.

    Attributes:
        flow: float32 (H, W, 2), normalised (x, y) in the other image: outer edges -1 and +1.
        certainty: float32 (H, W) in [0, 1].
        reversed: the cells belong to the query image and the flow leads into the reference image.
        precision: float32 (H, W, 3), entries xx, xy, yy of the inverse covariance of the flow's target, where one cell
            of the map is 1 long along either axis; None where the network predicts none.
    """

    flow: Tensor
    certainty: Tensor
    reversed: bool = False
    precision: Tensor | None = None


def attenuate(certainty: Tensor, coarse: Tensor) -> Tensor:
    """Takes half of the coarse certainty logits off, where those are negative: so this raises the certainty there.

    Args:
        certainty: final logits (B, 1, H, W).
        coarse: logits (B, 1, h, w) of scale 16 after its refiner.
    """
    low = resize(coarse, (certainty.shape[-2], certainty.shape[-1]))
    return certainty - _ATTENUATION * low.clamp(max=0)


def bounded(flow: Tensor, logits: Tensor) -> tuple[Tensor, Tensor]:
    """Certainty 0 where the warp leaves the image, then the warp clamped to it.

    Args:
        flow: (B, 2, H, W); logits: (B, 1, H, W).

    Returns:
        flow (B, H, W, 2) in [-1, 1] and certainty (B, H, W) in [0, 1].
    """
    certainty = logits[:, 0].sigmoid()
    certainty = certainty.masked_fill((flow.abs() > 1).any(1), 0.0)
    return flow.clamp(-1, 1).permute(0, 2, 3, 1), certainty


def to_pixels(normalised: Float32, size: tuple[int, int]) -> Float32:
    """Normalised (..., 2) positions to pixels of an image of (width, height); (0, 0) is a pixel centre."""
    return np.asarray((normalised + 1) * (np.array(size, np.float32) / 2) - 0.5, np.float32)


def to_normalised(xy: NDArray[np.floating[Any]], size: tuple[int, int]) -> Float32:
    """Pixels (..., 2) of an image of (width, height) to normalised positions."""
    return np.asarray((xy + 0.5) * (2 / np.array(size)) - 1, np.float32)


def cell_positions(index: NDArray[np.intp], height: int, width: int) -> Float32:
    """Normalised (N, 2) centres of cells, from their flat indices in an H x W grid."""
    row, column = np.divmod(index, width)
    return np.stack([-1 + (2 * column + 1) / width, -1 + (2 * row + 1) / height], 1).astype(np.float32)


def hide_masked(result: DenseResult, own: Encoding, other: Encoding) -> DenseResult:
    """The result without certainty in masked cells and in those that lead to a masked pixel.

    Args:
        own: encoding of the image that the cells belong to.
        other: encoding of the image that the flow leads into.
    """
    if own.mask is None and other.mask is None:
        return result
    height, width = result.certainty.shape
    allowed = np.ones(height * width, np.bool_)
    if own.mask is not None:
        allowed &= own.allows(to_pixels(cell_positions(np.arange(height * width), height, width), own.size))
    if other.mask is not None:
        allowed &= other.allows(to_pixels(result.flow.reshape(-1, 2).cpu().numpy(), other.size))
    kept = torch.from_numpy(allowed.reshape(height, width)).to(result.certainty.device)
    return replace(result, certainty=result.certainty * kept)
