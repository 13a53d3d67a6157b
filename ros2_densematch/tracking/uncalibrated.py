"""Frames without a calibration: matches only, no pose."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ros2_densematch.tracking.config import TrackerConfig
from ros2_densematch.tracking.keyframe_maker import KeyframeMaker
from ros2_densematch.tracking.matching import Matching
from ros2_densematch.tracking.outcome import Outcome
from ros2_densematch.tracking.policy import Sharing, covered_cells, outworn, unsuitable, with_best
from ros2_densematch.tracking.state import State
from ros2_densematch.tracking.tracked_frame import Status
from ros2_densematch.tracking.view import View

_FAR = 0.15  # of the image's width: a keyframe from which the image moved further is replaced


def matched_only(state: State, view: View, matching: Matching, maker: KeyframeMaker, config: TrackerConfig) -> Outcome:
    """Matches a frame with the current keyframe; that is replaced when too few matches are left or they moved far."""
    keyframe = replace(state.keyframe, tracked=state.keyframe.tracked + 1)
    matches = matching.match(keyframe.reference, view.encoding)
    sharing = Sharing(len(matches), covered_cells(matches.reference_xy, keyframe.size) if len(matches) else 0)
    keyframe = with_best(keyframe, sharing)
    why = outworn(keyframe, sharing, config)
    if len(matches) and not why:
        moved = np.median(np.linalg.norm(matches.query_xy - matches.reference_xy, axis=1))
        if moved > _FAR * keyframe.size[0]:
            why = f"the image moved by {moved:.0f} pixels"
    why = state.asked_for or unsuitable(keyframe, view.frame, state.segments.scale) or why
    state = replace(state, keyframes=state.keyframes.updated(keyframe))
    reason = f"{len(matches)} matches; no calibration, so no pose: give CameraInfo or a camera file"
    if not why:
        return Outcome(state, view, Status.NO_CALIBRATION, reason, keyframe, matches)
    new = maker.make(view, state.next_id, state.T_world_from_camera, state.segments.current, use_metric=True)
    state = replace(state.with_keyframe(new), asked_for="")
    reason = f"new keyframe: {why}; {reason}"
    return Outcome(state, view, Status.NO_CALIBRATION, reason, keyframe, matches, is_keyframe=True)


def calibration_changed(state: State, view: View, maker: KeyframeMaker) -> Outcome:
    """The frame has a calibration and the keyframe has none, or the other way round: the frame becomes a keyframe."""
    number, T_world, segment = state.next_id, state.T_world_from_camera, state.segments.current
    new = maker.make(view, number, T_world, segment, use_metric=True)
    state = replace(state.with_keyframe(new).with_source_of(new), tentative=None, asked_for="")
    gone = view.camera is None
    status, what = (Status.NO_CALIBRATION, "gone") if gone else (Status.INITIALISED, "known")
    return Outcome(state, view, status, f"the calibration is {what} from here: new keyframe", new, is_keyframe=True)
