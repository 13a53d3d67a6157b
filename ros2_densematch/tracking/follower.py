"""The attempt against the current keyframe: guided by the frame before where that will do, otherwise a full match."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ros2_densematch.arrays import Float64
from ros2_densematch.tracking.attempt import Attempt
from ros2_densematch.tracking.budget import Budget
from ros2_densematch.tracking.config import TrackerConfig
from ros2_densematch.tracking.guidance import Check, prior_at_rest
from ros2_densematch.tracking.localiser import Localiser, searched_wide
from ros2_densematch.tracking.state import State
from ros2_densematch.tracking.view import View


class Follower:
    """Follows the current keyframe for one frame.

    Args:
        localiser: of the frame.
        config: of the tracker.
        budget: of the frame; while it is exceeded, no check is made, and where guidance fails the frame before is
            asked first (`Recovery.with_previous_frame`).
    """

    def __init__(self, localiser: Localiser, config: TrackerConfig, budget: Budget) -> None:
        self._localiser = localiser
        self._config = config
        self._budget = budget

    def checked(self, state: State) -> State:
        """With a check of the guided matches begun, or its result taken in, where one of these is due."""
        guide, delay, matching = state.guide, self._config.full_match_delay, self._localiser.matching
        if guide is None or delay == 0 or not matching.can_guide:
            return state
        if guide.check is None:
            interval = 0 if self._budget.exceeded else self._config.full_match_interval
            if guide.matches is None or interval == 0 or guide.since_full < interval:
                return state
            pending = matching.match_later(state.keyframe.reference, guide.previous)
            return replace(state, guide=replace(guide, check=Check(pending, guide.matches)))
        if guide.check.age < delay:
            return state
        return replace(state, guide=guide.joined(matching.waited_for(guide.check.pending)))

    def attempt(self, state: State, view: View) -> Attempt:
        """The frame against the current keyframe."""
        keyframe = state.keyframe
        predictions = [state.last.T_from_keyframe] if state.last is not None else []
        if state.last is None and state.guide is not None and state.guide.is_at(keyframe):
            predictions = [np.eye(4)]
        guided, why = None, ""
        if self._localiser.matching.can_guide and state.guide is not None:
            at_once = not self._budget.exceeded and self._config.full_match_delay == 0
            interval = self._config.full_match_interval if at_once else 0
            why = state.guide.due(keyframe, view.frame.stamp_ns, interval)
            if not why:
                guided = self.guided(state, view, predictions)
                why = state.guide.weakness(guided, self._config.min_inliers)
                if not why or self._budget.exceeded:
                    return guided
        # while tracking, the camera cannot have turned far since the last frame: only a lost one is searched for
        wide = bool(predictions) or (state.lost_frames > 0 and searched_wide(state, 0, self._config, self._budget))
        full = replace(self._localiser.attempt(state, view, keyframe, predictions, wide=wide), why_full=why)
        return guided if guided is not None and _better(guided, full) else full

    def guided(self, state: State, view: View, predictions: list[Float64]) -> Attempt:
        """The frame against the current keyframe, guided by the frame before."""
        keyframe, guide, matching = state.keyframe, state.guide, self._localiser.matching
        assert guide is not None
        if guide.matches is None:
            prior = prior_at_rest(matching.guide_points(keyframe.reference), keyframe, view.frame.stamp_ns)
        else:
            prior = guide.prior(view.frame.stamp_ns)
        matches = matching.guided(keyframe.reference, view.encoding, prior)
        attempt = self._localiser.attempt(state, view, keyframe, predictions, matches, guided=True)
        return replace(attempt, check=guide.taken)


def _better(guided: Attempt, full: Attempt) -> bool:
    """Whether the guided attempt is to be kept although a full match was made."""
    if not guided.found.ok or guided.found.has_length < full.found.has_length:
        return False
    return not full.found.ok or guided.inliers > full.inliers
