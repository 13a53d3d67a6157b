"""Kept graphs of `pair_graphs.py` as the evidence of the pair filter with its truth."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ros2_densematch.matchers.gcm.candidates import Candidates
from ros2_densematch.matchers.gcm.match_filter import NEIGHBOURS, Surroundings, match_evidence
from ros2_densematch.matchers.gcm.pair_evidence import pair_evidence
from ros2_densematch.matchers.gcm.pair_filter import PairTensors, Prior
from ros2_densematch.matchers.gcm.recurrence import Recurrence

_UNSURE_PX = (0.8, 1.6)  # epipolar distance cannot tell on which side of 1 px a match lies


class Kept(NamedTuple):
    """The candidates of one pair.

    Attributes:
        kind, scene: what it shows.
        candidates, twins: as the matcher made them.
        surroundings: of the candidates.
        of_match: float32 (N, NODE_FEATURES), the evidence of each match alone.
        first: (N,) logit of the first filter.
        within: float32 (N, 2) 1 right, 0 wrong, NaN unknown: at 1 and at 3 px.
        error: (N,) pixels, NaN where nobody knows.
    """

    kind: str
    scene: str
    candidates: Candidates
    twins: Recurrence
    surroundings: Surroundings
    of_match: Tensor
    first: Tensor
    within: Tensor
    error: np.ndarray


class Graph(NamedTuple):
    """A kept pair with the evidence that a prior leads to."""

    kind: str
    pair: PairTensors
    first: Tensor
    within: Tensor
    error: np.ndarray


def load(path: Path) -> Kept | None:
    data = np.load(path)
    if len(data["logit"]) <= NEIGHBOURS:
        return None
    arrays = {n: data[n] for n in Candidates.__dataclass_fields__}
    found = Candidates(**{n: v if v.dtype == np.bool_ else v.astype(np.float64) for n, v in arrays.items()})
    twins = Recurrence(*(data[f"twin_{n}"].astype(np.float64) for n in Recurrence._fields))
    error = data["error"].astype(np.float64)
    within = np.stack([error < 1, error < 3], 1).astype(np.float32)
    within[np.isnan(error)] = np.nan
    if str(data["kind"]) == "photos":
        within[(error > _UNSURE_PX[0]) & (error < _UNSURE_PX[1]), 0] = np.nan
        # beyond 1.5 px of the line is beyond it of the place, but within it along the line anything may be
        within[(error > 1.5) & (error < 3), 1] = np.nan
    surroundings = Surroundings.of(found)
    of_match = torch.from_numpy(match_evidence(found, surroundings).astype(np.float32))
    first = torch.from_numpy(data["logit"].astype(np.float64))
    return Kept(
        str(data["kind"]),
        str(data["scene"]),
        found,
        twins,
        surroundings,
        of_match,
        first,
        torch.from_numpy(within),
        error,
    )


def kept(folder: Path, part: str, most: int | None = None) -> list[Kept]:
    """The pairs of a part, of at least ten candidates."""
    return [k for p in sorted(folder.glob(f"{part}_*.npz"))[:most] if (k := load(p)) is not None]


@torch.no_grad()
def graph(pair: Kept, prior: Prior) -> Graph:
    logit = prior(pair.of_match).numpy().astype(np.float64)
    of_match = pair.of_match.numpy().astype(np.float64)
    evidence = pair_evidence(pair.candidates, of_match, logit, pair.twins, pair.surroundings)
    return Graph(pair.kind, PairTensors.of(evidence), pair.first, pair.within, pair.error)


def today(logit: np.ndarray) -> np.ndarray:
    """What the first filter alone returned, the best up to 300 included."""
    score = 1 / (1 + np.exp(-logit))
    bar = 0.5
    if (score >= bar).sum() < 300:
        ranked = np.sort(score)[::-1]
        bar = max(0.1, min(bar, ranked[299] if len(ranked) >= 300 else 0.0))
    return score >= bar
