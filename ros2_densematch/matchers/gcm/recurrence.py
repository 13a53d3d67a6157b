"""How often what a match shows recurs: in its own image, and elsewhere in the other one.

Where a descriptor has a twin far away, a match that looks perfect may be the neighbouring window.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ros2_densematch.arrays import Float64
from ros2_densematch.matchers.gcm.encoding import GcmEncoding
from ros2_densematch.matchers.gcm.network import DESCRIPTOR_STRIDE
from ros2_densematch.nn.side_by_side import side_by_side

RIVALS = 256  # the most salient key points of an image stand for all of it
_BLOCK = 512  # matches whose cosines stay in the cache of a core
_APART_PX = 24.0  # a rival farther away than this is another thing


class Recurrence(NamedTuple):
    """Cosines (N,): of the two ends of a match, and of each end with its best rival.

    Attributes:
        own: of the two ends with each other.
        reference, query: of an end with the best rival in its own image.
        forward: of the reference end with the best rival in the query image, `backward` the other way round.
    """

    own: Float64
    reference: Float64
    query: Float64
    forward: Float64
    backward: Float64


def recurrence(reference: GcmEncoding, query: GcmEncoding, reference_xy: Float64, query_xy: Float64) -> Recurrence:
    """Of matches (N, 2), (N, 2) in working pixels."""
    first, second = _cells(reference, reference_xy), _cells(query, query_xy)
    own, back = _best_rivals(reference, reference_xy, first, second)
    forth, theirs = _best_rivals(query, query_xy, first, second)
    return Recurrence(_array((first * second).sum(1)), own, theirs, forth, back)


def _cells(encoding: GcmEncoding, xy: Float64) -> Tensor:
    """(N, C) descriptors of the cells that hold these pixels: whole rows are cheaper to read than to interpolate."""
    height, width = encoding.descriptors.shape[:2]
    cell = np.floor((xy + 0.5) / DESCRIPTOR_STRIDE).astype(np.int64)
    index = cell[:, 1].clip(0, height - 1) * width + cell[:, 0].clip(0, width - 1)
    rows = encoding.descriptors.reshape(height * width, -1)
    return rows[torch.from_numpy(index).to(rows.device)]


def _best_rivals(encoding: GcmEncoding, xy: Float64, *ends: Tensor) -> list[Float64]:
    """For each set of descriptors (N, C) the cosines (N,) with the most similar of the image's first key points that
    lies away from `xy` (N, 2); -1 without one."""
    places, rivals = encoding.keypoints[:RIVALS], encoding.keypoint_descriptors[:RIVALS].T.contiguous()
    if len(places) == 0 or len(xy) == 0:
        return [np.full(len(xy), -1.0) for _ in ends]
    middle = places.mean(0)
    at, places = torch.from_numpy(xy).to(places) - middle, places - middle
    one = at.new_ones(len(at), 1)
    # squared distances as one product: ten times as fast as `cdist`
    here = torch.cat([at, (at**2).sum(1, keepdim=True), one], 1)
    there = torch.cat([-2 * places, one.new_ones(len(places), 1), (places**2).sum(1, keepdim=True)], 1).T.contiguous()

    def part(rows: slice) -> list[Tensor]:
        # far below any cosine where a rival is too near, nothing elsewhere; adding it is faster than a mask
        penalty = (here[rows] @ there).sub_(_APART_PX**2).clamp_(max=0).mul_(100.0)
        return [(end[rows] @ rivals).add_(penalty).amax(1) for end in ends]

    parts = side_by_side(part, [slice(start, start + _BLOCK) for start in range(0, len(at), _BLOCK)])
    return [_array(torch.cat(found).clamp(-1, 1)) for found in zip(*parts, strict=True)]


def _array(values: Tensor) -> Float64:
    return np.asarray(values.cpu().numpy(), np.float64)
