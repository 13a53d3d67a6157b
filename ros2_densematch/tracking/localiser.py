"""Localises a frame against a keyframe, without changing either."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np

from ros2_densematch.arrays import Float64
from ros2_densematch.geometry import poses
from ros2_densematch.geometry.correspondences import Correspondences
from ros2_densematch.geometry.relative_pose import Scale
from ros2_densematch.tracking.attempt import Attempt
from ros2_densematch.tracking.budget import Budget
from ros2_densematch.tracking.config import TrackerConfig
from ros2_densematch.tracking.keyframe import Keyframe
from ros2_densematch.tracking.localisation import localise
from ros2_densematch.tracking.matching import Matching
from ros2_densematch.tracking.near import localise_near
from ros2_densematch.tracking.state import State
from ros2_densematch.tracking.turning import Pair
from ros2_densematch.tracking.view import View

_UPRIGHT_DEG = 20.0  # descriptors of two views turned by less are alike
_STILL_UPRIGHT_NS = 600_000_000  # a camera hardly rolls so far meanwhile
_UPRIGHT_IN_A_HURRY_NS = 2_000_000_000  # the search costs a second, which a lost robot that moves on does not have
_NEARLY = 0.7  # of the parallax that makes a first baseline


class Localiser:
    """Localises one frame against keyframes.

    Args:
        matching: of the frame.
        config: of the tracker.
        budget: of the frame; while it is exceeded, only lost ones are searched for rotations, zooms and slants,
            and the thorough two-view search is made for a first baseline only.
    """

    def __init__(self, matching: Matching, config: TrackerConfig, budget: Budget) -> None:
        self.matching = matching
        self._config = config
        self._budget = budget

    def attempt(
        self,
        state: State,
        view: View,
        keyframe: Keyframe,
        predictions: list[Float64],
        matches: Correspondences | None = None,
        *,
        guided: bool = False,
        wide: bool = True,
    ) -> Attempt:
        """Localises a frame against a keyframe.

        Args:
            state: how the camera turned until now, and whether lengths are metric.
            view, keyframe: both with a camera.
            predictions: (4, 4) guesses of T_frame_from_keyframe in map units.
            matches: where they were made already; None makes a full match.
            guided: these come from a guided match.
            wide: a full match searches for large rotations, zooms and slants, unless a prediction says that there are
                none: that search takes several times as long as the match itself.
        """
        if matches is None:
            wide = (
                wide
                and not (self._budget.exceeded and not state.lost_frames)
                and not (predictions and upright(predictions[0]))
            )
            matches = self.matching.match(keyframe.reference, view.encoding, wide=wide)
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
        self, pair: Pair, matches: Correspondences, predictions: list[Float64], scale: Scale, *, guided: bool
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
            from_scratch = partial(
                localise,
                matches,
                structure,
                camera,
                min_inliers=config.min_inliers,
                max_rotation_std_deg=bound,
                predictions=predictions,
                config=config.pose,
                seed=config.seed,
            )
            quick = guided or self._budget.exceeded
            found = from_scratch(thorough=not quick)
            # a wrong first baseline would stay in all that follows
            first_baseline = not structure.known.any() and found.near_parallax_deg > _NEARLY * config.min_parallax_deg
            if quick and first_baseline:
                found = from_scratch(thorough=True)
        return Attempt(pair.view, replace(pair.keyframe, structure=found.structure), matches, found, guided)


def upright(T_frame_from_keyframe: Float64) -> bool:
    """Whether two views are turned so little, (4, 4), that a plain match finds what they share."""
    return poses.rotation_angle_deg(T_frame_from_keyframe, np.eye(4)) < _UPRIGHT_DEG


def searched_wide(state: State, number: int, config: TrackerConfig, budget: Budget) -> bool:
    """Whether an attempt on a lost frame, by its number from 0, searches for rotations, zooms and slants: one of them a
    frame, in turn, because each search takes up to a second; none right after the loss, when the camera still looks
    about where it did."""
    if (
        state.seen is not None
        and state.stamp_ns is not None
        and state.stamp_ns - state.seen.stamp_ns < _STILL_UPRIGHT_NS
    ):
        return False
    return state.lost_frames % (1 + config.relocalisation_candidates) == number
