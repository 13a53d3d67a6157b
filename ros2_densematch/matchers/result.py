"""From what a matcher found to its result: the one place where matches are checked, ordered and cut."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ros2_densematch.arrays import Floating
from ros2_densematch.geometry.correspondences import Correspondences, DenseWarp
from ros2_densematch.matchers.encoding import Encoding
from ros2_densematch.matchers.overlap import overlap_of_maps, overlap_of_matches, overlap_of_warp

_NO_CHANCE = 100  # matches near a prior that are no chance


@dataclass(frozen=True)
class RawMatches:
    """What a matcher found, in pixels of the original images, in any order: nothing needs to be checked.

    Attributes:
        reference_xy: (N, 2).
        query_xy: (N, 2).
        score: (N,), larger is better; beyond [0, 1] it is clipped.
        precision: (N, 3) upper triangle of the inverse covariance of `query_xy` in px^-2, or None.
        linear: (N, 2, 2) local affine maps from the reference to the query, or None.
        warp: the dense warp, masks not applied, or None.
        make_warp: makes it instead when somebody first looks at it; it is given which of the matches (N,) count.
        seen: (reference_xy, query_xy), (M, 2) each: the matches that the overlap is measured on, where the matcher had
            more than it returns.
        confirmed: every match agrees with its neighbours, and `linear` is theirs: the overlap follows from the maps.
    """

    reference_xy: Floating
    query_xy: Floating
    score: Floating
    precision: Floating | None = None
    linear: Floating | None = None
    warp: DenseWarp | None = None
    make_warp: Callable[[NDArray[np.bool_]], DenseWarp] | None = None
    seen: tuple[Floating, Floating] | None = None
    confirmed: bool = False

    @staticmethod
    def none() -> RawMatches:
        """No matches."""
        return RawMatches(np.zeros((0, 2)), np.zeros((0, 2)), np.zeros(0))


def best_first(score: Floating, most: int | None) -> NDArray[np.intp]:
    """Indices of the best scores, the best first; equal ones stay in order.

    Args:
        score: (N,).
        most: at most this many; None for all.
    """
    order = np.argsort(-score, kind="stable")
    return order if most is None else order[:most]


def usable(reference: Encoding, query: Encoding, reference_xy: Floating, query_xy: Floating) -> NDArray[np.bool_]:
    """Which pairs (N,) are finite, lie inside both images and are not masked."""
    kept = np.asarray(np.isfinite(reference_xy).all(1) & np.isfinite(query_xy).all(1), np.bool_)
    for encoding, xy in ((reference, reference_xy), (query, query_xy)):
        at = xy[kept].astype(np.float32)
        inside = (at >= -0.5).all(1) & (at <= np.array(encoding.size, np.float32) - np.float32(0.5)).all(1)
        inside[inside] = encoding.allows(at[inside])
        kept[kept] = inside
    return kept


def finished(raw: RawMatches, reference: Encoding, query: Encoding, max_matches: int | None) -> Correspondences:
    """The result: finite, inside the images, not masked, best first, at most `max_matches`, in single precision."""
    kept = usable(reference, query, raw.reference_xy, raw.query_xy) & np.isfinite(raw.score)
    if raw.precision is not None:
        kept &= np.isfinite(raw.precision).all(1)
    index = np.flatnonzero(kept)
    order = index[best_first(raw.score[index], max_matches)]
    warp = _warp(raw, kept, reference, query)
    return Correspondences(
        reference_xy=raw.reference_xy[order].astype(np.float32),
        query_xy=raw.query_xy[order].astype(np.float32),
        score=np.clip(raw.score[order], 0.0, 1.0).astype(np.float32),
        overlap=_overlap(raw, kept, reference, query),
        reference_size=reference.size,
        query_size=query.size,
        precision=None if raw.precision is None else raw.precision[order].astype(np.float32),
        warp=warp,
        linear=None if raw.linear is None else raw.linear[order].astype(np.float32),
    )


def _overlap(raw: RawMatches, kept: NDArray[np.bool_], reference: Encoding, query: Encoding) -> float:
    if raw.warp is not None:
        return overlap_of_warp(raw.warp, reference, query)
    if raw.confirmed and raw.linear is not None:
        own, other = raw.reference_xy[kept], raw.query_xy[kept]
        # they agree because they were looked for where they agree: few of them show little
        sure = min(1.0, len(own) / _NO_CHANCE)
        return sure * overlap_of_maps(own, other, raw.linear[kept], reference, query)
    if raw.seen is not None:
        return overlap_of_matches(*raw.seen, reference, query)
    return overlap_of_matches(raw.reference_xy[kept], raw.query_xy[kept], reference, query)


def _warp(raw: RawMatches, kept: NDArray[np.bool_], reference: Encoding, query: Encoding) -> DenseWarp | None:
    if raw.warp is not None:
        return hidden(raw.warp, reference, query)
    make = raw.make_warp
    if make is None:
        return None
    # of the encodings only the masks are kept alive
    own, other = (Encoding(e.matcher, e.size, None, e.mask) for e in (reference, query))
    return DenseWarp.later(lambda: hidden(make(kept), own, other), reference.size, query.size)


def hidden(warp: DenseWarp, reference: Encoding, query: Encoding) -> DenseWarp:
    """The warp without certainty where it is masked, leaves the query image, or leads to a masked pixel."""
    places, targets = warp.positions().reshape(-1, 2), warp.xy.reshape(-1, 2)
    certainty = warp.certainty * usable(reference, query, places, targets).reshape(warp.certainty.shape)
    return DenseWarp(warp.xy, certainty, warp.reference_size, warp.query_size)
