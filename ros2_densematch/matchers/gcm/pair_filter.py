"""The pair filter: from what a match and the rest of its pair say to the chance that it is right.

A small network on the evidence of `pair_evidence.py`. A prior judges each match by its own evidence first. Then every
match reads its neighbours, its group and the whole pair, in turn. The network answers two questions: does the match
lie within 1 px of its true place, and within 3 px.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from ros2_densematch.matchers.gcm.match_filter import NODE_FEATURES
from ros2_densematch.matchers.gcm.pair_evidence import FEATURES, PairEvidence
from ros2_densematch.weights.catalogue import path_of
from ros2_densematch.weights.loading import load_exactly, read_state

_WIDTH = 48
_ROUNDS = 3
_PRIOR_WIDTH = 32
_BEYOND = 5.0  # standard deviations of the evidence; beyond what was seen in training nothing new is known


class PairTensors(NamedTuple):
    """`PairEvidence` as tensors: float (N, FEATURES), int64 (N, k), int64 (N,)."""

    nodes: Tensor
    neighbours: Tensor
    group: Tensor

    @staticmethod
    def of(evidence: PairEvidence) -> PairTensors:
        return PairTensors(*(torch.from_numpy(array) for array in evidence))


class Prior(nn.Module):
    """Logit (N,) of each match by its own evidence alone; the evidence of the pair starts with it."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(NODE_FEATURES))
        self.register_buffer("deviation", torch.ones(NODE_FEATURES))
        self.mean: Tensor
        self.deviation: Tensor
        self.layers = nn.Sequential(
            nn.Linear(NODE_FEATURES, _PRIOR_WIDTH),
            nn.ReLU(),
            nn.Linear(_PRIOR_WIDTH, _PRIOR_WIDTH),
            nn.ReLU(),
            nn.Linear(_PRIOR_WIDTH, 1),
        )

    def forward(self, of_match: Tensor) -> Tensor:
        """From (N, NODE_FEATURES)."""
        logits: Tensor = self.layers(((of_match - self.mean) / self.deviation).clamp(-_BEYOND, _BEYOND))[:, 0]
        return logits


class PairFilter(nn.Module):
    """Logits (N, 2) that each match of a pair is right within 1 px and within 3 px.

    Attributes:
        prior: what makes the logit that `pair_evidence` takes.
    """

    def __init__(self, width: int = _WIDTH, rounds: int = _ROUNDS) -> None:
        super().__init__()
        self.prior = Prior()
        self.register_buffer("mean", torch.zeros(FEATURES))
        self.register_buffer("deviation", torch.ones(FEATURES))
        self.mean: Tensor
        self.deviation: Tensor
        self.embed = nn.Sequential(nn.Linear(FEATURES, width), nn.ReLU(), nn.Linear(width, width))
        self.norm = nn.ModuleList(nn.LayerNorm(width) for _ in range(rounds))
        self.told = nn.ModuleList(nn.Linear(width, width) for _ in range(rounds))
        self.update = nn.ModuleList(
            nn.Sequential(nn.Linear(4 * width, width), nn.ReLU(), nn.Linear(width, width)) for _ in range(rounds)
        )
        self.head = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 2))

    @staticmethod
    def shipped() -> PairFilter:
        """The trained one.

        Raises:
            FileNotFoundError: the file is missing from this installation.
        """
        path = path_of("gcm_pair")
        model = PairFilter()
        load_exactly(model, read_state(path), path)
        return model.eval().requires_grad_(False)

    def forward(self, pair: PairTensors) -> Tensor:
        """Logits (N, 2)."""
        h = self.embed(((pair.nodes - self.mean) / self.deviation).clamp(-_BEYOND, _BEYOND))
        groups = int(pair.group.max()) + 1
        size = torch.bincount(pair.group, minlength=groups).to(h)[:, None]
        for norm, told, update in zip(self.norm, self.told, self.update, strict=True):
            own = norm(h)
            message = torch.relu(told(own))
            around = functional.embedding_bag(pair.neighbours, message, mode="mean")
            together = torch.zeros(groups, h.shape[1]).index_add_(0, pair.group, message) / size
            everyone = message.mean(0, keepdim=True).expand_as(message)
            h = h + update(torch.cat([own, around, together[pair.group], everyone], 1))
        logits: Tensor = self.head(h)
        return logits
