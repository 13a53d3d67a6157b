"""Matching of given key points through a dense warp.

The released `match_keypoints` of DKM and RoMa: key points of the reference are carried by the warp; pairs that are
mutual nearest neighbours, certain and close are matches.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ros2_densematch.matchers.common.dense.result import DenseResult, to_normalised
from ros2_densematch.nn.grid import sample_features


@dataclass(frozen=True)
class KeypointMatches:
    """Matches between two lists of key points.

    Attributes:
        index: intp (N, 2), index of the reference and of the query key point.
        certainty: float32 (N,), of the warp at the reference key point.
    """

    index: NDArray[np.intp]
    certainty: NDArray[np.float32]


def match_keypoints(
    result: DenseResult,
    reference_size: tuple[int, int],
    query_size: tuple[int, int],
    reference_xy: NDArray[np.floating[Any]],
    query_xy: NDArray[np.floating[Any]],
    *,
    min_certainty: float = 0.0,
    max_distance: float = 0.005,
) -> KeypointMatches:
    """Mutual nearest neighbours between carried and given key points.

    Args:
        result: reference to query.
        reference_size: (width, height) of the original reference image.
        query_size: (width, height) of the original query image.
        reference_xy: (N, 2) pixels of the original reference image.
        query_xy: (M, 2) pixels of the original query image.
        min_certainty: only more certain places match.
        max_distance: largest distance in the query image, normalised: its sides are 2 long.

    Raises:
        ValueError: key points of another shape.
    """
    from scipy.spatial import cKDTree

    for name, xy in (("reference_xy", reference_xy), ("query_xy", query_xy)):
        if xy.ndim != 2 or xy.shape[1] != 2:
            raise ValueError(f"{name} must be (N, 2) pixels, got shape {xy.shape}")
    if len(reference_xy) == 0 or len(query_xy) == 0:
        return KeypointMatches(np.zeros((0, 2), np.intp), np.zeros(0, np.float32))
    layers = torch.cat([result.flow, result.certainty[..., None]], 2).permute(2, 0, 1)[None].float()
    at = torch.from_numpy(to_normalised(reference_xy, reference_size)).to(layers.device)
    carried = sample_features(layers, at.T[None, :, None])[0, :, 0].T.cpu().numpy()
    positions, certainty = carried[:, :2], carried[:, 2]
    targets = to_normalised(query_xy, query_size)
    distance, nearest = (np.asarray(found) for found in cKDTree(targets).query(positions))
    back = np.asarray(cKDTree(positions).query(targets)[1])
    keep = (back[nearest] == np.arange(len(positions))) & (certainty > min_certainty) & (distance < max_distance)
    chosen = np.flatnonzero(keep)
    return KeypointMatches(np.stack([chosen, nearest[chosen]], 1).astype(np.intp), certainty[chosen])
