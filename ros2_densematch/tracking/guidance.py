"""Guided matching between full matches: what is carried on from frame to frame, and when a full match is due.

A guided match looks for the keyframe's points only where the frame before says that they are (`matchers.prior`), and
runs no network. A full match is made after gaps, after a number of guided frames as a check, and whenever the guided
one has too little support, covers too little, or fits badly.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ros2_densematch.geometry.correspondences import Correspondences
from ros2_densematch.matchers.base import Encoding
from ros2_densematch.matchers.prior import Prior
from ros2_densematch.tracking.attempt import Attempt
from ros2_densematch.tracking.keyframe import Keyframe
from ros2_densematch.tracking.policy import covered_cells

_GAP_NS = 250_000_000  # after a longer one the frame before says little about this one
# what a guided match must keep of the best one against its keyframe; below that the policy makes a new keyframe first
_LEAST_INLIERS, _LEAST_CELLS = 0.3, 0.35
_LEAST_RATIO = 0.5  # of its matches that must agree
_MOST_SIGMA_PX = 1.2  # of their residuals


@dataclass(frozen=True, eq=False)
class Guide:
    """What the next frame can be guided by.

    Attributes:
        keyframe_id: keyframe that is followed.
        previous: encoding of the frame before.
        stamp_ns: its time.
        matches: of the keyframe with the frame before, those that agree; None where that frame is the keyframe.
        since_full: guided frames since the last full match, of any keyframe.
        inliers, cells: the most that a guided match against this keyframe reached.
    """

    keyframe_id: int
    previous: Encoding
    stamp_ns: int
    matches: Correspondences | None = None
    since_full: int = 0
    inliers: int = 0
    cells: int = 0

    def after(self, attempt: Attempt) -> Guide:
        """What the frame after a committed one is guided by."""
        keyframe, found = attempt.keyframe, attempt.found
        same, guided = keyframe.id == self.keyframe_id, attempt.guided
        counts = same and guided
        return Guide(
            keyframe.id,
            attempt.view.encoding,
            attempt.view.frame.stamp_ns,
            attempt.matches.select(found.inliers),
            self.since_full + 1 if guided else 0,
            max(self.inliers if same else 0, attempt.inliers if guided else 0),
            max(self.cells if counts else 0, _cells(attempt) if guided else 0),
        )

    def at_keyframe(self, keyframe: Keyframe) -> Guide:
        """What the frame after a new keyframe is guided by."""
        return Guide(keyframe.id, keyframe.query, keyframe.stamp_ns, since_full=self.since_full)

    def prior(self) -> Prior:
        """The matches of the frame before, carried on."""
        assert self.matches is not None
        return Prior.from_previous(self.matches, self.previous)

    def due(self, keyframe: Keyframe, stamp_ns: int, interval: int) -> str:
        """Why the frame at `stamp_ns` needs a full match against `keyframe` whatever it shows, in words; "" = it needs
        none.

        Args:
            interval: guided frames after which a full match is made as a check; 0 = never.
        """
        if keyframe.id != self.keyframe_id:
            return "another keyframe"
        gap = stamp_ns - self.stamp_ns
        if gap > _GAP_NS:
            return f"a gap of {1e-9 * gap:.2f} s"
        if interval and self.since_full >= interval:
            return f"a check after {self.since_full} guided frames"
        return ""

    def weakness(self, attempt: Attempt, min_inliers: int) -> str:
        """Why a guided match does not do, in words; "" = it does."""
        found, inliers = attempt.found, attempt.inliers
        if not found.ok:
            return "the guided one gave no pose"
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


def prior_at_rest(points: NDArray[np.float32], keyframe: Keyframe) -> Prior:
    """For the frame right after a keyframe: all its `points` (N, 2) and the known ones of its structure, unmoved."""
    structure = keyframe.structure
    anchors = np.zeros((0, 2)) if structure is None else structure.xy[structure.known]
    xy = np.concatenate([anchors, points.astype(np.float64)])
    return Prior.at_rest(xy[np.isfinite(xy).all(1)], keyframe.query)


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
