"""Trains the match filter of `gcm` on its own candidates, judged by ground truth.

The network of the descriptor stage is frozen. Each sample is the candidate graph of one whole image pair with the label
for every candidate; the loss is the binary cross entropy of the labels, unweighted, so that the filter's output is a
probability. Candidates are found once and kept: that takes as long as matching a pair.

Patches that look alike in the wrong place are rare in the training material, and common in front of a row of windows.
So some correct matches are perturbed: they keep the evidence of a good patch, and only neighbours contradict them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional

from ros2_densematch.files.atomic import replacing
from ros2_densematch.matchers.gcm.candidates import Candidates
from ros2_densematch.matchers.gcm.match_filter import (
    EDGE_FEATURES,
    NEIGHBOURS,
    NODE_FEATURES,
    MatchFilter,
    MatchGraph,
    match_graph,
)
from ros2_densematch.matchers.gcm.matcher import GcmMatcher
from ros2_densematch.training.data.judged import JudgedSource
from ros2_densematch.training.data.photometric import PhotometricConfig, augment
from ros2_densematch.training.data.source import PairSource
from ros2_densematch.training.stages.base import Stage
from ros2_densematch.training.stages.initial_weights import initial_state
from ros2_densematch.training.stages.schedules import scheduled
from ros2_densematch.weights.catalogue import digest

MAX_MATCHES = 3072
_STORED_LABELS = "verdict"  # the name in the files of kept candidates, which earlier versions wrote
_LEAST_RIGHT = 32  # fewer right matches are left alone
_MOST_ASTRAY = 0.4
_SAME_PLACE_PX = 6.0


class MatchFilterConfig(BaseModel):
    """Settings of the match filter stage."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    graphs: int = Field(800, gt=0, description="This many judged image pairs are matched once and kept in `cache`.")
    astray: float = Field(
        0.0,
        ge=0,
        le=_MOST_ASTRAY,
        description="On average this share of the right matches is moved to another place, alone or with their "
        "neighbours, and becomes wrong.",
    )
    continue_filter: bool = Field(
        False, description="When true, training starts from the filter in `initial_weights`, not from nothing."
    )
    initial_weights: Path | None = Field(
        None,
        description="The network comes from these weights of `gcm` (a file or a name of the catalogue), in a recipe "
        "without a descriptor stage.",
    )
    cache: Path | None = Field(
        None, description="The judged pairs are kept in this folder; null keeps them beside the checkpoints."
    )
    learning_rate: float = Field(2e-3, gt=0, description="The learning rate has this value at the start of the decay.")
    max_steps: int = Field(
        3000, gt=0, description="The stage takes this many steps, over which the learning rate decays by a cosine."
    )
    photometric_strength: float = Field(0.5, ge=0, description="The images of a pair are changed with this strength.")
    seed: int = Field(0, ge=0, description="Everything that is drawn at random depends on this seed alone.")


class GraphDataset(torch.utils.data.Dataset[dict[str, Tensor]]):
    """Judged candidate graphs, padded to `MAX_MATCHES`; graph i depends only on the network and (seed, i).

    Args:
        matcher: finds the candidates.
        sources: image pairs with a judge, and their weights.
        count: pairs; sample `count` is pair 0 again, with other matches perturbed.
        folder: where the candidates are kept.
        seed: of everything that is drawn.
        photometric: how images are changed.
        network: digest of the matcher's weights: candidates of other weights in `folder` are not taken for its own.
        astray: mean share of the right matches that `perturb_matches` moves.
    """

    def __init__(
        self,
        matcher: GcmMatcher,
        sources: Sequence[tuple[JudgedSource, float]],
        count: int,
        folder: Path,
        *,
        seed: int,
        photometric: PhotometricConfig,
        network: str,
        astray: float = 0.0,
    ) -> None:
        self._network, self._astray = network[:8], astray
        self._matcher, self._count, self._folder, self._seed = matcher, count, folder, seed
        self._sources = [s for s, _ in sources]
        weights = np.array([w for _, w in sources], np.float64)
        self._chance = weights / weights.sum()
        self._photometric = photometric
        folder.mkdir(parents=True, exist_ok=True)

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        path = self._folder / f"candidates_{self._network}_{self._seed}_{index % self._count:05d}.safetensors"
        if not path.exists():
            with replacing(path) as temporary:  # other processes may make the same one
                save_file(self._make(index % self._count), str(temporary))
        stored = load_file(str(path))
        labels = stored.pop(_STORED_LABELS).numpy()
        candidates = Candidates(**{name: _array(values) for name, values in stored.items()})
        rng = np.random.default_rng((self._seed, index))
        if self._astray > 0:
            candidates, labels = perturb_matches(candidates, labels, self._astray, rng)
        return _padded({**match_graph(candidates)._asdict(), "labels": torch.from_numpy(labels)})

    def _make(self, index: int) -> dict[str, Tensor]:
        rng = np.random.default_rng((self._seed, 7, index))
        for _ in range(20):
            source = self._sources[int(rng.choice(len(self._sources), p=self._chance))]
            pair = source.draw(rng)
            images = [augment(image, rng, self._photometric) for image in (pair.image0, pair.image1)]
            encodings = [self._matcher.encode(image).data for image in images]
            candidates = self._matcher.candidates(*encodings)
            if len(match_graph(candidates).nodes):
                labels = pair.judge(candidates.reference_xy, candidates.query_xy)
                evidence = {name: torch.from_numpy(_single(values)) for name, values in vars(candidates).items()}
                return {**evidence, _STORED_LABELS: torch.from_numpy(labels)}
        raise ValueError("twenty training pairs in a row gave no candidate match: is the descriptor stage trained?")


def perturb_matches(
    candidates: Candidates, labels: NDArray[np.int8], share: float, rng: np.random.Generator
) -> tuple[Candidates, NDArray[np.int8]]:
    """Moves right matches to other places, where they are wrong, as repeated structure does.

    Half of them change places one by one; the others go in groups of neighbours that all move alike, as the matches of
    one window that is taken for the next. What was seen in the patches stays; the margin shrinks, for where something
    looks alike there is a rival.

    Args:
        candidates: N matches in working pixels.
        labels: int8 (N,), 1 right, 0 wrong, -1 unknown.
        share: mean share of the right matches that are moved; of one graph it is drawn from an exponential
            distribution, at most 0.4.
        rng: what is drawn.

    Returns:
        The matches and their labels: 0 for the moved ones, -1 for those within 6 px of the correct position.
    """
    right = np.flatnonzero(labels == 1)
    moved = int(min(share * rng.exponential(), _MOST_ASTRAY) * len(right))
    if len(right) < _LEAST_RIGHT or moved == 0:
        return candidates, labels
    query_xy, margin, labels = candidates.query_xy.copy(), candidates.margin.copy(), labels.copy()
    alone = rng.choice(right, (moved + 1) // 2, replace=False)
    query_xy[alone] = candidates.query_xy[rng.choice(right, len(alone), replace=False)]
    left, together = np.setdiff1d(right, alone), [alone]
    while sum(map(len, together)) < moved and len(left) > _LEAST_RIGHT // 2:
        centre = candidates.reference_xy[rng.choice(left)]
        size = int(rng.integers(2, 13))
        group = left[np.argsort(np.linalg.norm(candidates.reference_xy[left] - centre, axis=1))[:size]]
        angle, length = rng.uniform(0, 2 * np.pi), rng.uniform(1.5 * _SAME_PLACE_PX, 100.0)
        query_xy[group] += length * np.array([np.cos(angle), np.sin(angle)])
        left = np.setdiff1d(left, group)
        together.append(group)
    led = np.concatenate(together)
    margin[led] *= rng.random(len(led))
    elsewhere = np.linalg.norm(query_xy[led] - candidates.query_xy[led], axis=1) > _SAME_PLACE_PX
    labels[led] = np.where(elsewhere, 0, -1)
    return replace(candidates, query_xy=query_xy, margin=margin), labels


def _single(values: NDArray[Any]) -> NDArray[Any]:
    """In single precision, which halves the files; flags stay flags."""
    return np.ascontiguousarray(values if values.dtype == np.bool_ else values.astype(np.float32))


def _array(values: Tensor) -> NDArray[Any]:
    found = values.numpy()
    return found if found.dtype == np.bool_ else found.astype(np.float64)


def _padded(stored: dict[str, Tensor]) -> dict[str, Tensor]:
    """A graph cut or padded to `MAX_MATCHES` nodes; padding has labels -1 and count says where it begins."""
    count = min(len(stored["nodes"]), MAX_MATCHES)
    nodes = torch.zeros(MAX_MATCHES, NODE_FEATURES)
    edges = torch.zeros(MAX_MATCHES, NEIGHBOURS, EDGE_FEATURES)
    neighbours = torch.zeros(MAX_MATCHES, NEIGHBOURS, dtype=torch.long)
    labels = torch.full((MAX_MATCHES,), -1, dtype=torch.int8)
    nodes[:count], edges[:count] = stored["nodes"][:count], stored["edges"][:count]
    neighbours[:count] = stored["neighbours"][:count].clamp(max=count - 1)
    labels[:count] = stored["labels"][:count]
    return {"nodes": nodes, "edges": edges, "neighbours": neighbours, "labels": labels, "count": torch.tensor(count)}


class MatchFilterModule(Stage):
    """One optimisation step consumes a few judged graphs."""

    def __init__(self, config: MatchFilterConfig) -> None:
        super().__init__()
        self.config = config
        self.filter = MatchFilter()
        self._network_state: dict[str, Tensor] = {}
        if config.initial_weights is not None:
            self.start_from(initial_state(config.initial_weights))

    def start_from(self, state: dict[str, Tensor]) -> None:
        """Takes the network of the descriptor stage."""
        self._network_state = {k: v for k, v in state.items() if not k.startswith("filter.")}
        if self.config.continue_filter:
            found = {k.removeprefix("filter."): v for k, v in state.items() if k.startswith("filter.")}
            if not found:
                raise ValueError("continue_filter: the initial weights hold no match filter; give others, or leave it")
            self.filter.load_state_dict(found)

    def export_state(self) -> dict[str, Tensor]:
        """The network, unchanged, and the filter, its names prefixed with `filter.`."""
        return self._network_state | {f"filter.{k}": v for k, v in self.filter.state_dict().items()}

    def make_dataset(
        self, sources: Sequence[tuple[PairSource, float]], out: Path, photometric: PhotometricConfig
    ) -> GraphDataset:
        """The graphs of the recipe's sources; also sets the scale of the features from the first of them."""
        weights = self._write_network(out)
        matcher, network = GcmMatcher(device="cpu", weights=str(weights)), digest(weights)
        judged = [(source.judged(), weight) for source, weight in sources]
        folder = self.config.cache or out / "graphs"
        strength = photometric.strength * self.config.photometric_strength
        changed = photometric.model_copy(update={"strength": strength})
        cv2.setNumThreads(1)
        dataset = GraphDataset(
            matcher,
            judged,
            self.config.graphs,
            folder,
            seed=self.config.seed,
            photometric=changed,
            network=network,
            astray=self.config.astray,
        )
        if self.config.continue_filter:
            return dataset  # the scale of the features belongs to the filter
        nodes = torch.cat(
            [load["nodes"][: load["count"]] for load in (dataset[i] for i in range(min(40, len(dataset))))]
        )
        self.filter.mean.copy_(nodes.mean(0))
        self.filter.deviation.copy_(nodes.std(0).clamp_min(1e-3))
        return dataset

    def _write_network(self, out: Path) -> Path:
        if not self._network_state:
            raise ValueError("the match filter needs the descriptor stage before it: add that stage to the recipe")
        path = out / "checkpoints" / "match_filter_network.safetensors"
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as temporary:
            save_file({k: v.contiguous() for k, v in self._network_state.items()}, str(temporary))
        return path

    def training_step(self, batch: dict[str, Tensor], batch_index: int) -> Tensor:
        losses, right, known = [], 0.0, 0
        for i in range(len(batch["count"])):
            n = int(batch["count"][i])
            graph = MatchGraph(batch["nodes"][i, :n], batch["neighbours"][i, :n], batch["edges"][i, :n])
            labels = batch["labels"][i, :n].float()
            judged = labels >= 0
            if not judged.any():
                continue
            logits = self.filter(graph)[judged]
            losses.append(functional.binary_cross_entropy_with_logits(logits, labels[judged]))
            right += float(((logits > 0) == (labels[judged] > 0.5)).sum())
            known += int(judged.sum())
        loss = torch.stack(losses).mean() if losses else sum(p.sum() for p in self.filter.parameters()) * 0.0
        assert isinstance(loss, Tensor)
        self.log_dict({"train/loss": loss, "train/accuracy": right / max(known, 1)}, prog_bar=True)
        return loss

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.AdamW(self.filter.parameters(), lr=self.config.learning_rate, weight_decay=1e-3)
        total = self.config.max_steps

        def rate(step: int) -> float:
            return max(0.01, 0.5 * (1 + math.cos(math.pi * min(1.0, step / total)))) * min(1.0, (step + 1) / 50)

        return scheduled(optimizer, rate)
