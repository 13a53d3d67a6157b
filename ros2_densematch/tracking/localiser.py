"""Localises a frame against a keyframe, without changing either."""

from __future__ import annotations

from dataclasses import replace

from ros2_densematch.geometry.correspondences import Correspondences
from ros2_densematch.geometry.relative_pose import Scale
from ros2_densematch.tracking.attempt import Attempt
from ros2_densematch.tracking.config import TrackerConfig
from ros2_densematch.tracking.keyframe import Keyframe
from ros2_densematch.tracking.localisation import localise
from ros2_densematch.tracking.matching import Matching
from ros2_densematch.tracking.near import localise_near
from ros2_densematch.tracking.refinement import Float
from ros2_densematch.tracking.state import State
from ros2_densematch.tracking.turning import Pair
from ros2_densematch.tracking.view import View


class Localiser:
    """Localises one frame against keyframes.

    Args:
        matching: of the frame.
        config: of the tracker.
    """

    def __init__(self, matching: Matching, config: TrackerConfig) -> None:
        self.matching = matching
        self._config = config

    def attempt(
        self,
        state: State,
        view: View,
        keyframe: Keyframe,
        predictions: list[Float],
        matches: Correspondences | None = None,
        *,
        guided: bool = False,
    ) -> Attempt:
        """Localises a frame against a keyframe.

        Args:
            state: how the camera turned until now, and whether lengths are metric.
            view, keyframe: both with a camera.
            predictions: (4, 4) guesses of T_frame_from_keyframe in map units.
            matches: where they were made already; None makes a full match.
            guided: these come from a guided match.
        """
        if matches is None:
            matches = self.matching.match(keyframe.reference, view.encoding)
        turning, scale = state.turning, state.segments.scale
        first = self._at(turning.expected(view, keyframe), matches, predictions, scale, guided=guided)
        if not first.found.ok:
            return first
        pair, moved = turning.measured(first.pair, matches, first.found)
        if not moved:
            return replace(first, view=pair.view, keyframe=pair.keyframe)
        guesses = [first.found.T_frame_from_keyframe] if first.found.has_length else predictions
        again = self._at(pair, matches, guesses, scale, guided=guided)
        return again if again.found.ok else first

    def _at(
        self, pair: Pair, matches: Correspondences, predictions: list[Float], scale: Scale, *, guided: bool
    ) -> Attempt:
        """With the cameras as they are."""
        structure, camera, config = pair.keyframe.structure, pair.view.camera, self._config
        assert structure is not None
        assert camera is not None
        # measured depth does not drift: there the bound would only cost frames
        bound = float("inf") if scale is Scale.METRIC else config.max_rotation_std_deg
        found = None
        if self.matching.can_guide:
            found = localise_near(
                matches,
                structure,
                camera,
                min_inliers=config.min_inliers,
                max_rotation_std_deg=bound,
                predictions=predictions,
                config=config.pose,
            )
        if found is None:
            found = localise(
                matches,
                structure,
                camera,
                min_inliers=config.min_inliers,
                max_rotation_std_deg=bound,
                predictions=predictions,
                config=config.pose,
                seed=config.seed,
                # a wrong first baseline would stay in all that follows
                thorough=not guided or not structure.known.any(),
            )
        return Attempt(pair.view, replace(pair.keyframe, structure=found.structure), matches, found, guided)
