"""Guided matching between full matches: what is carried on from frame to frame, and when a full match is due.

A guided match looks for the keyframe's points only where the frame before says that they are (`matchers.prior`), and
runs no network. A full match is made after gaps, after a number of guided frames as a check, and whenever the guided
one has too little support, covers too little, or fits badly.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ros2_densematch.geometry.correspondences import Correspondences
from ros2_densematch.matchers.base import Encoding
from ros2_densematch.matchers.common.local_affine import estimate_local_affine, nearest_matches
from ros2_densematch.matchers.prior import Prior
from ros2_densematch.tracking.attempt import Attempt
from ros2_densematch.tracking.background import Pending
from ros2_densematch.tracking.keyframe import Keyframe
from ros2_densematch.tracking.policy import covered_cells

# After a longer gap than the first the frame before says little about this one, and a guided match has to show that it
# found many of its points again; after one longer than the second it says nothing.
_GAP_NS, _LONG_GAP_NS = 250_000_000, 1_000_000_000
_USUAL_NS, _MOTION_PX = 33_333_333, 12.0  # time between two frames of a camera, and how far a point moves meanwhile
_LEAST_OVER_GAP, _MOST_FOLLOWED = 0.2, 1000  # of the matches of the frame before, of which so many are followed
# what a guided match must keep of the best one against its keyframe; below that the policy makes a new keyframe first
_LEAST_INLIERS, _LEAST_CELLS = 0.15, 0.35
_LEAST_RATIO = 0.5  # of its matches that must agree
_MOST_SIGMA_PX = 2.0  # of their residuals
# a check: matches nearer than this show the same place; so far apart they contradict each other; that share may
_NEAR_PX, _ELSEWHERE_PX, _MOST_WRONG = 16.0, 4.0, 0.3
_LEAST_COMMON = 20  # fewer common matches say nothing
_LEAST_SUPPORT = 0.5  # of the neighbours that agree on the way from one frame to another


@dataclass(frozen=True, eq=False)
class Check:
    """A full match of an earlier frame that is made beside the tracking.

    Attributes:
        pending: its matches.
        guided: those of the guided match of the same frame that agreed.
        age: guided frames since then.
    """

    pending: Pending
    guided: Correspondences
    age: int = 0


@dataclass(frozen=True, eq=False)
class Guide:
    """What the next frame can be guided by.

    Attributes:
        keyframe_id: keyframe that is followed.
        previous: encoding of the frame before.
        stamp_ns: its time.
        matches: of the keyframe with the frame before, those that agree; None where that frame is the keyframe.
        since_full: guided frames since the last full match, or since the keyframe was made.
        check: a full match that is being made, or None.
        contradicted: why a check that ended now does not let guided matches go on, in words; "" = it does.
        taken: what such a check added, in words; "" = none ended.
        inliers, cells: the most that a guided match against this keyframe reached.
    """

    keyframe_id: int
    previous: Encoding
    stamp_ns: int
    matches: Correspondences | None = None
    since_full: int = 0
    inliers: int = 0
    cells: int = 0
    check: Check | None = None
    contradicted: str = ""
    taken: str = ""

    def after(self, attempt: Attempt) -> Guide:
        """What the frame after a committed one is guided by."""
        keyframe, found = attempt.keyframe, attempt.found
        same, guided = keyframe.id == self.keyframe_id, attempt.guided
        counts = same and guided
        return Guide(
            keyframe_id=keyframe.id,
            previous=attempt.view.encoding,
            stamp_ns=attempt.view.frame.stamp_ns,
            matches=attempt.matches.select(found.inliers),
            since_full=self.since_full + 1 if guided else 0,
            inliers=max(self.inliers if same else 0, attempt.inliers if guided else 0),
            cells=max(self.cells if counts else 0, _cells(attempt) if guided else 0),
            check=replace(self.check, age=self.check.age + 1) if counts and self.check is not None else None,
        )

    def at_keyframe(self, keyframe: Keyframe) -> Guide:
        """What the frame after a new keyframe is guided by."""
        return Guide(keyframe.id, keyframe.query, keyframe.stamp_ns)

    def joined(self, full: Correspondences) -> Guide:
        """With the result of the check: its matches are followed from now on, beside the present ones.

        Where the full match contradicts the guided one of the same frame, nothing is taken over.
        """
        assert self.check is not None
        assert self.matches is not None
        wrong = _contradicting(self.check.guided, full)
        why = f"the check contradicts {100 * wrong:.0f} % of the guided matches" if wrong > _MOST_WRONG else ""
        if why:
            return replace(self, since_full=0, check=None, contradicted=why)
        matches = with_earlier(self.matches, self.check.guided, full)
        added = len(matches) - len(self.matches)
        taken = f"with {added} matches of a check made {self.check.age} frames ago"
        return replace(self, matches=matches, since_full=0, check=None, taken=taken)

    def is_at(self, keyframe: Keyframe) -> bool:
        """Whether the frame before is the keyframe itself."""
        return self.keyframe_id == keyframe.id and self.matches is None

    def prior(self, stamp_ns: int) -> Prior:
        """The matches of the frame before, carried on to a time."""
        assert self.matches is not None
        return Prior.from_previous(self.matches, self.previous, sigma=_motion_px(self.stamp_ns, stamp_ns))

    def due(self, keyframe: Keyframe, stamp_ns: int, interval: int) -> str:
        """Why the frame at `stamp_ns` needs a full match against `keyframe` whatever it shows, in words; "" = it needs
        none.

        Args:
            interval: guided frames after which a full match is made as a check; 0 = never.
        """
        if keyframe.id != self.keyframe_id:
            return "another keyframe"
        if self.contradicted:
            return self.contradicted
        gap = stamp_ns - self.stamp_ns
        if gap >= _LONG_GAP_NS:
            return f"a gap of {1e-9 * gap:.2f} s"
        if interval and self.since_full >= interval:
            return f"a check after {self.since_full} guided frames"
        return ""

    def weakness(self, attempt: Attempt, min_inliers: int) -> str:
        """Why a guided match does not do, in words; "" = it does."""
        found, inliers = attempt.found, attempt.inliers
        if not found.ok:
            return "the guided one gave no pose"
        gap = attempt.view.frame.stamp_ns - self.stamp_ns
        if (
            gap > _GAP_NS
            and self.matches is not None
            and inliers < _LEAST_OVER_GAP * min(len(self.matches), _MOST_FOLLOWED)
        ):
            return f"{inliers} of {len(self.matches)} matches found again after a gap of {1e-9 * gap:.2f} s"
        if inliers < max(2 * min_inliers, _LEAST_INLIERS * self.inliers):
            return f"{inliers} guided matches agree"
        if inliers < _LEAST_RATIO * len(attempt.matches):
            return f"{inliers} of {len(attempt.matches)} guided matches agree"
        cells = _cells(attempt)
        if cells < _LEAST_CELLS * self.cells:
            return f"guided matches cover {100 * cells / self.cells:.0f} % of what they covered at best"
        assert attempt.keyframe.camera is not None
        sigma_px = found.sigma * attempt.keyframe.camera.focal
        if found.has_length and sigma_px > _MOST_SIGMA_PX:
            return f"guided matches fit to {sigma_px:.1f} px only"
        return ""


def with_earlier(now: Correspondences, then: Correspondences, full: Correspondences) -> Correspondences:
    """Matches of a keyframe with a frame, and those of a full match with an earlier one where that frame has none.

    Args:
        now, then: guided matches with the frame and with the earlier one; points keep their reference position.
        full: all matches with the earlier frame. They are carried on by the local maps between the two frames that the
            points of both show; only those are taken whose neighbours agree on the way.
    """
    a, b = _common(then.reference_xy, now.reference_xy)
    if len(a) < _LEAST_COMMON:
        return now
    free = full.select(~np.isin(_cell(full.reference_xy), _cell(now.reference_xy)))
    before, after = then.query_xy[a].astype(np.float64), now.query_xy[b].astype(np.float64)
    way = estimate_local_affine(before, after, at=free.query_xy.astype(np.float64))
    sure = way.confirmed(residual=np.inf, support=_LEAST_SUPPORT)
    inside = (way.predicted >= 0).all(1) & (way.predicted <= np.array(now.query_size) - 1.0).all(1)
    kept = sure & inside
    carried = free.select(kept)
    linear, precision = None, None
    if now.linear is not None and carried.linear is not None:
        linear = np.concatenate([now.linear, (way.linear[kept] @ carried.linear).astype(np.float32)])
    if now.precision is not None and carried.precision is not None:
        precision = np.concatenate([now.precision, carried.precision])
    return replace(
        now,
        reference_xy=np.concatenate([now.reference_xy, carried.reference_xy]),
        query_xy=np.concatenate([now.query_xy, way.predicted[kept].astype(np.float32)]),
        score=np.concatenate([now.score, carried.score]),
        precision=precision,
        linear=linear,
        stillness=None,
        unchanged=None,
    )


def _contradicting(guided: Correspondences, full: Correspondences) -> float:
    """Share of guided matches that a full match of the same frame, where it has one nearby, puts elsewhere."""
    if len(full) < _LEAST_COMMON:
        return 0.0
    near = nearest_matches(full.reference_xy.astype(np.float64), 1, guided.reference_xy.astype(np.float64))
    compared = near.distance[:, 0] < _NEAR_PX
    if compared.sum() < _LEAST_COMMON:
        return 0.0
    index = near.index[compared, 0]
    offset = guided.reference_xy[compared] - full.reference_xy[index]
    if full.linear is not None:
        offset = np.einsum("nij,nj->ni", full.linear[index], offset)
    expected = full.query_xy[index] + offset
    return float(np.mean(np.linalg.norm(guided.query_xy[compared] - expected, axis=1) > _ELSEWHERE_PX))


def _common(a: NDArray[np.float32], b: NDArray[np.float32]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Numbers of the points that two lists (N, 2) and (M, 2) have in common, in both."""
    keys_a, keys_b = (np.ascontiguousarray(xy).view(np.uint64)[:, 0] for xy in (a, b))
    _, first, second = np.intersect1d(keys_a, keys_b, return_indices=True)
    return first, second


def _cell(xy: NDArray[np.float32]) -> NDArray[np.int64]:
    column, row = (xy // _NEAR_PX).astype(np.int64).T
    return np.asarray(row * 65536 + column)


def _motion_px(before_ns: int, now_ns: int) -> float:
    """How far points may have moved between two times: the longer, the further."""
    return _MOTION_PX * max(now_ns - before_ns, _USUAL_NS) / _USUAL_NS


def prior_at_rest(points: NDArray[np.float32], keyframe: Keyframe, stamp_ns: int) -> Prior:
    """For the frame right after a keyframe: all its `points` (N, 2) and the known ones of its structure, unmoved.

    Args:
        stamp_ns: time of that frame.
    """
    structure = keyframe.structure
    anchors = np.zeros((0, 2)) if structure is None else structure.xy[structure.known]
    xy = np.concatenate([anchors, points.astype(np.float64)])
    sigma = _motion_px(keyframe.stamp_ns, stamp_ns)
    return Prior.at_rest(xy[np.isfinite(xy).all(1)], keyframe.query, sigma=sigma)


def prior_backwards(matches: Correspondences) -> Prior:
    """The same matches from the query to the reference."""
    count = len(matches)
    linear = None
    if matches.linear is not None:
        determinant = np.abs(np.linalg.det(matches.linear.astype(np.float64)))
        good = determinant > 1e-3
        matches = matches.select(good)
        count = len(matches)
        assert matches.linear is not None
        linear = np.linalg.inv(matches.linear.astype(np.float64))
    return Prior(
        matches.query_xy.astype(np.float64),
        matches.reference_xy.astype(np.float64),
        np.ones(count),
        linear,
        np.clip(matches.score, 0.0, 1.0).astype(np.float64),
    )


def _cells(attempt: Attempt) -> int:
    return covered_cells(attempt.matches.reference_xy[attempt.found.inliers], attempt.keyframe.size)
