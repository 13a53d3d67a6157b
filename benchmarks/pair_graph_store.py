"""Kept graphs of `pair_graphs.py` as the evidence of the pair filter with its truth."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ros2_densematch.matchers.gcm import pair_evidence as evidence_module
from ros2_densematch.matchers.gcm.candidates import Candidates
from ros2_densematch.matchers.gcm.pair_evidence import NEIGHBOURS, pair_evidence
from ros2_densematch.matchers.gcm.pair_filter import PairTensors
from ros2_densematch.matchers.gcm.recurrence import Recurrence
from ros2_densematch.weights.catalogue import digest

FLOOR = -4.0  # logit of the first filter; hardly any match below is right
_UNSURE_PX = (0.8, 1.6)  # epipolar distance cannot tell on which side of 1 px a match lies


class Graph(NamedTuple):
    kind: str
    pair: PairTensors
    first: Tensor
    within: Tensor  # (N, 2) 1 right, 0 wrong, NaN unknown: at 1 and at 3 px
    error: np.ndarray
    lost: int  # matches within 1 px that the floor takes


def load(path: Path) -> Graph | None:
    data = np.load(path)
    kept = data["logit"] > FLOOR
    if kept.sum() <= NEIGHBOURS:
        return None
    arrays = {n: data[n][kept] for n in Candidates.__dataclass_fields__}
    found = Candidates(**{n: v if v.dtype == np.bool_ else v.astype(np.float64) for n, v in arrays.items()})
    twins = Recurrence(*(data[f"twin_{n}"][kept].astype(np.float64) for n in Recurrence._fields))
    first = data["logit"][kept].astype(np.float64)
    pair = PairTensors.of(pair_evidence(found, first, twins))
    error = data["error"][kept].astype(np.float64)
    within = np.stack([error < 1, error < 3], 1).astype(np.float32)
    within[np.isnan(error)] = np.nan
    if str(data["kind"]) == "photos":
        within[(error > _UNSURE_PX[0]) & (error < _UNSURE_PX[1]), 0] = np.nan
        # beyond 1.5 px of the line is beyond it of the place, but within it along the line anything may be
        within[(error > 1.5) & (error < 3), 1] = np.nan
    lost = int((data["error"][~kept] < 1).sum())
    return Graph(str(data["kind"]), pair, torch.from_numpy(first), torch.from_numpy(within), error, lost)


def kept_graphs(folder: Path, part: str, most: int | None = None) -> list[Graph]:
    """The graphs of a part; their evidence is kept beside them as long as the code that makes it is the same."""
    code = digest(Path(evidence_module.__file__))[:8]
    store = folder / f"evidence_{part}_{code}.pt"
    known: dict[str, Graph | None] = torch.load(store, weights_only=False) if store.exists() else {}
    paths = sorted(folder.glob(f"{part}_*.npz"))[:most]
    for path in paths:
        if path.name not in known:
            known[path.name] = load(path)
    torch.save(known, store)
    return [g for p in paths if (g := known[p.name]) is not None]


def today(logit: np.ndarray) -> np.ndarray:
    """What the first filter alone returned, the best up to 300 included."""
    score = 1 / (1 + np.exp(-logit))
    bar = 0.5
    if (score >= bar).sum() < 300:
        ranked = np.sort(score)[::-1]
        bar = max(0.1, min(bar, ranked[299] if len(ranked) >= 300 else 0.0))
    return score >= bar
