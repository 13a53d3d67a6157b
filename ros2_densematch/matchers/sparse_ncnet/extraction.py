"""From a filtered sparse correlation to matches, and the score that weak supervision maximises.

Thesis of Rocco, sections 6.3.2 and 6.3.4.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ros2_densematch.matchers.common.consensus.cells import ConsensusMatches, both_directions
from ros2_densematch.nn.sparse_conv4d import SparseCorrelation


def best_entries(correlation: SparseCorrelation) -> ConsensusMatches:
    """The best entry of every cell of A and of every cell of B, each pair once.

    Sorted by (A column, A row, B column, B row), as published. Of equal entries of a cell the first in the order of
    places counts.
    """
    places, score = correlation.places(), correlation.values[:, 0]
    lists = []
    for rows, columns in ((places[:, :2], correlation.sides[1]), (places[:, 2:], correlation.sides[3])):
        chosen = _best_of_each(rows[:, 0] * columns + rows[:, 1], score)
        lists.append(ConsensusMatches(places[chosen, :2], places[chosen, 2:], score[chosen]))
    return both_directions(*lists)


def _best_of_each(group: Tensor, score: Tensor) -> Tensor:
    """Index of the first largest score of every group that occurs, in order of the groups."""
    by_score = torch.argsort(score, descending=True, stable=True)
    order = by_score[torch.argsort(group[by_score], stable=True)]
    ordered = group[order]
    first = torch.ones_like(ordered, dtype=torch.bool)
    first[1:] = ordered[1:] != ordered[:-1]
    return order[first]


def weak_score(correlation: SparseCorrelation) -> Tensor:
    """The mean matching score of one pair: what weak supervision raises for a pair that matches.

    As in NCNet, with zeros for the pairs of cells that have no entry: the softmax of a cell runs over its entries and
    those zeros. Differentiable.

    Returns:
        Scalar.
    """
    places, score = correlation.places(), correlation.values[:, 0]
    h_a, w_a, h_b, w_b = correlation.sides
    cell_a, cell_b = places[:, 0] * w_a + places[:, 1], places[:, 2] * w_b + places[:, 3]
    per_image = []
    for own, count, others in ((cell_a, h_a * w_a, h_b * w_b), (cell_b, h_b * w_b, h_a * w_a)):
        # entries are not negative, so that the zeros never beat the best entry
        best = score.new_zeros(count).scatter_reduce(0, own, score, "amax")
        total = score.new_zeros(count).index_add(0, own, (score - best[own]).exp())
        entries = torch.bincount(own, minlength=count)
        per_image.append((1.0 / (total + (others - entries) * (-best).exp())).mean())
    return (per_image[0] + per_image[1]) / 2
