"""The draw of matches as released, for comparison.

Its defects, which our own draw does not have, stand in `docs/matchers/roma_v2.md`.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ros2_densematch.matchers.common.dense.result import DenseResult
from ros2_densematch.nn.grid import cell_centres, sample_features


@dataclass(frozen=True)
class PublishedRows:
    """What the released draw chooses from: all cells of A, then, in both directions, all cells of B.

    Attributes:
        rows: float32 (N, 4): xA, yA, xB, yB, normalised.
        confidence: float32 (N,).
        precision_a, precision_b: float32 (N, 3): of the point in A and of that in B, entries xx, xy, yy in pixels^-2 of
            the map. In one direction only that of B is known; the released code returns rows of its matrix instead.
    """

    rows: Tensor
    confidence: Tensor
    precision_a: Tensor | None
    precision_b: Tensor


def published_certainty(result: DenseResult) -> Tensor:
    """The certainty (H, W), 0 where the target lies beyond 1 - 1 / H of the centre, along both axes.

    The cells' own positions are tested as well: in wide maps the outermost columns fall out.
    """
    height, width = result.certainty.shape
    cells = cell_centres(height, width, device=result.flow.device).permute(1, 2, 0)
    farthest = torch.maximum(result.flow.abs().amax(2), cells.abs().amax(2))
    return result.certainty * (farthest <= 1 - 1 / height)


def published_rows(forward: DenseResult, backward: DenseResult | None) -> PublishedRows:
    """The rows of a match in one direction or in both.

    Args:
        forward: A to B, with its precision.
        backward: B to A, of the same size, or None.

    Raises:
        ValueError: a result has no precision.
    """
    if forward.precision is None or (backward is not None and backward.precision is None):
        raise ValueError("the published rows need the precision of every direction")
    height, width = forward.certainty.shape
    cells = cell_centres(height, width, device=forward.flow.device).permute(1, 2, 0)
    rows = torch.cat([cells, forward.flow], 2).reshape(-1, 4)
    confidence = published_certainty(forward).flatten()
    precision_b = forward.precision.reshape(-1, 3)
    if backward is None or backward.precision is None:
        return PublishedRows(rows, confidence, None, precision_b)
    rows = torch.cat([rows, torch.cat([backward.flow, cells], 2).reshape(-1, 4)])
    confidence = torch.cat([confidence, published_certainty(backward).flatten()])
    precision_a = torch.cat([carried(backward.precision, forward.flow), backward.precision.reshape(-1, 3)])
    precision_b = torch.cat([precision_b, carried(forward.precision, backward.flow)])
    return PublishedRows(rows, confidence, precision_a, precision_b)


def carried(precision: Tensor, flow: Tensor) -> Tensor:
    """A map of precisions (H, W, 3) sampled at a warp (h, w, 2), bilinear, zero outside: (h * w, 3)."""
    at = flow.permute(2, 0, 1)[None]
    return sample_features(precision.permute(2, 0, 1)[None], at)[0].flatten(1).T
