"""From two encodings to candidate matches with the evidence for each: coarse, refined, grown."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ros2_densematch.matchers.gcm.coarse import mutual_nearest_neighbours
from ros2_densematch.matchers.gcm.encoding import CELL, GcmEncoding
from ros2_densematch.matchers.gcm.growth import predict, search_descriptors
from ros2_densematch.matchers.gcm.local_affine import estimate_local_affine
from ros2_densematch.matchers.gcm.refinement import refine

FloatArray = NDArray[np.float64]

# A refined match whose patches correlate less than this is dropped at once: of such matches hardly any is right, and
# they would spoil the local maps of their neighbours.
SEED_CORRELATION = 0.6
GROWN_CORRELATION = 0.6
# A seed may grow when its neighbours place it within this many pixels.
_GROW_RESIDUAL = 6.0
_LEAST_SEEDS = 8
# more than elsewhere, because many coarse matches are wrong
_COARSE_NEIGHBOURS = 16


@dataclass
class Candidates:
    """Candidate matches in working pixels, with what is known about each.

    Attributes:
        reference_xy: (N, 2).
        query_xy: (N, 2).
        linear: (N, 2, 2) local affine maps.
        similarity: (N,) cosine of the deep descriptors.
        margin: (N,) lead over the next best descriptor; 0 for grown matches.
        correlation: (N,) of the refined patches.
        information: (N, 3) normalised Gauss-Newton matrix of the refinement.
        moved: (N,) pixels that the refinement moved the match.
        grown: bool (N,).
    """

    reference_xy: FloatArray
    query_xy: FloatArray
    linear: FloatArray
    similarity: FloatArray
    margin: FloatArray
    correlation: FloatArray
    information: FloatArray
    moved: FloatArray
    grown: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.reference_xy)

    @staticmethod
    def empty() -> Candidates:
        z = np.zeros
        return Candidates(z((0, 2)), z((0, 2)), z((0, 2, 2)), z(0), z(0), z(0), z((0, 3)), z(0), np.zeros(0, np.bool_))

    def select(self, index: NDArray[np.bool_] | NDArray[np.intp]) -> Candidates:
        """The candidates that a mask or an index array picks."""
        return Candidates(**{name: value[index] for name, value in vars(self).items()})

    def joined(self, other: Candidates) -> Candidates:
        """These candidates followed by others."""
        return Candidates(**{n: np.concatenate([v, getattr(other, n)]) for n, v in vars(self).items()})


@dataclass(frozen=True)
class Coarse:
    """Mutual matches of key points before refinement, in working pixels; `supported` counts those that their
    neighbours confirm."""

    reference_xy: FloatArray
    query_xy: FloatArray
    linear: FloatArray
    similarity: FloatArray
    margin: FloatArray
    supported: int


def coarse_matches(reference: GcmEncoding, query: GcmEncoding, *, similarity: float) -> Coarse:
    """Mutual nearest neighbours of key points with a cosine above `similarity`, and their local affine maps."""
    mutual = mutual_nearest_neighbours(reference.keypoint_descriptors, query.keypoint_descriptors)
    good = mutual.similarity > similarity
    x0 = _array(reference.keypoints[mutual.first[good]])
    x1 = _array(query.keypoints[mutual.second[good]])
    local = estimate_local_affine(x0, x1, neighbours=_COARSE_NEIGHBOURS)
    confirmed = (local.residual < _GROW_RESIDUAL) & (local.support >= 0.25)
    return Coarse(
        x0,
        x1,
        local.linear,
        _array(mutual.similarity[good]),
        _array(mutual.margin[good]),
        int(confirmed.sum()) if len(x0) > _LEAST_SEEDS else 0,
    )


def refine_coarse(
    reference: GcmEncoding, query: GcmEncoding, coarse: Coarse, *, radius: int, iterations: int
) -> Candidates:
    """Aligns the coarse matches below the pixel and drops those whose patches disagree."""
    if len(coarse.reference_xy) == 0:
        return Candidates.empty()
    inside = _inside(coarse.reference_xy, reference.size) & _inside(coarse.query_xy, query.size)
    tensor = _to(reference)
    refined = refine(
        reference.grey,
        query.grey,
        tensor(coarse.reference_xy),
        tensor(coarse.query_xy),
        tensor(coarse.linear),
        radius=radius,
        iterations=iterations,
    )
    query_xy = _array(refined.query_xy)
    correlation = _array(refined.correlation)
    candidates = Candidates(
        coarse.reference_xy,
        query_xy,
        coarse.linear,
        coarse.similarity,
        coarse.margin,
        correlation,
        _array(refined.information),
        np.linalg.norm(query_xy - coarse.query_xy, axis=1),
        np.zeros(len(query_xy), np.bool_),
    )
    return candidates.select((correlation > SEED_CORRELATION) & inside)


def grow(
    reference: GcmEncoding, query: GcmEncoding, seeds: Candidates, *, radius: int, iterations: int, rounds: int
) -> Candidates:
    """Seeds and what grows from them into free cells of the reference image."""
    everything = seeds
    free = ~np.isnan(reference.anchors[..., 0])
    rows, columns = free.shape
    tensor = _to(reference)
    for _ in range(rounds):
        if len(everything) < _LEAST_SEEDS:
            break
        local = estimate_local_affine(everything.reference_xy, everything.query_xy)
        trusted = everything.select((local.residual < _GROW_RESIDUAL) & (local.support > 0.25))
        if len(trusted) < _LEAST_SEEDS:
            break
        cell = (trusted.reference_xy // CELL).astype(int)
        cell = cell[(cell[:, 0] < columns) & (cell[:, 1] < rows)]
        open_cells = free.copy()
        open_cells[cell[:, 1], cell[:, 0]] = False
        index = np.flatnonzero(open_cells)
        at = reference.anchors.reshape(-1, 2)[index].astype(np.float64)
        local, inside = predict(trusted.reference_xy, trusted.query_xy, at, query.size)
        if not inside.any():
            break
        index, at, linear = index[inside], at[inside], local.linear[inside]
        start, similarity = search_descriptors(
            reference.anchor_descriptors[torch.from_numpy(index).to(reference.grey.device)],
            query.descriptors,
            tensor(local.predicted[inside]),
        )
        refined = refine(
            reference.grey, query.grey, tensor(at), start, tensor(linear), radius=radius, iterations=iterations
        )
        correlation = _array(refined.correlation)
        grown = Candidates(
            at,
            _array(refined.query_xy),
            linear,
            _array(similarity),
            np.zeros(len(at)),
            correlation,
            _array(refined.information),
            np.linalg.norm(_array(refined.query_xy) - local.predicted[inside], axis=1),
            np.ones(len(at), np.bool_),
        ).select((correlation > GROWN_CORRELATION) & _inside(_array(refined.query_xy), query.size))
        if query.allowed is not None and len(grown):
            place = np.round(grown.query_xy).astype(int)
            grown = grown.select(query.allowed[place[:, 1], place[:, 0]])
        everything = everything.joined(grown)
        if len(grown) == 0:
            break
    return everything


def _inside(xy: FloatArray, size: tuple[int, int]) -> NDArray[np.bool_]:
    return np.asarray((xy >= 0).all(1) & (xy <= np.array(size) - 1.0).all(1), np.bool_)


def _to(encoding: GcmEncoding) -> _Converter:
    return _Converter(encoding.grey)


class _Converter:
    """NumPy to tensors of the encoding's device and type."""

    def __init__(self, like: Tensor) -> None:
        self._like = like

    def __call__(self, array: FloatArray) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(array)).to(self._like)


def _array(tensor: Tensor) -> FloatArray:
    return tensor.cpu().numpy().astype(np.float64)
