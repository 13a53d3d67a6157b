"""Runs one matcher over the pairs of a data set and stores what it says; pairs that are stored already are left out."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from ros2_densematch.evaluation.datasets.base import Dataset, Pair
from ros2_densematch.evaluation.predictions.entries import Entry
from ros2_densematch.evaluation.predictions.images import MissingImageError, Seeing, read_seen
from ros2_densematch.evaluation.predictions.memory import PeakMemory
from ros2_densematch.evaluation.predictions.store import Prediction, PredictionStore
from ros2_densematch.evaluation.protocols import Protocol
from ros2_densematch.matchers.base import Encoding, Matcher

_KEPT = 8  # encodings: lists often name one image in neighbouring lines


@dataclass(frozen=True)
class Exported:
    """What an export did: pairs found stored, matched now, without a prediction, and damaged files replaced."""

    stored: int = 0
    matched: int = 0
    missing: int = 0
    replaced: int = 0
    stopped: bool = False


def export(
    dataset: Dataset,
    protocol: Protocol,
    entry: Entry,
    store: PredictionStore,
    *,
    advance: Callable[[], None] = lambda: None,
    stop: Callable[[], bool] = lambda: False,
) -> Exported:
    """Matches every pair that the store does not hold.

    Args:
        dataset: the pairs.
        protocol: size of the images and largest number of matches.
        entry: the matcher.
        store: where predictions go.
        advance: called after each pair.
        stop: asked before each pair whether to end here.
    """
    runner: _Runner | None = None
    memory = PeakMemory()
    stored = matched = missing = replaced = 0
    for index, pair in enumerate(dataset.pairs):
        if stop():
            return Exported(stored, matched, missing, replaced, stopped=True)
        if store.read(index, pair.name) is not None:
            stored += 1
            advance()
            continue
        replaced += store.has_file(index)
        if runner is None:
            memory = PeakMemory()
            runner = _Runner(entry, protocol, keep_warp=dataset.task == "dense")
        try:
            store.write(index, runner.predict(pair))
            matched += 1
        except MissingImageError as error:
            store.write_missing(index, pair.name, str(error))
            missing += 1
        advance()
    if matched:
        store.write_cost({"peak_memory_mb": memory.peak_mb(), "device": str(getattr(runner, "device", "cpu"))})
    return Exported(stored, matched, missing, replaced)


class _Runner:
    """A loaded matcher with the encodings that the next pairs may need."""

    def __init__(self, entry: Entry, protocol: Protocol, *, keep_warp: bool):
        self._matcher: Matcher = entry.load()
        self._rule, self._keep_warp = protocol.images, keep_warp
        self._most = None if entry.own_limit else protocol.max_matches
        self._encodings: OrderedDict[tuple[Path, int, bool], tuple[Encoding, Seeing]] = OrderedDict()
        self.device = getattr(self._matcher, "device", "cpu")

    def predict(self, pair: Pair) -> Prediction:
        """The prediction of a pair. A matcher that gives up on it is recorded with its reason: the pair has failed.

        Raises:
            MissingImageError: an image is missing or damaged.
        """
        timings = {"encode": 0.0, "images": 0.0}
        try:
            reference, seeing0 = self._encode(pair.reference, pair.turns[0], True, timings)
            query, seeing1 = self._encode(pair.query, pair.turns[1], False, timings)
            begin = time.perf_counter()
            found = self._matcher.match(reference, query, max_matches=self._most, seed=0)
            timings["match"] = 1e3 * (time.perf_counter() - begin)
        except MissingImageError:
            raise
        except (ValueError, RuntimeError, cv2.error) as error:
            none = np.zeros((0, 2), np.float32)
            words = " ".join(str(error).split()) or type(error).__name__
            seen = zip((pair.reference, pair.query), pair.turns, strict=True)
            seeing0, seeing1 = (read_seen(path, self._rule, turns)[1] for path, turns in seen)
            return Prediction(pair.name, none, none, none[:, 0], None, float("nan"), (seeing0, seeing1), error=words)
        warp = found.warp if self._keep_warp else None
        return Prediction(
            pair=pair.name,
            reference_xy=found.reference_xy,
            query_xy=found.query_xy,
            score=found.score,
            precision=found.precision,
            overlap=float(found.overlap),
            seeing=(seeing0, seeing1),
            warp_xy=None if warp is None else warp.xy,
            warp_certainty=None if warp is None else warp.certainty,
            timings_ms=timings,
        )

    def _encode(self, path: Path, turns: int, reference: bool, timings: dict[str, float]) -> tuple[Encoding, Seeing]:
        key = (path, turns, reference and self._matcher.reference_encoding_differs)
        if key not in self._encodings:
            image, seeing = read_seen(path, self._rule, turns)
            begin = time.perf_counter()
            encoding = self._matcher.encode(image, reference=key[2])
            timings["encode"] += 1e3 * (time.perf_counter() - begin)
            timings["images"] += 1
            self._encodings[key] = encoding, seeing
            if len(self._encodings) > _KEPT:
                self._encodings.popitem(last=False)
        self._encodings.move_to_end(key)
        return self._encodings[key]
