"""From a filtered 4-D correlation to matches, and the score that weak supervision maximises.

Thesis of Rocco, sections 5.3.4 to 5.3.7. Cells are (row, column); A is the source, B the target.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ros2_densematch.matchers.common.consensus.cells import ConsensusMatches


def best_matches(correlation: Tensor, *, per: str = "B", softmax: bool = True) -> ConsensusMatches:
    """The best partner of every cell of one image, in row-major order of that image's cells.

    Args:
        correlation: (hA, wA, hB, wB).
        per: "B": every cell of B gets its best cell of A; "A": the other way round.
        softmax: the score is the softmax over all candidates at the best one, else the raw value.
    """
    h_a, w_a, h_b, w_b = correlation.shape
    flat = correlation.reshape(h_a * w_a, h_b * w_b)
    by_cell = flat.T if per == "B" else flat
    value, partner = by_cell.max(1)
    if softmax:
        # the softmax at the maximum needs the sum only
        value = 1.0 / (by_cell - value[:, None]).exp_().sum(1)
    own = torch.arange(len(partner), device=partner.device)
    if per == "B":
        return ConsensusMatches(_cells(partner, w_a), _cells(own, w_b), value)
    return ConsensusMatches(_cells(own, w_a), _cells(partner, w_b), value)


def _cells(flat: Tensor, columns: int) -> Tensor:
    return torch.stack([torch.div(flat, columns, rounding_mode="floor"), flat % columns], 1)


def relocalise(matches: ConsensusMatches, places: Tensor, k: int) -> ConsensusMatches:
    """Cells of the k times finer grid: where in its box the pooled maximum of every match lay (thesis, eq. 5.13).

    Args:
        matches: in pooled cells.
        places: (hA, wA, hB, wB), of `pooled_correlation`.
        k: side of the boxes.
    """
    place = places[matches.a[:, 0], matches.a[:, 1], matches.b[:, 0], matches.b[:, 1]].long()
    offsets = [torch.div(place, k**power, rounding_mode="floor") % k for power in (3, 2, 1, 0)]
    a = matches.a * k + torch.stack(offsets[:2], 1)
    b = matches.b * k + torch.stack(offsets[2:], 1)
    return ConsensusMatches(a, b, matches.score)


def centred(cell: Tensor, count: int) -> Tensor:
    """Cell indices to [-1, 1], the centres of the outer cells at the ends (`linspace(-1, 1, count)`)."""
    return torch.linspace(-1, 1, count, device=cell.device)[cell]


def weak_score(correlation: Tensor) -> Tensor:
    """The mean matching score of pairs: what weak supervision raises for pairs that match (thesis, section 5.3.6).

    Args:
        correlation: (N, 1, hA, wA, hB, wB).

    Returns:
        (N,): the mean over cells of the best softmax over the opposite image, averaged over the two directions.
        Differentiable.
    """
    n, _, h_a, w_a, h_b, w_b = correlation.shape
    flat = correlation.view(n, h_a * w_a, h_b * w_b)
    per_a = flat.softmax(2).amax(2).mean(1)
    per_b = flat.softmax(1).amax(1).mean(1)
    return (per_a + per_b) / 2
