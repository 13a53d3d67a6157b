"""The matcher as the tracker uses it: its settings, and its time."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ros2_densematch.geometry.correspondences import Correspondences
from ros2_densematch.matchers.base import Encoding, Matcher
from ros2_densematch.matchers.prior import Prior
from ros2_densematch.tracking.background import Background, Pending
from ros2_densematch.tracking.config import TrackerConfig
from ros2_densematch.tracking.frame import Frame
from ros2_densematch.tracking.stopwatch import Stopwatch
from ros2_densematch.tracking.view import View


class Matching:
    """Encodes and matches for one frame.

    Args:
        matcher, config: of the tracker.
        stopwatch: of the frame.
        background: for matches that a later frame needs.
    """

    def __init__(self, matcher: Matcher, config: TrackerConfig, stopwatch: Stopwatch, background: Background) -> None:
        self._matcher = matcher
        self._config = config
        self._stopwatch = stopwatch
        self._background = background

    @property
    def references_differ(self) -> bool:
        """Whether a query's encoding cannot serve as a reference."""
        return self._matcher.reference_encoding_differs

    def view(self, frame: Frame) -> View:
        """The frame, encoded as a query."""
        with self._stopwatch.stage("encode"):
            encoding = self._matcher.encode(frame.image, mask=frame.mask)
        return View(frame, encoding, frame.camera)

    def reference(self, view: View) -> Encoding:
        """Its encoding as a reference; the same one where the matcher makes no difference."""
        if not self.references_differ:
            return view.encoding
        with self._stopwatch.stage("encode"):
            return self._matcher.encode(view.frame.image, reference=True, mask=view.frame.mask)

    def right(self, frame: Frame) -> Encoding:
        """Encoding of the right image of a stereo pair."""
        assert frame.right_image is not None
        with self._stopwatch.stage("encode"):
            return self._matcher.encode(frame.right_image)

    @property
    def can_guide(self) -> bool:
        """Whether matches can be carried on instead of being made anew."""
        return self._config.guided and self._matcher.uses_prior and self._matcher.finds_new_points

    def guide_points(self, encoding: Encoding) -> NDArray[np.float32]:
        """Places (N, 2) of an image that a guided match can follow."""
        with self._stopwatch.stage("match"):
            return self._matcher.guide_points(encoding)

    def guided(self, reference: Encoding, query: Encoding, prior: Prior) -> Correspondences:
        """Matches two encodings near where a prior expects the reference's points; only while `can_guide`."""
        with self._stopwatch.stage("match"):
            return self._matcher.match(
                reference, query, max_matches=self._config.max_matches, seed=self._config.seed, prior=prior
            )

    def match(self, reference: Encoding, query: Encoding, *, wide: bool = True) -> Correspondences:
        """Matches two encodings; `wide` searches for large rotations, zooms and slants, too."""
        with self._stopwatch.stage("match"):
            return self._matched(reference, query, wide=wide)

    def match_later(self, reference: Encoding, query: Encoding) -> Pending:
        """Begins to match two encodings of neighbouring views beside the tracking."""
        return self._background.matches(lambda: self._matched(reference, query, wide=False))

    def waited_for(self, pending: Pending) -> Correspondences:
        """Matches that were begun earlier."""
        with self._stopwatch.stage("match"):
            return pending.result()

    def _matched(self, reference: Encoding, query: Encoding, *, wide: bool) -> Correspondences:
        return self._matcher.match(
            reference, query, max_matches=self._config.max_matches, seed=self._config.seed, wide=wide
        )
