"""The losses of DKM, RoMa and RoMa v2 on a dense true warp.

Edstedt et al., "DKM", CVPR 2023, section 3.5, and "RoMa", CVPR 2024, sections 3.4 and 3.6, with the constants of the
released training code. Coordinates are normalised: the outer edges of an image are -1 and +1.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from ros2_densematch.matchers.common.dense.network import ScaleOutput
from ros2_densematch.matchers.roma_v2.coarse import CoarseMatch
from ros2_densematch.matchers.roma_v2.network import Refined
from ros2_densematch.nn.match_decoder import ANCHORS

# corners of a cell whose partners lie farther apart than this (pixels) straddle the rim of an object
_LARGEST_SPREAD_PX = 6.0
# scales up to this one learn only where the scale before was near
_LOCAL_FROM = 8
# a training image is taken to be so many pixels wide when "near" is measured
_LOCAL_SIDE = 512
_SURE = 0.99


@dataclass(frozen=True)
class Truth:
    """The true partners of a grid of cells.

    Attributes:
        position: (B, h, w, 2), normalised (x, y) in the other image; zero where not known.
        visible: float (B, h, w), 1 where the place is seen in the other image.
    """

    position: Tensor
    visible: Tensor


def truth_at(warp: Tensor, valid: Tensor, height: int, width: int) -> Truth:
    """The true warp at the cell centres of a coarser grid: interpolated, and known only where all corners agree.

    Args:
        warp: (B, H, W, 2), pixels (x, y) in the other image of the same size; NaN where unknown.
        valid: bool (B, H, W).
        height, width: of the grid.
    """
    rows, columns = warp.shape[1:3]
    y0, y1, fy = _neighbours(height, rows, warp.device)
    x0, x1, fx = _neighbours(width, columns, warp.device)
    corners, seen, shares = [], [], []
    for y, wy in ((y0, 1 - fy), (y1, fy)):
        for x, wx in ((x0, 1 - fx), (x1, fx)):
            share = (wy[:, None] * wx[None]).expand(height, width)
            # a corner without weight has no say
            corners.append(torch.nan_to_num(warp[:, y][:, :, x]))
            seen.append(valid[:, y][:, :, x] | (share == 0))
            shares.append(share)
    mean = sum((c * s[..., None] for c, s in zip(corners, shares, strict=True)), torch.zeros_like(corners[0]))
    visible = torch.stack(seen).all(0)
    for corner, share in zip(corners, shares, strict=True):
        visible &= ((corner - mean).norm(dim=-1) < _LARGEST_SPREAD_PX) | (share == 0)
    size = warp.new_tensor([columns, rows])
    position = (2 * mean + 1) / size - 1
    return Truth(torch.where(visible[..., None], position, torch.zeros_like(position)), visible.float())


def _neighbours(cells: int, pixels: int, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """The pixels left and right of each cell's centre, and the share of the right one."""
    centre = (torch.arange(cells, device=device) + 0.5) * (pixels / cells) - 0.5
    left = centre.floor().clamp(0, pixels - 1)
    return left.long(), (left.long() + 1).clamp(max=pixels - 1), (centre - left).clamp(0, 1)


def dkm_losses(
    outputs: Mapping[int, ScaleOutput], warp: Tensor, valid: Tensor, *, certainty_weight: float = 0.01
) -> dict[str, Tensor]:
    """DKM's loss: mean end-point error where visible, and binary cross entropy of the certainty, over all scales.

    Args:
        outputs: scale -> prediction, of `DenseNetwork.forward`.
        warp, valid: the true warp, as for `truth_at`.
        certainty_weight: of the cross entropy.

    Returns:
        `loss`, and detached the parts: `regression`, `certainty`, and `error_px`, the mean error of the finest scale in
        pixels.
    """
    parts = _Sum()
    previous: Tensor | None = None
    for scale in sorted(outputs, reverse=True):
        out = outputs[scale]
        truth = truth_at(warp, valid, *out.flow.shape[-2:])
        error = _error(out.flow, truth)
        visible = _local(truth.visible, previous, 4 * scale) if scale <= _LOCAL_FROM else truth.visible
        parts.add("regression", _mean_where(error, visible > 0))
        parts.add("certainty", certainty_weight * _entropy(out.certainty, visible))
        previous = error.detach()
    return parts.result(outputs, warp, valid)


# RoMa's d_s: how near, in cells of the scale, the scale before must have come
_ROMA_LOCAL = {1: 4, 2: 4, 4: 8, 8: 8}


def roma_losses(
    outputs: Mapping[int, ScaleOutput],
    warp: Tensor,
    valid: Tensor,
    *,
    certainty_weight: float = 0.01,
    alpha: float = 0.5,
    width: float = 1e-4,
) -> dict[str, Tensor]:
    """RoMa's loss: anchor classification at the coarsest scale, robust regression at every refiner.

    Args:
        outputs, warp, valid, certainty_weight: as for `dkm_losses`.
        alpha, width: exponent a and scale c of the generalised Charbonnier loss (c s)^a ((e / (c s))^2 + 1)^(a / 2).

    Returns:
        As `dkm_losses`, with `anchors`, the classification.
    """
    parts = _Sum()
    previous: Tensor | None = None
    for scale in sorted(outputs, reverse=True):
        out = outputs[scale]
        truth = truth_at(warp, valid, *out.flow.shape[-2:])
        if out.anchor_logits is not None and out.certainty_before is not None:
            parts.add("anchors", anchor_loss(out.anchor_logits, truth))
            parts.add("certainty", certainty_weight * _entropy(out.certainty_before, truth.visible))
        error = _error(out.flow, truth)
        visible = truth.visible
        if scale <= _LOCAL_FROM:
            visible = _local(visible, previous, _ROMA_LOCAL[scale] * scale)
        robust = _charbonnier(error, scale, alpha, width)
        parts.add("regression", _mean_where(robust, visible > _SURE))
        parts.add("certainty", certainty_weight * _entropy(out.certainty, visible))
        previous = error.detach()
    return parts.result(outputs, warp, valid)


def roma_v2_coarse_losses(
    found: CoarseMatch, grid: tuple[int, int], warp: Tensor, valid: Tensor, *, certainty_weight: float = 0.01
) -> dict[str, Tensor]:
    """The first stage of RoMa v2: what it learns, as far as that is public, with weights that are ours.

    Public: an auxiliary negative log-likelihood on the patch attention, here against the cell of the other image that
    holds the true position. Ours: the robust regression and the cross entropy of the overlap, as in RoMa.

    Args:
        found: with attention logits.
        grid: rows and columns of the patches.
        warp, valid, certainty_weight: as for `dkm_losses`.
    """
    parts = _Sum()
    truth = truth_at(warp, valid, *found.warp.shape[-2:])
    parts.add("attention", _attention_loss(found.attention, truth_at(warp, valid, *grid), grid))
    parts.add("regression", _mean_where(_charbonnier(_error(found.warp, truth), 4), truth.visible > _SURE))
    parts.add("certainty", certainty_weight * _entropy(found.overlap, truth.visible))
    return parts.result_of(found.warp, warp, valid)


def roma_v2_refiner_losses(
    found: Mapping[int, Refined],
    warp: Tensor,
    valid: Tensor,
    *,
    certainty_weight: float = 0.01,
    precision_weight: float = 1e-3,
) -> dict[str, Tensor]:
    """The second stage of RoMa v2: robust regression and overlap at every refiner, the precision by its likelihood.

    Public: that the precision of each pixel is learnt by likelihood. Ours: residuals are taken as they are (no gradient
    into the warp) and clamped to 8 pixels, and count where the scale before was near; all weights; the rest as in RoMa.

    Args:
        found: scale -> refiner, of `RomaV2Network.forward`.
        warp, valid, certainty_weight: as for `dkm_losses`.
        precision_weight: of the negative log-likelihood.
    """
    parts = _Sum()
    for scale in sorted(found, reverse=True):
        out = found[scale]
        height, width = out.warp.shape[-2:]
        truth = truth_at(warp, valid, height, width)
        visible = _local(truth.visible, _error(out.warp_before, truth), _ROMA_LOCAL[scale] * scale)
        parts.add("regression", _mean_where(_charbonnier(_error(out.warp, truth), scale), visible > _SURE))
        parts.add("certainty", certainty_weight * _entropy(out.confidence, truth.visible))
        likelihood = _negative_log_likelihood(out, truth, warp)
        parts.add("precision", precision_weight * _mean_where(likelihood, visible > _SURE))
    return parts.result_of(found[min(found)].warp, warp, valid)


# residuals beyond say nothing more about the spread of good matches
_LARGEST_RESIDUAL_PX = 8.0


def _negative_log_likelihood(out: Refined, truth: Truth, warp: Tensor) -> Tensor:
    """Half of r^T P r - log det P per cell, r in pixels of the image (that of the true warp), (B, h, w)."""
    half = warp.new_tensor([warp.shape[2] / 2, warp.shape[1] / 2])
    residual = (out.warp.detach().permute(0, 2, 3, 1) - truth.position) * half
    x, y = residual.clamp(-_LARGEST_RESIDUAL_PX, _LARGEST_RESIDUAL_PX).unbind(-1)
    xx, xy, yy = out.confidence[:, 1:].unbind(1)
    determinant = (xx * yy - xy * xy).clamp(min=1e-9)
    return 0.5 * (xx * x * x + 2 * xy * x * y + yy * y * y - determinant.log())


def _attention_loss(logits: Tensor | None, truth: Truth, grid: tuple[int, int]) -> Tensor:
    """Cross entropy of patch attention (B, N, N) against the cell that holds the true position, where visible."""
    if logits is None:
        raise ValueError("the attention loss needs the coarse match with its attention logits")
    rows, columns = grid
    size = truth.position.new_tensor([columns, rows])
    cell = ((truth.position + 1) / 2 * size).floor().long()
    target = cell[..., 1].clamp(0, rows - 1) * columns + cell[..., 0].clamp(0, columns - 1)
    sure = (truth.visible > _SURE).flatten(1)
    if not bool(sure.any()):
        return logits.sum() * 0
    return functional.cross_entropy(logits[sure], target.flatten(1)[sure])


def _charbonnier(error: Tensor, scale: int, alpha: float = 0.5, width: float = 1e-4) -> Tensor:
    """The generalised Charbonnier loss of RoMa: (c s)^a ((e / (c s))^2 + 1)^(a / 2)."""
    cs = width * scale
    robust: Tensor = cs**alpha * ((error / cs).square() + 1) ** (alpha / 2)
    return robust


def anchor_loss(logits: Tensor, truth: Truth) -> Tensor:
    """Cross entropy of anchor logits (B, 4096, h, w) against the anchor nearest to the true position, where visible."""
    sure = truth.visible > _SURE
    chosen = logits.permute(0, 2, 3, 1)[sure]
    if len(chosen) == 0:
        return logits.sum() * 0
    # anchors are the centres of a regular grid of cells: the nearest one is the cell that holds the position
    cell = ((truth.position[sure] + 1) * (ANCHORS / 2)).floor().long().clamp(0, ANCHORS - 1)
    return functional.cross_entropy(chosen, ANCHORS * cell[:, 1] + cell[:, 0])


def end_point_error_px(outputs: Mapping[int, ScaleOutput], warp: Tensor, valid: Tensor) -> Tensor:
    """Mean distance between the finest predicted and the true warp, in pixels, where visible."""
    return _error_px(outputs[min(outputs)].flow, warp, valid)


def _error_px(flow: Tensor, warp: Tensor, valid: Tensor) -> Tensor:
    truth = truth_at(warp, valid, *flow.shape[-2:])
    half = warp.new_tensor([warp.shape[2] / 2, warp.shape[1] / 2])
    error = ((flow.detach().permute(0, 2, 3, 1) - truth.position) * half).norm(dim=-1)
    return _mean_where(error, truth.visible > 0)


def _error(flow: Tensor, truth: Truth) -> Tensor:
    distance: Tensor = (flow.float().permute(0, 2, 3, 1) - truth.position).norm(dim=-1)
    return distance


def _local(visible: Tensor, previous: Tensor | None, cells: int) -> Tensor:
    """What is visible and was nearly found at the scale before."""
    if previous is None:
        return visible
    before: Tensor = functional.interpolate(previous[:, None], size=visible.shape[-2:], mode="nearest-exact")[:, 0]
    return visible * (before < 2 / _LOCAL_SIDE * cells)


def _entropy(logits: Tensor, visible: Tensor) -> Tensor:
    return functional.binary_cross_entropy_with_logits(logits[:, 0].float(), visible)


def _mean_where(values: Tensor, chosen: Tensor) -> Tensor:
    return values[chosen].mean() if bool(chosen.any()) else values.sum() * 0


class _Sum:
    """Adds up the parts of a loss."""

    def __init__(self) -> None:
        self._parts: dict[str, Tensor] = {}

    def add(self, name: str, value: Tensor) -> None:
        self._parts[name] = self._parts[name] + value if name in self._parts else value

    def result(self, outputs: Mapping[int, ScaleOutput], warp: Tensor, valid: Tensor) -> dict[str, Tensor]:
        return self.result_of(outputs[min(outputs)].flow, warp, valid)

    def result_of(self, flow: Tensor, warp: Tensor, valid: Tensor) -> dict[str, Tensor]:
        """The sum, its parts, and the error of a predicted flow."""
        total = torch.stack(list(self._parts.values())).sum()
        parts = {name: value.detach() for name, value in self._parts.items()}
        return {"loss": total, **parts, "error_px": _error_px(flow, warp, valid)}
