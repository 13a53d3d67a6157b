"""Which images of a collection show the same place: the descriptors of their encodings, pooled.

Jegou, Douze, Schmid and Perez, "Aggregating local descriptors into a compact image representation", CVPR 2010, section
3 (VLAD), with a vocabulary of the collection's own descriptors; normalised word by word as in Arandjelovic and
Zisserman, "All about VLAD", CVPR 2013, section 3.1. No weights are needed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np

from ros2_densematch.arrays import Float32
from ros2_densematch.matchers.encoding import Encoding

_WORDS = 64
_SAMPLE = 20_000  # descriptors that the vocabulary is made from
# Where encodings keep their descriptors, (N, C), the strongest first where they have an order, or a map (C, h, w).
_SETS = ("keypoint_descriptors", "descriptors")
_MAPS = ("features",)


def local_descriptors(encoding: Encoding, *, limit: int = 500) -> Float32:
    """Descriptors (N, C) of length 1 that an encoding holds, at most `limit`.

    Raises:
        ValueError: this matcher's encodings hold none.
    """
    for name in (*_SETS, *_MAPS):
        value = getattr(encoding.data, name, None)
        if value is None or not hasattr(value, "shape"):
            continue
        array = _array(value)
        if name in _MAPS:
            array = np.moveaxis(array.reshape(array.shape[-3:]), 0, -1)
        flat = array.reshape(-1, array.shape[-1])
        flat = flat[:limit] if name == _SETS[0] else flat[:: max(-(-len(flat) // limit), 1)]
        length = np.linalg.norm(flat, axis=1, keepdims=True)
        return np.asarray(flat[length[:, 0] > 0] / length[length[:, 0] > 0], np.float32)
    raise ValueError(f"encodings of {encoding.matcher} hold no descriptors to retrieve with: choose another matcher")


def pooled(sets: Sequence[Float32], *, words: int = _WORDS, seed: int = 0) -> Float32:
    """One vector (len(sets), words C) of length 1 for each image from its descriptors (N, C); zeros without any."""
    if not any(len(s) for s in sets):
        return np.zeros((len(sets), 1), np.float32)
    everything = np.concatenate([s for s in sets if len(s)])
    random = np.random.default_rng(seed)
    sample = everything[random.permutation(len(everything))[:_SAMPLE]]
    words = min(words, len(sample))
    cv2.setRNGSeed(seed)
    criteria = (cv2.TERM_CRITERIA_MAX_ITER + cv2.TERM_CRITERIA_EPS, 20, 1e-3)
    centres = np.asarray(cv2.kmeans(sample, words, None, criteria, 1, cv2.KMEANS_PP_CENTERS)[2], np.float32)  # type: ignore[call-overload]
    vectors = np.zeros((len(sets), words, centres.shape[1]), np.float32)
    for vector, descriptors in zip(vectors, sets, strict=True):
        if not len(descriptors):
            continue
        nearest = np.argmax(descriptors @ centres.T - 0.5 * (centres**2).sum(1), axis=1)
        np.add.at(vector, nearest, descriptors - centres[nearest])
        vector /= np.maximum(np.linalg.norm(vector, axis=1, keepdims=True), 1e-12)
    flat = vectors.reshape(len(sets), -1)
    return np.asarray(flat / np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), 1e-12), np.float32)


def nearest_pairs(vectors: Float32, count: int) -> list[tuple[int, int]]:
    """Pairs (i, j), i < j, of which one is among the `count` images most like the other.

    Args:
        vectors: (I, D), of length 1; zeros for an image that is like none.
        count: at least 1.
    """
    likeness = vectors @ vectors.T
    np.fill_diagonal(likeness, -np.inf)
    blank = ~vectors.any(axis=1)
    likeness[blank], likeness[:, blank] = -np.inf, -np.inf
    best = np.argsort(-likeness, axis=1, kind="stable")[:, : min(count, len(vectors) - 1)]
    pairs = {(min(i, int(j)), max(i, int(j))) for i, row in enumerate(best) for j in row if likeness[i, j] > -np.inf}
    return sorted(pairs)


def _array(value: Any) -> Float32:
    return np.asarray(value.detach().float().cpu().numpy() if hasattr(value, "detach") else value, np.float32)
