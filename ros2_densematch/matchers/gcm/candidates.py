"""From two encodings to candidate matches with the evidence for each: coarse, then refined."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial import cKDTree
from torch import Tensor

from ros2_densematch.arrays import Float64
from ros2_densematch.matchers.common.local_affine import LocalAffine, estimate_local_affine
from ros2_densematch.matchers.common.nearest_neighbours import mutual_with_margin
from ros2_densematch.matchers.common.patch_alignment import refine
from ros2_densematch.matchers.gcm.config import GcmConfig
from ros2_densematch.matchers.gcm.encoding import GcmEncoding

# fewer matches say nothing about one another
LEAST_SEEDS = 8
# more than elsewhere, because many coarse matches are wrong
_COARSE_NEIGHBOURS = 16
_APART = 4.0  # working pixels: a key point that close to a static match belongs to the same thing


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

    reference_xy: Float64
    query_xy: Float64
    linear: Float64
    similarity: Float64
    margin: Float64
    correlation: Float64
    information: Float64
    moved: Float64
    grown: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.reference_xy)

    @staticmethod
    def empty() -> Candidates:
        z = np.zeros
        return Candidates(
            reference_xy=z((0, 2)),
            query_xy=z((0, 2)),
            linear=z((0, 2, 2)),
            similarity=z(0),
            margin=z(0),
            correlation=z(0),
            information=z((0, 3)),
            moved=z(0),
            grown=np.zeros(0, np.bool_),
        )

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

    reference_xy: Float64
    query_xy: Float64
    linear: Float64
    similarity: Float64
    margin: Float64
    supported: int


def coarse_matches(
    reference: GcmEncoding, query: GcmEncoding, config: GcmConfig, apart_from: Float64 | None = None
) -> Coarse:
    """Mutual nearest neighbours of key points that are alike enough, and their local affine maps.

    Args:
        apart_from: (M, 2) working pixels of both images; key points close to them are left out.
    """
    points, descriptors = [], []
    for encoding in (reference, query):
        kept = _away_from(encoding.keypoints, apart_from)
        points.append(encoding.keypoints[kept])
        descriptors.append(encoding.keypoint_descriptors[kept])
    mutual = mutual_with_margin(*descriptors)
    good = mutual.similarity > config.similarity_threshold
    x0 = array(points[0][mutual.first[good]])
    x1 = array(points[1][mutual.second[good]])
    local = estimate_local_affine(x0, x1, neighbours=_COARSE_NEIGHBOURS)
    return Coarse(
        x0,
        x1,
        local.linear,
        array(mutual.similarity[good]),
        array(mutual.margin[good]),
        int(confirmed(local, config).sum()) if len(x0) > LEAST_SEEDS else 0,
    )


def _away_from(keypoints: Tensor, places: Float64 | None) -> Tensor | slice:
    if places is None or len(places) == 0 or len(keypoints) == 0:
        return slice(None)
    distance, _ = cKDTree(places).query(array(keypoints), distance_upper_bound=_APART)
    return torch.from_numpy(~np.isfinite(distance)).to(keypoints.device)


def confirmed(local: LocalAffine, config: GcmConfig) -> NDArray[np.bool_]:
    """Which matches (N,) their neighbours confirm."""
    return local.confirmed(residual=config.confirmed_residual, support=config.confirmed_support)


def refine_coarse(reference: GcmEncoding, query: GcmEncoding, coarse: Coarse, config: GcmConfig) -> Candidates:
    """Aligns the coarse matches below the pixel and drops those whose patches disagree."""
    if len(coarse.reference_xy) == 0:
        return Candidates.empty()
    within = inside(coarse.reference_xy, reference.size) & inside(coarse.query_xy, query.size)
    tensor = tensors_like(reference)
    refined = refine(
        reference.grey,
        query.grey,
        tensor(coarse.reference_xy),
        tensor(coarse.query_xy),
        tensor(coarse.linear),
        radius=config.radius,
        iterations=config.iterations if config.refinement else 0,
    )
    query_xy = array(refined.query_xy)
    correlation = array(refined.correlation)
    candidates = Candidates(
        reference_xy=coarse.reference_xy,
        query_xy=query_xy,
        linear=coarse.linear,
        similarity=coarse.similarity,
        margin=coarse.margin,
        correlation=correlation,
        information=array(refined.information),
        moved=np.linalg.norm(query_xy - coarse.query_xy, axis=1),
        grown=np.zeros(len(query_xy), np.bool_),
    )
    return candidates.select((correlation > config.seed_correlation) & within)


def inside(xy: Float64, size: tuple[int, int]) -> NDArray[np.bool_]:
    """Whether pixels (N, 2) lie in an image of (width, height), bool (N,)."""
    return np.asarray((xy >= 0).all(1) & (xy <= np.array(size) - 1.0).all(1), np.bool_)


def tensors_like(encoding: GcmEncoding) -> Callable[[Float64], Tensor]:
    """NumPy to tensors of the encoding's device and type."""
    return lambda values: torch.from_numpy(np.ascontiguousarray(values)).to(encoding.grey)


def array(tensor: Tensor) -> Float64:
    """float64 NumPy of a tensor."""
    return tensor.cpu().numpy().astype(np.float64)
