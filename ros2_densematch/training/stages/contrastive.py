"""The contrastive loss over all sampled pairs of descriptors.

Kwiatkowski et al., "ConDL: detector-free dense image matching" (arXiv 2408.02766): descriptors are sampled on an even
grid of the first image and at the true partners in the second; the dot products of all with all form a matrix, and the
true partner has to win the softmax of its row and of its column. No negatives are mined. The paper leaves temperature,
normalisation and what to do about near neighbours open: here descriptors have unit length.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def contrastive_loss(descriptors0: Tensor, descriptors1: Tensor, temperature: float | Tensor) -> Tensor:
    """Cross entropy of the true partners under a softmax over the rows, and over the columns, of all dot products.

    Args:
        descriptors0: (N, C) unit descriptors of places in the first view.
        descriptors1: (N, C) of the same places in the second view, in the same order.
        temperature: that the dot products are divided by.

    Returns:
        The mean of the two directions, zero for fewer than two places.
    """
    if len(descriptors0) < 2:
        return (descriptors0.sum() + descriptors1.sum()) * 0
    similarity = descriptors0 @ descriptors1.T / temperature
    target = torch.arange(len(similarity), device=similarity.device)
    rows = functional.cross_entropy(similarity, target)
    return (rows + functional.cross_entropy(similarity.T, target)) / 2


def retrieval(descriptors0: Tensor, descriptors1: Tensor) -> Tensor:
    """Share of the places whose most similar descriptor of the second view is the true partner."""
    if len(descriptors0) == 0:
        return descriptors0.new_zeros(())
    best = (descriptors0 @ descriptors1.T).argmax(1)
    return (best == torch.arange(len(best), device=best.device)).float().mean()


def sample_map(features: Tensor, xy: Tensor, height: int, width: int) -> Tensor:
    """Unit vectors of a feature map at image positions, bilinear.

    Args:
        features: (B, C, h, w), covering an image of height x width pixels evenly.
        xy: (B, N, 2) pixels of the image, (0, 0) = centre of the top-left pixel.
        height, width: of the image.

    Returns:
        (B, N, C).
    """
    grid = ((2 * xy + 1) / xy.new_tensor([width, height]) - 1)[:, :, None]
    sampled = functional.grid_sample(features, grid, mode="bilinear", padding_mode="border", align_corners=False)
    return functional.normalize(sampled[..., 0].transpose(1, 2), dim=-1)


def even_grid(
    warp: Tensor, valid: Tensor, step: int, offset: tuple[int, int] = (0, 0)
) -> tuple[Tensor, Tensor, Tensor]:
    """Places on an even grid of the first image, and their true partners.

    Args:
        warp: (B, H, W, 2) pixels in the second image; valid: bool (B, H, W).
        step: pixels between neighbours of the grid.
        offset: row and column of the first place.

    Returns:
        positions in the first and in the second image (B, N, 2) in pixels, and which are seen in both, bool (B, N).
    """
    height, width = valid.shape[1:]
    y = torch.arange(offset[0], height, step, device=warp.device)
    x = torch.arange(offset[1], width, step, device=warp.device)
    places = torch.stack(torch.meshgrid(x, y, indexing="xy"), -1).reshape(1, -1, 2).float().expand(len(warp), -1, -1)
    partners = torch.nan_to_num(warp[:, y][:, :, x]).flatten(1, 2)
    return places, partners, valid[:, y][:, :, x].flatten(1)
