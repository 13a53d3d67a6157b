"""Local correlation: each query feature against the support features around its current match.

Edstedt et al., "RoMa: robust dense feature matching", CVPR 2024, section 3.5 (refiners). All offsets are whole cells,
so the bilinear weights of one query cell are the same for all of them: correlate with the (2r + 2)^2 cells around the
match, then interpolate the correlations instead of the features. Query cells are taken in tiles; no array of
channels x offsets x height x width ever exists. On a CPU, without gradients, neighbouring query cells whose matches are
neighbours too share one matrix product with the part of the support that holds all their windows.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

# support maps up to this many cells are correlated with the whole query map by one matrix product
_ALL_PAIRS_CELLS = 2500
# elements of a tile's windows: small enough for the cache of a CPU core, large enough to fill a GPU
_TILE_ELEMENTS = {"cpu": 1 << 20, "cuda": 1 << 26}
# side of a block of query cells, and the most support cells that it is correlated with: beyond, windows are cheaper
_BLOCK, _BLOCK_CELLS = 8, 2048


def local_correlation(query: Tensor, support: Tensor, flow: Tensor, radius: int) -> Tensor:
    """Dot products over sqrt(C) at the matches and at whole-cell offsets around them; zero outside the support.

    Gradients reach `query` only, as in the released models.

    Args:
        query: (B, C, H, W).
        support: (B, C, H, W), of the same size.
        flow: (B, 2, H, W), normalised (x, y) of each query cell in the support.
        radius: r, largest offset in cells.

    Returns:
        (B, (2r + 1)^2, H, W) in the type of `query`; vertical offset slow, horizontal fast, both from -r to r.

    Raises:
        ValueError: the two maps differ in size.
    """
    if query.shape != support.shape:
        raise ValueError(
            f"query {tuple(query.shape)} and support {tuple(support.shape)} must have one shape: resize one"
        )
    batch, channels, height, width = query.shape
    support, flow = support.detach(), flow.detach().float()
    rows = (query * channels**-0.5).permute(0, 2, 3, 1).reshape(batch, -1, channels)
    # position of the match in cells, whole part and fraction
    scale = torch.tensor([width, height], device=flow.device).reshape(1, 2, 1, 1)
    position = ((flow + 1) * scale - 1) / 2
    whole = position.floor()
    fraction = (position - whole).flatten(2).to(query.dtype)
    side = 2 * radius + 2
    # first cell of the window, in a map that is padded by the size of a window; what is farther out sees zeros only
    first_x = (whole[:, 0] - radius).clamp(-side, width).long().flatten(1) + side
    first_y = (whole[:, 1] - radius).clamp(-side, height).long().flatten(1) + side
    all_pairs = height * width <= _ALL_PAIRS_CELLS
    elements = (height + 2 * side) * (width + 2 * side) if all_pairs else side * side * channels
    tile = max(1, _TILE_ELEMENTS.get(query.device.type, 1 << 20) // elements)
    kernel = _all_pairs if all_pairs else _windows
    outputs = []
    for b in range(batch):
        if all_pairs:
            prepared = support[b].flatten(1)
        else:
            prepared = functional.pad(support[b].permute(1, 2, 0), (0, 0, side, side, side, side)).contiguous()
        if not all_pairs and query.device.type == "cpu" and not (torch.is_grad_enabled() and rows.requires_grad):
            outputs.append(_blocks(rows[b], prepared, first_x[b], first_y[b], fraction[b], side, (height, width)).T)
            continue
        parts = []
        for start in range(0, height * width, tile):
            end = min(start + tile, height * width)
            arguments = (
                rows[b, start:end],
                prepared,
                first_x[b, start:end],
                first_y[b, start:end],
                fraction[b, :, start:end],
                side,
                (height, width),
            )
            if torch.is_grad_enabled() and rows.requires_grad:
                parts.append(checkpoint(kernel, *arguments, use_reentrant=False))
            else:
                parts.append(kernel(*arguments))
        outputs.append(torch.cat(parts).T)
    return torch.stack(outputs).reshape(batch, (side - 1) ** 2, height, width)


def _windows(
    rows: Tensor, padded: Tensor, x: Tensor, y: Tensor, fraction: Tensor, side: int, size: tuple[int, int]
) -> Tensor:
    """Gathers the window of each row and correlates it: (P, C), (H', W', C) -> (P, K)."""
    stride_y, stride_x, stride_c = padded.stride()
    shape = (padded.shape[0] - side + 1, padded.shape[1] - side + 1, side, side * padded.shape[2])
    # a row of a window is contiguous: its cells and their channels
    view = padded.as_strided(shape, (stride_y, stride_x, stride_y, stride_c))
    windows = view[y, x].reshape(len(rows), side * side, -1)
    return _interpolate((windows @ rows[:, :, None]).reshape(-1, side, side), fraction)


def _blocks(
    rows: Tensor, padded: Tensor, x: Tensor, y: Tensor, fraction: Tensor, side: int, size: tuple[int, int]
) -> Tensor:
    """Correlates blocks of query cells with the part of the support around all their matches: -> (H * W, K)."""
    height, width = size
    channels = rows.shape[1]
    # cells block by block; where the map is no multiple of a block, its last rows and columns are taken again
    by = torch.arange(-(-height // _BLOCK) * _BLOCK).clamp(max=height - 1).reshape(-1, 1, _BLOCK, 1)
    bx = torch.arange(-(-width // _BLOCK) * _BLOCK).clamp(max=width - 1).reshape(1, -1, 1, _BLOCK)
    cells = (by * width + bx).flatten(2).flatten(0, 1)
    block_x, block_y = x[cells], y[cells]
    left, top = block_x.amin(1, keepdim=True), block_y.amin(1, keepdim=True)
    across = block_x.amax(1, keepdim=True) - left + side
    down = block_y.amax(1, keepdim=True) - top + side
    near = (across * down)[:, 0] <= _BLOCK_CELLS
    step = torch.arange(side)
    first = (block_y - top) * across + block_x - left
    index = (step[:, None] * across[:, :, None, None] + step + first[:, :, None, None]).flatten(2)
    corners = torch.cat([left, left + across, top, top + down], 1).tolist()
    windows = rows.new_empty((len(rows), side * side))
    for i in near.nonzero()[:, 0].tolist():
        x0, x1, y0, y1 = corners[i]
        part = padded[y0:y1, x0:x1].reshape(-1, channels)
        windows[cells[i]] = (rows[cells[i]] @ part.T).gather(1, index[i])
    result = _interpolate(windows.reshape(-1, side, side), fraction)
    far = cells[~near].flatten()
    tile = max(1, _TILE_ELEMENTS["cpu"] // (side * side * channels))
    for start in range(0, len(far), tile):
        chunk = far[start : start + tile]
        result[chunk] = _windows(rows[chunk], padded, x[chunk], y[chunk], fraction[:, chunk], side, size)
    return result


def _all_pairs(
    rows: Tensor, support: Tensor, x: Tensor, y: Tensor, fraction: Tensor, side: int, size: tuple[int, int]
) -> Tensor:
    """Correlates with the whole map and picks the windows: (P, C), (C, H * W) -> (P, K)."""
    height, width = size
    volume = functional.pad((rows @ support).reshape(-1, height, width), (side, side, side, side))
    step = torch.arange(side, device=rows.device)
    padded_width = width + 2 * side
    index = (y[:, None, None] + step[:, None]) * padded_width + x[:, None, None] + step
    return _interpolate(volume.flatten(1).gather(1, index.flatten(1)).reshape(-1, side, side), fraction)


def _interpolate(window: Tensor, fraction: Tensor) -> Tensor:
    """Correlations at whole cells (P, side, side) -> at the matches and offsets (P, (side - 1)^2)."""
    fx, fy = fraction[0, :, None, None], fraction[1, :, None, None]
    across = window[:, :, :-1] + fx * (window[:, :, 1:] - window[:, :, :-1])
    return (across[:, :-1] + fy * (across[:, 1:] - across[:, :-1])).flatten(1)
