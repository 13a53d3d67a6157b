"""Between the contract's pixels and those of guidance: a prior in, matches with their scores out."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ros2_densematch.arrays import Float64
from ros2_densematch.matchers.common.working_image import to_original
from ros2_densematch.matchers.gcm.encoding import GcmEncoding
from ros2_densematch.matchers.gcm.guided import Guided, Start, guide
from ros2_densematch.matchers.gcm.guided_score import GuidedScore
from ros2_densematch.matchers.prior import Prior


class GuidedMatches(NamedTuple):
    """N matches in pixels of the original images.

    Attributes:
        reference_xy: (N, 2), for a point of the prior exactly its own.
        query_xy: (N, 2).
        score: (N,) chance that each is right.
        linear: (N, 2, 2) local affine maps.
        evidence: the same matches in working pixels.
    """

    reference_xy: Float64
    query_xy: Float64
    score: Float64
    linear: Float64
    evidence: Guided

    def select(self, index: NDArray[np.bool_] | NDArray[np.intp]) -> GuidedMatches:
        """The matches that a mask or an index array picks."""
        return GuidedMatches(
            self.reference_xy[index],
            self.query_xy[index],
            self.score[index],
            self.linear[index],
            self.evidence.select(index),
        )


def guided_matches(
    reference: GcmEncoding, query: GcmEncoding, prior: Prior, score: GuidedScore, min_score: float
) -> GuidedMatches:
    """Matches near where the prior expects them, those with at least `min_score`."""
    found = guide(reference.guided, query.guide, start_of(reference, query, prior))
    chance = score.chance(found)
    kept = chance >= min_score
    found, chance = found.select(kept), chance[kept]
    linear = found.linear * reference.scale[None, None, :] / query.scale[None, :, None]
    return GuidedMatches(
        to_original(found.reference_xy, reference.scale),
        to_original(found.query_xy, query.scale),
        chance,
        linear,
        found,
    )


def start_of(reference: GcmEncoding, query: GcmEncoding, prior: Prior) -> Start:
    """The prior in working pixels."""
    count = len(prior)
    identity = np.broadcast_to(np.eye(2), (count, 2, 2))
    linear = identity if prior.linear is None else prior.linear
    previous: GcmEncoding | None = None if prior.previous is None else prior.previous.data
    nowhere = np.full((count, 2), np.nan)
    before = linear if prior.previous_linear is None else prior.previous_linear
    own = reference.scale[None, None, :]
    before_scale = query.scale if previous is None else previous.scale
    return Start(
        reference_xy=_working(prior.reference_xy, reference.scale),
        query_xy=_working(prior.query_xy, query.scale),
        linear=linear * query.scale[None, :, None] / own,
        sigma=prior.sigma * float(query.scale.mean()),
        before=np.full(count, np.nan) if prior.score is None else prior.score,
        previous=None if previous is None else previous.guide,
        previous_xy=nowhere if prior.previous_xy is None else _working(prior.previous_xy, before_scale),
        previous_linear=before * before_scale[None, :, None] / own,
    )


def _working(xy: Float64, scale: Float64) -> Float64:
    return (xy + 0.5) * scale - 0.5
