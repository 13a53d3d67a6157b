"""The tracker: frame by frame from images to correspondences, relative poses and a trajectory.

Pure and deterministic: no input or output, no clock but for the timings, the same frames give the same answers. A frame
takes one way, and state passes forward on it: encode, choose between attempts (`localiser`, `recovery`), commit one
(`acceptance`), decide about the keyframe (`policy`), answer (`outcome`). What was tried and not chosen leaves nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from ros2_densematch.arrays import Float64
from ros2_densematch.geometry.relative_pose import Scale
from ros2_densematch.matchers.base import Matcher
from ros2_densematch.tracking.acceptance import accepted
from ros2_densematch.tracking.attempt import Attempt
from ros2_densematch.tracking.background import Background
from ros2_densematch.tracking.budget import Budget
from ros2_densematch.tracking.config import TrackerConfig
from ros2_densematch.tracking.follower import Follower
from ros2_densematch.tracking.frame import Frame, frame_problem
from ros2_densematch.tracking.keyframe import Keyframe
from ros2_densematch.tracking.keyframe_maker import KeyframeMaker
from ros2_densematch.tracking.localiser import Localiser
from ros2_densematch.tracking.matching import Matching
from ros2_densematch.tracking.outcome import Outcome
from ros2_densematch.tracking.policy import Sharing, outworn, unsuitable, with_best
from ros2_densematch.tracking.recovery import Choice, Recovery
from ros2_densematch.tracking.segments import LengthSource
from ros2_densematch.tracking.shutter import Shutter
from ros2_densematch.tracking.state import State
from ros2_densematch.tracking.static_mask import Picture, StaticMask, tiles_of_scene
from ros2_densematch.tracking.stopwatch import Stopwatch
from ros2_densematch.tracking.texture import is_textureless
from ros2_densematch.tracking.tracked_frame import NewKeyframe, Status, TrackedFrame
from ros2_densematch.tracking.turning import Turning
from ros2_densematch.tracking.uncalibrated import calibration_changed, matched_only
from ros2_densematch.tracking.view import View

__all__ = ["Status", "TrackedFrame", "Tracker", "TrackerConfig"]

_USUAL_GAIN = 0.1  # share of a new frame in the running mean of the time
_FEW_KNOWN = 30  # with fewer known points in view an older keyframe is looked for


class Tracker:
    """Tracks a sequence of frames against keyframes.

    The world frame is the optical frame of the first camera. Lengths are metres where a depth image, a stereo pair or
    odometry gives them; otherwise one arbitrary unit (the median depth of the first keyframe), carried from keyframe to
    keyframe by the points that both see; and no length at all while the camera has only turned or hardly moved.

    Args:
        matcher, config: any matcher; settings, None = the defaults.

    Attributes:
        time_budget_ms: as in `TrackerConfig`, 0 = none; whoever knows the interval between images may set it.
    """

    def __init__(self, matcher: Matcher, config: TrackerConfig | None = None) -> None:
        self.matcher = matcher
        self.config = config if config is not None else TrackerConfig()
        self._state = State.beginning(self.config)
        self._background = Background()
        self.time_budget_ms = max(self.config.time_budget_ms, 0.0)
        self._usual_ms = 0.0  # of a frame, the last ones most; read only where there is a time budget

    def reset(self) -> None:
        """Forgets everything but the numbers of keyframes; the next frame becomes the first keyframe."""
        self._state = State.beginning(self.config, self._state.next_id)

    def reconfigure(self, config: TrackerConfig, matcher: Matcher | None = None) -> None:
        """New settings from the next frame on. What is known stays; another matcher restarts tracking."""
        state = replace(self._state, keyframes=replace(self._state.keyframes, limit=config.max_keyframes))
        if config.readout_s != self.config.readout_s:
            state = replace(state, turning=Turning(Shutter(config.readout_s)))
        self.config, self._state = config, state
        self.time_budget_ms = max(config.time_budget_ms, 0.0)
        if matcher is not None:
            self.matcher = matcher
            self.reset()

    def request_keyframe(self) -> None:
        """The next frame that is tracked becomes a keyframe."""
        self._state = replace(self._state, asked_for="it was asked for")

    @property
    def keyframes(self) -> tuple[Keyframe, ...]:
        """The keyframes in memory, oldest first."""
        return tuple(self._state.keyframes)

    @property
    def readout_s(self) -> float:
        """Seconds from the first to the last row of the camera's rolling shutter, as given or as estimated so far; 0 =
        all rows at once, as far as is known."""
        return self._state.turning.shutter.readout_s

    def process(self, frame: Frame) -> TrackedFrame:
        """Tracks the next frame; never raises for what is in the frame: a frame that cannot be used is REJECTED."""
        state = self._state
        problem = frame_problem(frame)
        if not problem and state.stamp_ns is not None and frame.stamp_ns <= state.stamp_ns:
            problem = (
                f"its time {frame.stamp_ns} ns is not after the previous frame's {state.stamp_ns} ns: sort the "
                "frames, or reset the tracker when the clock was set back"
            )
        if problem:
            where = f"{frame.source}: " if frame.source else ""
            segment = state.segments.current
            return TrackedFrame(frame.index, frame.stamp_ns, Status.REJECTED, where + problem, segment=segment)
        stopwatch = Stopwatch()
        budget = Budget(self.time_budget_ms, self._usual_ms)
        matching = Matching(self.matcher, self.config, stopwatch, self._background)
        step = _Step(matching, self.config, budget)
        outcome = step.taken(replace(state, stamp_ns=frame.stamp_ns), frame)
        self._state = outcome.state
        timings = stopwatch.milliseconds()
        self._usual_ms += _USUAL_GAIN * (sum(timings.values()) - self._usual_ms)
        tracked = outcome.tracked_frame(timings)
        made = [k for k in self._state.keyframes if k.id >= state.next_id]
        scale, stated = self._state.segments.scale, frame.camera.uncertainty if frame.camera is not None else None
        return replace(
            tracked,
            calibration=stated or self.config.pose.uncertainty,
            new_keyframes=tuple(_new_keyframe(k, tracked, scale) for k in made),
        )


def _new_keyframe(keyframe: Keyframe, tracked: TrackedFrame, scale: Scale) -> NewKeyframe:
    reason = tracked.reason
    if keyframe.frame_index != tracked.index:
        reason = f"the last frame before frame {tracked.index}, which no longer fitted: made a keyframe a frame late"
    known = keyframe.camera is not None
    return NewKeyframe(
        keyframe.id,
        keyframe.frame_index,
        keyframe.stamp_ns,
        keyframe.size,
        keyframe.T_world_from_camera if known else None,
        scale if known else Scale.NONE,
        reason,
    )


@dataclass(frozen=True, eq=False)
class _Loss:
    """No keyframe fits: the state then, the attempt against the current keyframe, and why nothing else that looked
    like a known place is one."""

    state: State
    attempt: Attempt
    doubt: str = ""


class _Step:
    """The way of one frame, from one state to the next."""

    def __init__(self, matching: Matching, config: TrackerConfig, budget: Budget) -> None:
        self._matching = matching
        self._config = config
        self._budget = budget
        self._maker = KeyframeMaker(matching, config)
        self._localiser = Localiser(matching, config, budget)
        self._follower = Follower(self._localiser, config, budget)
        self._recovery = Recovery(self._localiser, self._maker, config, budget)

    def taken(self, state: State, frame: Frame) -> Outcome:
        """What becomes of a frame that can be used."""
        if self._config.static_mask:
            frame = _masked(frame, state.static)
        view = self._matching.view(frame)
        outcome = self._outcome(state, view)
        T_world = outcome.T_world_from_camera
        if T_world is None:
            return outcome
        after = outcome.state.after(outcome.view, T_world)
        static = _learnt(outcome, T_world) if self._config.static_mask else StaticMask()
        return replace(outcome, state=replace(after, static=static))

    def _outcome(self, state: State, view: View) -> Outcome:
        if state.current_id is None:
            return self._first(state, view)
        if view.camera is None and state.keyframe.camera is None:
            return matched_only(state, view, self._matching, self._maker, self._config)
        if view.camera is None or state.keyframe.camera is None:
            return calibration_changed(state, view, self._maker)
        if state.lost_frames and is_textureless(view.frame.image, view.frame.mask):
            return self._blind(state, view)
        choice = self._choice(state, view)
        return self._lost(choice) if isinstance(choice, _Loss) else self._committed(choice)

    def _first(self, state: State, view: View) -> Outcome:
        keyframe = self._maker.make(
            view, state.next_id, state.T_world_from_camera, state.segments.current, use_metric=True
        )
        state = replace(state.with_keyframe(keyframe).with_source_of(keyframe), asked_for="")
        reason = "first frame: it is the first keyframe"
        return Outcome(state, view, Status.INITIALISED, reason, keyframe, is_keyframe=True)

    def _blind(self, state: State, view: View) -> Outcome:
        """A lost frame that nothing can be matched with: no search, each of which takes longer than a frame."""
        state = replace(state, lost_frames=state.lost_frames + 1, candidate=None)
        reason = "lost: the image has no texture above its noise, so nothing can be matched"
        return Outcome(state, view, Status.LOST, reason, state.keyframe)

    # ---- choose

    def _choice(self, state: State, view: View) -> Choice | _Loss:
        state = self._follower.checked(state)
        first = self._follower.attempt(state, view)
        if state.lost_frames:
            return self._choice_when_lost(state, first)
        found = first.found
        moved = bool(found.T_frame_from_keyframe[:3, 3].any())
        if found.ok and (found.has_length or state.segments.source is LengthSource.NOTHING or not moved):
            return self._choice_beside(state, view, first)
        late = self._recovery.with_previous_frame(state, view)
        if late is not None and late.attempt.found.ok and (late.attempt.found.has_length or not found.ok):
            return late
        if found.ok:
            return self._recovery.any_with_length(state, view) or Choice(state, first)
        # what the camera saw last stays as a keyframe: it is where the lost camera is likeliest to be found again
        return self._choice_when_lost(*((late.state, late.attempt) if late is not None else (state, first)))

    def _choice_beside(self, state: State, view: View, first: Attempt) -> Choice:
        """The attempt against the current keyframe is good: another may be better."""
        state, candidate = self._recovery.due_of_older_segment(state, view)
        if candidate is not None:
            rejoined = self._recovery.rejoined(state, view, candidate)
            if isinstance(rejoined, Choice):
                return rejoined
            state = replace(state, candidate=rejoined.candidate(view))
        if self._budget.exceeded and not first.guided:
            return Choice(state, first)
        return self._recovery.stronger(state, view, first) or Choice(state, first)

    def _choice_when_lost(self, state: State, first: Attempt) -> Choice | _Loss:
        """The attempt against the current keyframe failed, or the frame before was lost already."""
        view = replace(first.view, camera=first.view.frame.camera, rate=None)
        found = self._recovery.relocalised(state, view, first)
        if isinstance(found, Choice):
            return found
        turn = state.turn + len(self._recovery.next_in_turn(state))
        state = replace(
            state, lost_frames=state.lost_frames + 1, last=None, guide=None, turn=turn, candidate=found.candidate(view)
        )
        if state.segment_was_tracked and state.lost_frames < self._config.max_lost_frames:
            return _Loss(state, first, found.reason)
        begun = self._recovery.new_segment(state, view)
        return begun or _Loss(replace(state, tentative=first.view), first, found.reason)

    # ---- commit

    def _committed(self, choice: Choice) -> Outcome:
        """The frame is consistent with a keyframe: position, points, and whether it replaces the keyframe."""
        done = accepted(choice.state, choice.attempt, self._config)
        state, tracked = done.state, done.state.last
        assert tracked is not None
        attempt, T = tracked.attempt, tracked.T_from_keyframe
        sharing = Sharing.of(attempt, T)
        keyframe = with_best(state.keyframe, sharing)
        state = replace(state, keyframes=state.keyframes.updated(keyframe))
        asked_for = state.asked_for
        why = asked_for or unsuitable(keyframe, attempt.view.frame, state.segments.scale)
        why = why or outworn(keyframe, sharing, self._config)
        known = replace(attempt, keyframe=keyframe).known
        weak = known < _FEW_KNOWN and keyframe.tracked % self._config.relocalisation_interval == 0
        # where depth is measured the unit does not drift: going back would make a jump and gain little
        if (why or weak) and state.segments.source.may_drift and not asked_for:
            back = self._recovery.returned(state, known, due=bool(why))
            if back is not None:
                return _on(back, choice, f"back to keyframe {back.keyframe.id}; ")
        if why:
            status = Status.NEW_KEYFRAME if choice.status is Status.TRACKED else choice.status
            reason = f"{choice.note}new keyframe: {why}; {done.reason}"
            after = replace(self._maker.promoted(state, tracked), asked_for="")
            return Outcome(
                state=after,
                view=attempt.view,
                status=status,
                reason=reason,
                reference=keyframe,
                matches=attempt.matches,
                attempt=attempt,
                T_from_keyframe=T,
                is_keyframe=True,
            )
        return Outcome(
            state=state,
            view=attempt.view,
            status=choice.status,
            reason=choice.note + done.reason,
            reference=keyframe,
            matches=attempt.matches,
            attempt=attempt,
            T_from_keyframe=T,
        )

    def _lost(self, loss: _Loss) -> Outcome:
        state, attempt = loss.state, loss.attempt
        reason = f"lost: {loss.doubt or attempt.found.reason}"
        return Outcome(state, attempt.view, Status.LOST, reason, state.keyframe, attempt.matches, attempt)


def _masked(frame: Frame, static: StaticMask) -> Frame:
    """The frame without what the camera carries along."""
    seen = static.pixels(frame.size)
    if seen is None:
        return frame
    return replace(frame, mask=seen if frame.mask is None else seen & frame.mask)


def _learnt(outcome: Outcome, T_world_from_camera: Float64) -> StaticMask:
    """What a frame with a pose (4, 4) teaches about what the camera carries along."""
    static, frame, thumbnail = outcome.state.static, outcome.view.frame, outcome.view.encoding.thumbnail
    if frame.camera is None or thumbnail is None:
        return static
    R = T_world_from_camera[:3, :3]
    picture = Picture(thumbnail, frame.camera, R, frame.stamp_ns, outcome.state.segments.current)
    attempt = outcome.attempt
    if attempt is None or not static.is_due(picture):
        return static.after(picture)
    scene = tiles_of_scene(thumbnail, frame.size, attempt.matches.query_xy, attempt.found.inliers)
    return static.after(replace(picture, scene=scene))


def _on(state: State, choice: Choice, note: str) -> Outcome:
    """The frame is tracked against the state's keyframe without teaching it anything."""
    tracked = state.last
    assert tracked is not None
    attempt = tracked.attempt
    reason = choice.note + note + attempt.found.reason
    keyframe, T = state.keyframe, tracked.T_from_keyframe
    return Outcome(
        state=state,
        view=attempt.view,
        status=choice.status,
        reason=reason,
        reference=keyframe,
        matches=attempt.matches,
        attempt=attempt,
        T_from_keyframe=T,
    )
