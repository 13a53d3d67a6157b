"""What matches say about themselves: forward and backward, and over three views. None of it is an accuracy: matches
that are wrong in the same way in every direction agree with each other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.spatial import cKDTree

from ros2_densematch.arrays import Float64, Image
from ros2_densematch.geometry.correspondences import Correspondences
from ros2_densematch.matchers.base import Matcher

NEAR_PX = 4.0  # a match is carried on by one that begins this near; between them the motion counts as the same
_MOST = 5000  # matches a pair


@dataclass(frozen=True, eq=False)
class Consistency:
    """Of one triple of frames.

    Attributes:
        back_px: (N,) how far each match a -> b ends from its start when b -> a carries it back; infinite where no match
            begins near its end.
        third_px: (N,) distance in c of the ways a -> b -> c and a -> c; infinite where one of them is not known.
        forward: number of matches a -> b.
    """

    back_px: Float64
    third_px: Float64
    forward: int


def consistency(matcher: Matcher, triple: Sequence[Image]) -> Consistency:
    """Matches three frames a, b, c with each other and compares the ways.

    Sundaram et al., "Dense point trajectories by GPU-accelerated large displacement optical flow", ECCV 2010, section 3
    (forward and backward); Zhou et al., "Learning dense correspondence via 3D-guided cycle consistency", CVPR 2016
    (cycles over several views).
    """
    as_reference = [matcher.encode(image, reference=True) for image in triple]
    as_query = as_reference
    if matcher.reference_encoding_differs:
        as_query = [matcher.encode(image) for image in triple]

    def match(i: int, j: int) -> Correspondences:
        return matcher.match(as_reference[i], as_query[j], max_matches=_MOST, seed=0)

    forward = match(0, 1)
    start, end = forward.reference_xy.astype(np.float64), forward.query_xy.astype(np.float64)
    returned = carried(end, match(1, 0))
    two_steps, one_step = carried(end, match(1, 2)), carried(start, match(0, 2))
    return Consistency(_distance(returned, start), _distance(two_steps, one_step), len(start))


def carried(xy: Float64, matches: Correspondences) -> Float64:
    """Where points (N, 2) of the reference go in the query, by the motion of the nearest match that begins within
    `NEAR_PX`; NaN where there is none."""
    if not len(matches) or not len(xy):
        return np.full((len(xy), 2), np.nan)
    start, end = matches.reference_xy.astype(np.float64), matches.query_xy.astype(np.float64)
    distance, nearest = cKDTree(start).query(xy)
    there = xy + (end - start)[nearest]
    there[distance > NEAR_PX] = np.nan
    return np.asarray(there, np.float64)


def _distance(a: Float64, b: Float64) -> Float64:
    return np.asarray(np.nan_to_num(np.linalg.norm(a - b, axis=1), nan=np.inf), np.float64)
