"""The learned match filter: from the evidence for a match and for its neighbours to the chance that it is right.

A small graph network: every match is a node, its nearest matches in the reference image are its neighbours, and the
mean over all matches is known to each. It sees no absolute position, so that it cannot learn where matches lie.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ros2_densematch.arrays import Float64
from ros2_densematch.matchers.common.local_affine import (
    VOTERS,
    LocalAffine,
    Neighbours,
    estimate_local_affine,
    nearest_matches,
)
from ros2_densematch.matchers.gcm.candidates import Candidates

NODE_FEATURES = 14
EDGE_FEATURES = 4
NEIGHBOURS = 8
_WIDTH = 48
_ROUNDS = 3
_LEAST = 4


class MatchGraph(NamedTuple):
    """Input of the filter.

    Attributes:
        nodes: float32 (N, NODE_FEATURES).
        neighbours: int64 (N, NEIGHBOURS), indices of the nearest matches.
        edges: float32 (N, NEIGHBOURS, EDGE_FEATURES).
    """

    nodes: Tensor
    neighbours: Tensor
    edges: Tensor


class Surroundings(NamedTuple):
    """The nearest candidates of each candidate in the reference image, and the affine map that they agree on."""

    around: Neighbours
    local: LocalAffine

    @staticmethod
    def of(candidates: Candidates) -> Surroundings:
        around = nearest_matches(candidates.reference_xy, VOTERS)
        local = estimate_local_affine(candidates.reference_xy, candidates.query_xy, neighbours=around)
        return Surroundings(around, local)

    def nearest(self) -> Neighbours:
        """The first `NEIGHBOURS`; with few candidates the farthest is repeated."""
        index = np.minimum(np.arange(NEIGHBOURS), self.around.index.shape[1] - 1)
        return Neighbours(self.around.index[:, index], self.around.distance[:, index])


def match_evidence(candidates: Candidates, surroundings: Surroundings) -> Float64:
    """(N, NODE_FEATURES): what each of at least two candidates and its neighbours say about it."""
    local = surroundings.local
    a, b, c = candidates.information.T
    half, root = (a + c) / 2, np.sqrt(np.maximum(((a - c) / 2) ** 2 + b**2, 0))
    singular = _singular_values(local.linear)
    rotation = np.arctan2(local.linear[:, 1, 0] - local.linear[:, 0, 1], local.linear[:, 0, 0] + local.linear[:, 1, 1])
    evidence = np.stack(
        [
            candidates.similarity,
            10 * candidates.margin,
            candidates.correlation,
            -0.3 * np.log(1.001 - np.clip(candidates.correlation, -1, 1)),
            0.3 * np.log(np.maximum(half - root, 0) + 1e-4),
            0.3 * np.log(half + root + 1e-4),
            np.log1p(candidates.moved),
            np.log1p(local.residual),
            local.support,
            0.5 * np.log(np.maximum(singular[:, 0] * singular[:, 1], 1e-4)),
            np.log(np.maximum(singular[:, 0], 1e-3) / np.maximum(singular[:, 1], 1e-3)).clip(0, 4),
            np.abs(rotation),
            0.3 * np.log1p(surroundings.nearest().distance.mean(1)),
            candidates.grown.astype(np.float64),
        ],
        axis=1,
    )
    return np.asarray(np.nan_to_num(evidence), np.float64)


def match_graph(candidates: Candidates) -> MatchGraph:
    """Evidence for each candidate and its relation to its neighbours; on the CPU.

    Fewer than four candidates give an empty graph: they are too few to be told from chance.
    """
    if len(candidates) < _LEAST:
        return MatchGraph(
            torch.zeros(0, NODE_FEATURES),
            torch.zeros(0, NEIGHBOURS, dtype=torch.long),
            torch.zeros(0, NEIGHBOURS, EDGE_FEATURES),
        )
    x0, x1 = candidates.reference_xy, candidates.query_xy
    surroundings = Surroundings.of(candidates)
    nodes = match_evidence(candidates, surroundings)
    nearest, local = surroundings.nearest(), surroundings.local
    distance, index = nearest.distance, nearest.index
    offset0 = x0[index] - x0[:, None]
    offset1 = x1[index] - x1[:, None]
    error = _length(offset1 - offset0 @ local.linear.transpose(0, 2, 1))
    stretch = np.log((_length(offset1) + 1) / (distance + 1))
    edges = np.stack(
        [
            np.log1p(error),
            np.log1p(error / (distance + 1)),
            stretch.clip(-3, 3),
            0.3 * np.log1p(distance),
        ],
        axis=2,
    )
    return MatchGraph(
        torch.from_numpy(nodes.astype(np.float32)),
        torch.from_numpy(index.astype(np.int64)),
        torch.from_numpy(np.nan_to_num(edges).astype(np.float32)),
    )


def _length(vectors: NDArray[np.float64]) -> NDArray[np.float64]:
    """Euclidean norm over the last axis, which has two entries."""
    return np.asarray(np.hypot(vectors[..., 0], vectors[..., 1]))


def _singular_values(linear: NDArray[np.float64]) -> NDArray[np.float64]:
    """(N, 2) singular values of (N, 2, 2), the larger first, in closed form."""
    a, b, c, d = linear[:, 0, 0], linear[:, 0, 1], linear[:, 1, 0], linear[:, 1, 1]
    total, twist = np.hypot(a + d, c - b), np.hypot(a - d, b + c)
    return np.stack([(total + twist) / 2, np.abs(total - twist) / 2], axis=1)


class MatchFilter(nn.Module):
    """Logit that a match is right, for every match of one image pair."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(NODE_FEATURES))
        self.register_buffer("deviation", torch.ones(NODE_FEATURES))
        self.mean: Tensor
        self.deviation: Tensor
        self.embed = nn.Sequential(nn.Linear(NODE_FEATURES, _WIDTH), nn.ReLU(), nn.Linear(_WIDTH, _WIDTH))
        self.message = nn.ModuleList(
            nn.Sequential(nn.Linear(2 * _WIDTH + EDGE_FEATURES, _WIDTH), nn.ReLU(), nn.Linear(_WIDTH, _WIDTH))
            for _ in range(_ROUNDS)
        )
        self.update = nn.ModuleList(
            nn.Sequential(nn.Linear(4 * _WIDTH, _WIDTH), nn.ReLU(), nn.Linear(_WIDTH, _WIDTH)) for _ in range(_ROUNDS)
        )
        self.norm = nn.ModuleList(nn.LayerNorm(_WIDTH) for _ in range(_ROUNDS))
        self.head = nn.Sequential(nn.Linear(_WIDTH, _WIDTH), nn.ReLU(), nn.Linear(_WIDTH, 1))

    def forward(self, graph: MatchGraph) -> Tensor:
        """Logits (N,) of one graph."""
        if len(graph.nodes) == 0:
            return graph.nodes.new_zeros(0)
        h = self.embed((graph.nodes - self.mean) / self.deviation)
        for message, update, norm in zip(self.message, self.update, self.norm, strict=True):
            m = _messages(message, h, graph)
            everyone = h.mean(0, keepdim=True).expand_as(h)
            h = h + update(torch.cat([norm(h), m.mean(1), m.amax(1), everyone], 1))
        logits: Tensor = self.head(h)[:, 0]
        return logits


def _messages(layers: nn.Module, h: Tensor, graph: MatchGraph) -> Tensor:
    """(N, NEIGHBOURS, width): a small network of each match, its neighbour and the edge between them.

    Its first layer is linear, so that the parts of the match and of the neighbour are computed once per match, not once
    per edge.
    """
    first, activation, second = layers.children()
    assert isinstance(first, nn.Linear)
    width = h.shape[1]
    own, around, edge = first.weight[:, :width], first.weight[:, width : 2 * width], first.weight[:, 2 * width :]
    mixed = (h @ around.T)[graph.neighbours]
    mixed += torch.addmm(first.bias, h, own.T)[:, None]
    mixed += graph.edges @ edge.T
    messages: Tensor = second(activation(mixed))
    return messages
