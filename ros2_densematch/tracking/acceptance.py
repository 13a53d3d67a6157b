"""What a frame teaches once its attempt is committed: points, the unit of length, the shutter."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from ros2_densematch.arrays import Float64
from ros2_densematch.geometry.relative_pose import Scale
from ros2_densematch.tracking import mapping
from ros2_densematch.tracking.attempt import Attempt
from ros2_densematch.tracking.config import TrackerConfig
from ros2_densematch.tracking.keyframe import Keyframe
from ros2_densematch.tracking.metric import odometry_length
from ros2_densematch.tracking.segments import LengthSource
from ros2_densematch.tracking.state import State, Tracked

# A first baseline whose rotation is known less well than this (standard deviation) may be another motion altogether. On
# rendered flights it is 0.02 to 0.2 degrees where one motion is possible, and 0.7 or more where a plane leaves two.
_OPEN_DEG, _WIDE = 0.4, 2.0  # not waited for beyond so many times the least parallax
_USUAL_GAIN = 0.1  # share of a new count in the running mean of inliers


@dataclass(frozen=True, eq=False)
class Accepted:
    """A committed attempt.

    Attributes:
        state: with what the frame taught; its `last` is this frame.
        reason: how the frame was tracked, in words.
    """

    state: State
    reason: str


def accepted(state: State, attempt: Attempt, config: TrackerConfig) -> Accepted:
    """Commits an attempt against one of the state's keyframes, which becomes the current one."""
    keyframe = replace(attempt.keyframe, tracked=attempt.keyframe.tracked + 1)
    usual = state.usual_inliers.of(guided=attempt.guided)
    usual += _USUAL_GAIN * (attempt.inliers - usual)
    state = replace(
        state,
        current_id=keyframe.id,
        keyframes=state.keyframes.updated(keyframe),
        segments=state.segments.entered(keyframe.segment),
        lost_frames=0,
        tentative=None,
        usual_inliers=state.usual_inliers.with_value(usual, guided=attempt.guided),
    )
    if state.segments.source is LengthSource.DEPTH:
        state = replace(state, turning=state.turning.learned(attempt.pair, attempt.matches, attempt.found))
    if attempt.found.has_length:
        state, tracked, reason = _with_length(state, attempt, config)
    else:
        state, tracked, reason = _without_length(state, attempt, config)
    structure = state.keyframe.structure
    assert structure is not None
    if structure.known.any():
        state = replace(state, typical_depth=structure.median_depth)
    return Accepted(state.with_last(tracked), reason)


def _with_length(state: State, attempt: Attempt, config: TrackerConfig) -> tuple[State, Tracked, str]:
    """The keyframe's points gave the length: the frame's depth image and its view of the points add to them."""
    found, note = attempt.found, ""
    T = found.T_frame_from_keyframe
    if state.segments.source is not LengthSource.NOTHING:
        state, ratio, note = _with_depth(state, attempt)
        if ratio != 1.0:
            T = T.copy()
            T[:3, 3] *= ratio
            found = replace(found, T_frame_from_keyframe=T)
        keyframe, T = mapping.with_sight(state.keyframe, found, T, config)
        state = _with_version(state, keyframe)
    return state, Tracked(replace(attempt, found=found), T), found.reason + note


def _with_depth(state: State, attempt: Attempt) -> tuple[State, float, str]:
    """Uses the frame's depth image: as knowledge about the keyframe's points, or to turn the unit into metres.

    Returns:
        The state, metres per former map unit, and a note.
    """
    keyframe, found, depth = state.keyframe, attempt.found, attempt.view.frame.depth
    structure = keyframe.structure
    if depth is None or structure is None or structure.depth is not None:
        return state, 1.0, ""
    xy = attempt.matches.query_xy.astype(np.float64)
    if state.segments.scale is Scale.METRIC:
        structure = mapping.with_query_depth(structure, found, found.T_frame_from_keyframe, depth, xy)
        return _with_version(state, replace(keyframe, structure=structure)), 1.0, ""
    ratio = mapping.metric_ratio(structure, found, depth, xy)
    if not np.isfinite(ratio) or ratio <= 0:
        return state, 1.0, ""
    old = state.segments.current
    anchor = state.keyframes.of_segment(old)[0].T_world_from_camera[:3, 3]
    keyframes = state.keyframes.changed(lambda k: k.rescaled(ratio, anchor) if k.segment == old else k)
    state = replace(state, keyframes=keyframes).with_new_segment(keyframe, whole=True)
    state = replace(state, segments=state.segments.with_source(LengthSource.DEPTH))
    note = f"; new segment {state.segments.current}: a depth image turned the unit of segment {old} into metres"
    return state, ratio, note


def _without_length(state: State, attempt: Attempt, config: TrackerConfig) -> tuple[State, Tracked, str]:
    """The keyframe's points give no length: triangulate them with this frame if it moved enough, else hold."""
    found, frame, keyframe = attempt.found, attempt.view.frame, state.keyframe
    held = found.T_frame_from_keyframe.copy()
    held[:3, 3] = 0.0
    still = Tracked(attempt, held)
    if not np.any(found.T_frame_from_keyframe[:3, 3]):
        return state, still, f"pure rotation or too little motion: rotation chained, position held; {found.reason}"
    if found.near_parallax_deg < config.min_parallax_deg:
        short = f"baseline too short ({found.near_parallax_deg:.2f} degrees of parallax)"
        return state, still, f"{short}: rotation chained, position held; {found.reason}"
    turn = float(np.degrees(np.sqrt(np.linalg.eigvalsh(found.two_view.covariance[3:, 3:])[-1])))
    wide = found.near_parallax_deg >= _WIDE * config.min_parallax_deg  # a plane may stay open for good
    if turn > _OPEN_DEG and not wide:  # two motions of a plane: the wrong one would stay in all that follows
        open_ = f"the matches leave the first baseline open (rotation {turn:.2f} degrees, limit {_OPEN_DEG:g})"
        return state, still, f"{open_}: rotation chained, position held; {found.reason}"
    assert frame.camera is not None
    assert keyframe.structure is not None
    length = odometry_length(frame.odometry, keyframe.odometry)
    made = mapping.initialise_structure(keyframe.structure, found, frame.camera.focal, length, state.typical_depth)
    if made is None:
        return state, still, f"the points do not lie in front of both cameras: position held; {found.reason}"
    structure, T = made
    note = ""
    if state.segments.source is not LengthSource.NOTHING:
        state = state.with_new_segment(keyframe)
        note = f"new segment {state.segments.current}: the length unit was lost while the camera turned away; "
    source = LengthSource.FIRST_BASELINE if length is None else LengthSource.ODOMETRY
    unit = "unit = median depth" if length is None else "metres from odometry"
    state = replace(state, segments=state.segments.with_source(source))
    found = replace(
        found, T_frame_from_keyframe=T, has_length=True, covariance=_of_first_baseline(found.two_view.covariance, T)
    )
    keyframe, T = mapping.with_sight(replace(state.keyframe, structure=structure), found, T, config)
    reason = f"{note}points triangulated ({unit}); {found.reason}"
    return _with_version(state, keyframe), Tracked(replace(attempt, found=found), T), reason


def _of_first_baseline(covariance: Float64, T: Float64) -> Float64:
    """Covariance (6, 6) of a pose T (4, 4) whose length is the unit, from that of its direction and rotation."""
    length = float(np.linalg.norm(T[:3, 3]))
    direction = T[:3, 3] / length
    across = np.eye(6)
    across[:3, :3] = length * (np.eye(3) - np.outer(direction, direction))
    return np.asarray(across @ covariance @ across.T)


def _with_version(state: State, keyframe: Keyframe) -> State:
    return replace(state, keyframes=state.keyframes.updated(keyframe))
