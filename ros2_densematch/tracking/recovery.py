"""What is tried beside the current keyframe: older keyframes, the previous frame as a keyframe, a new segment.

Each function takes a state and gives the choice it would make, with the state in which that would be committed, or
None. Whatever is not chosen leaves nothing behind.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from ros2_densematch.arrays import Float64
from ros2_densematch.geometry import poses
from ros2_densematch.geometry.correspondences import Correspondences
from ros2_densematch.geometry.relative_pose import RelativePose, Scale
from ros2_densematch.geometry.two_view import estimate_relative_pose
from ros2_densematch.matchers.prior import Prior
from ros2_densematch.tracking.attempt import Attempt, support
from ros2_densematch.tracking.budget import Budget
from ros2_densematch.tracking.config import TrackerConfig
from ros2_densematch.tracking.guidance import prior_at_rest
from ros2_densematch.tracking.keyframe import Keyframe
from ros2_densematch.tracking.keyframe_maker import KeyframeMaker
from ros2_densematch.tracking.localiser import Localiser, searched_wide, upright
from ros2_densematch.tracking.policy import Sharing, outworn, with_best
from ros2_densematch.tracking.pose_prior import prior_from_pose
from ros2_densematch.tracking.returns import Evidence, Sighting, contradiction, disagreement, evidence_of, reachable
from ros2_densematch.tracking.state import Candidate, Place, Revisit, State, Tracked
from ros2_densematch.tracking.tracked_frame import Status
from ros2_densematch.tracking.view import View

_FAR_BETTER = 4.0  # times the known points by which an older keyframe must be connected to be matched in full
_REVISIT_NS = 1_000_000_000  # with a time budget an older segment is looked for so seldom
_STRONGER = 1.5  # times the support that another keyframe must give to take a frame over
_AGREE_DEG, _AGREE_SHARE = 1.5, 0.05  # two keyframes agree on a pose: turn, and distance over median depth
_SHARED_VIEW, _WITNESSES = 0.7, 3  # likewise, and how many other keyframes are asked whether they see a return too
_CONTRARIES = 8  # so many others are asked whether they contradict it, all of them where the camera may be anywhere
_WAITING = 3  # places that wait for a second frame
_STEP_SHARE, _STEP_DEG = 0.5, 3.0  # two frames of a return: motion over median depth, and how well its turn is known
_SAME_VIEW = 0.35  # radians of turn plus distance over median depth within which an older keyframe shows the same


@dataclass(frozen=True, eq=False)
class Choice:
    """An attempt to commit.

    Attributes:
        state: in which it is committed.
        attempt: against one of its keyframes.
        status: of the frame then.
        note: how it came to it, in words, to be put before the reason.
    """

    state: State
    attempt: Attempt
    status: Status = Status.TRACKED
    note: str = ""


@dataclass(frozen=True, eq=False)
class Doubt:
    """No return.

    Attributes:
        reason: what speaks against the best one, in words; "" = nothing looked like one.
        places: those that wait for a second frame, likeliest first.
        ambiguous: the frame looks like two places.
    """

    reason: str = ""
    places: tuple[Place, ...] = ()
    ambiguous: bool = False

    def candidate(self, view: View) -> Candidate | None:
        """What waits for a second frame after this one."""
        return Candidate(view, self.places) if self.places else None

    def beside(self, other: Doubt) -> Doubt:
        """This doubt and a later one about the same frame."""
        said = self if self.ambiguous or not other.reason else other
        places = sorted(self.places + other.places, key=lambda p: -p.explained)
        return Doubt(said.reason, tuple(places[:_WAITING]), said.ambiguous)


class Recovery:
    """Tries for one frame.

    Args:
        localiser, maker: of the frame.
        config: of the tracker.
        budget: of the frame; while it is exceeded, no full match is made that tracking can do without.
    """

    def __init__(self, localiser: Localiser, maker: KeyframeMaker, config: TrackerConfig, budget: Budget) -> None:
        self._localiser = localiser
        self._maker = maker
        self._config = config
        self._budget = budget
        # what each keyframe said of the frame, without a guess, and whether it searched wide
        self._asked: dict[int, tuple[Attempt, bool]] = {}
        self._since: RelativePose | None = None  # the motion since the frame that waits for a second one

    # ---- while tracking

    def due_of_older_segment(self, state: State, view: View) -> tuple[State, Keyframe | None]:
        """In a later segment, a keyframe of an older one with a unit no worse, where this frame is to be compared with
        it: every few frames; with a time budget only after another frame was matched with it beside the tracking.

        Returns:
            The state, with what was begun, and the keyframe, or None.
        """
        if state.candidate is None and self._budget.is_set:
            return self._revisited(state, view)
        if state.candidate is None and state.keyframe.tracked % self._config.relocalisation_interval:
            return state, None
        keyframe = self._of_older_segment(state)
        return (state, None) if keyframe is None else (replace(state, turn=state.turn + 1), keyframe)

    def _of_older_segment(self, state: State) -> Keyframe | None:
        """The keyframe whose turn it is; first of all one that saw a frame which waits for a second one."""
        segments = state.segments
        older = [k for k in state.keyframes if k.segment < segments.current and k.structure is not None]
        older = [k for k in older if segments.source_of(k.segment).scale >= segments.scale]
        waiting = self._waiting_for(state)
        for keyframe in older:
            if keyframe.id in waiting:
                return keyframe
        return older[state.turn % len(older)] if older else None

    def _revisited(self, state: State, view: View) -> tuple[State, Keyframe | None]:
        revisit, stamp_ns = state.revisit, view.frame.stamp_ns
        if revisit is not None and revisit.pending is not None:
            if not revisit.pending.done():
                return state, None
            alike = support(revisit.pending.result()) >= self._config.relocalisation_inliers
            keyframe = next((k for k in state.keyframes if k.id == revisit.keyframe_id), None)
            alike = alike and keyframe is not None and keyframe.segment < state.segments.current
            state = replace(state, revisit=replace(revisit, pending=None))
            return state, keyframe if alike else None
        if revisit is not None and stamp_ns - revisit.stamp_ns < _REVISIT_NS:
            return state, None
        keyframe = self._of_older_segment(state)
        if keyframe is None:
            return state, None
        pending = self._localiser.matching.match_later(keyframe.reference, view.encoding)
        return replace(state, turn=state.turn + 1, revisit=Revisit(keyframe.id, stamp_ns, pending)), None

    def rejoined(self, state: State, view: View, candidate: Keyframe) -> Choice | Doubt:
        """Whether a keyframe of an older segment sees this frame; then that segment goes on and the later one is given
        up: nothing relates the two units but this frame and the next."""
        attempt = self._attempt(state, view, candidate, wide=True)
        if not attempt.found.has_length:
            return Doubt()
        left = state.segments.current
        note = f"segment {candidate.segment} found again by keyframe {candidate.id}, segment {left} ends; "
        judged = self._judged(state, view, attempt, note)
        if isinstance(judged, Doubt):
            return judged
        return replace(judged, state=replace(judged.state, keyframes=state.keyframes.without_segment(left)))

    def stronger(self, state: State, view: View, first: Attempt) -> Choice | None:
        """Another keyframe for a frame with few matches.

        A sudden drop is mostly blur: a blurred frame matches its blurred predecessor better than a sharp keyframe, and
        a sharp frame an older keyframe better than a blurred one that was just made.
        """
        best, usual = (c.of(guided=first.guided) for c in (first.keyframe.best_inliers, state.usual_inliers))
        if first.inliers >= self._config.keyframe_inliers * max(best, usual):
            return None
        if state.last is None:
            for other in state.older()[:1]:
                again = self._at_guess(state, view, other, _expected(state, other))
                if again.found.has_length and again.inliers > _STRONGER * first.inliers:
                    return Choice(state, again, note=f"back to keyframe {other.id}: ")
            return None
        probe = None
        if not self._localiser.matching.references_differ:
            probe = self._probe(state.last, view, guided=first.guided)
            if support(probe) <= _STRONGER * first.support:
                return None
        promoted = self._maker.promoted(state, state.last)
        guided = first.guided and probe is not None
        again = self._localiser.attempt(promoted, view, promoted.keyframe, [np.eye(4)], probe, guided=guided)
        if again.found.ok and again.found.has_length >= first.found.has_length:
            return Choice(promoted, again, note=_late(state.last))
        return None

    def _probe(self, last: Tracked, view: View, *, guided: bool) -> Correspondences:
        """The previous frame matched with this one, in the same way as the keyframe was."""
        matching, previous = self._localiser.matching, last.attempt.view.encoding
        if not guided:
            return matching.match(previous, view.encoding)
        prior = Prior.at_rest(matching.guide_points(previous), previous)
        return matching.guided(previous, view.encoding, prior)

    # ---- when the current keyframe does not do

    def with_previous_frame(self, state: State, view: View) -> Choice | None:
        """The keyframe is out of sight, the previous frame hardly is: that one becomes the keyframe, a frame late.

        Returns:
            The choice; its attempt may have failed all the same. None without a previous frame.
        """
        if state.last is None:
            return None
        promoted = self._maker.promoted(state, state.last)
        again = self._after_a_gap(promoted, state.last, view) if self._budget.exceeded else None
        if again is None or not again.found.ok:
            again = self._localiser.attempt(promoted, view, promoted.keyframe, [np.eye(4)])
        return Choice(promoted, again, note=_late(state.last))

    def _after_a_gap(self, promoted: State, last: Tracked, view: View) -> Attempt | None:
        """The frame against the previous one, which is the keyframe of `promoted`: guided from where binary features of
        the two images say, where possible."""
        if not self._localiser.matching.can_guide:
            return None
        matches = self._probe(last, view, guided=True)
        return self._localiser.attempt(promoted, view, promoted.keyframe, [np.eye(4)], matches, guided=True)

    def any_with_length(self, state: State, view: View) -> Choice | None:
        """An older keyframe whose points give the length that the current one does not."""
        for other in state.older()[: self._config.relocalisation_candidates]:
            again = self._at_guess(state, view, other, _expected(state, other))
            if not again.found.has_length and again.guided and not self._budget.exceeded:
                again = self._localiser.attempt(state, view, other, [])
            if again.found.has_length:
                return Choice(state, again, note=f"back to keyframe {other.id}: ")
        return None

    # ---- when lost

    def relocalised(self, state: State, view: View, first: Attempt | None = None) -> Choice | Doubt:
        """Whether a known place is found again: by the current keyframe, or by the next older ones in turn (from
        `state.turn` on).

        Args:
            first: the attempt against the current keyframe, where that is one of those to be judged.
        """
        doubt = Doubt()
        for attempt in self._attempts_when_lost(state, view, first):
            if not attempt.found.ok:
                continue
            judged = self._judged(state, view, attempt, found_again(state, attempt.keyframe))
            if isinstance(judged, Choice):
                return judged
            doubt = doubt.beside(judged)
        return doubt

    def _attempts_when_lost(self, state: State, view: View, first: Attempt | None) -> Iterator[Attempt]:
        if first is not None:
            yield first
        waiting = {p.keyframe_id: p for p in state.candidate.places} if state.candidate is not None else {}
        known = [k for k in state.keyframes if k.id in waiting and (first is None or k.id != first.keyframe.id)]
        for keyframe in known:
            yield self._attempt(state, view, keyframe, wide=_turned(waiting[keyframe.id].T_world_from_camera, keyframe))
        tried = [k for k in self.next_in_turn(state) if k.id not in waiting]
        for i, keyframe in enumerate(tried):
            yield self._attempt(state, view, keyframe, wide=searched_wide(state, i + 1, self._config, self._budget))

    def _waiting_for(self, state: State) -> list[int]:
        """Numbers of the keyframes that saw a frame which waits for a second one."""
        return [p.keyframe_id for p in state.candidate.places] if state.candidate is not None else []

    def _attempt(self, state: State, view: View, keyframe: Keyframe, *, wide: bool) -> Attempt:
        """The frame against a keyframe, without a guess; each is asked once, and once more where a `wide` search may
        find what another did not."""
        known, searched = self._asked.get(keyframe.id, (None, False))
        if known is None or (wide and not searched and not known.found.ok):
            known = self._localiser.attempt(state, view, keyframe, [], wide=wide)
            self._asked[keyframe.id] = known, wide
        return known

    def _judged(self, state: State, view: View, attempt: Attempt, note: str) -> Choice | Doubt:
        """Whether an attempt is a return (`returns`)."""
        keyframe = attempt.keyframe
        if attempt.inliers < self._config.relocalisation_inliers:
            return Doubt()  # too few to be worth a word
        evidence = self._evidence(state, attempt)
        weakness = evidence.weakness(self._config.relocalisation_inliers)
        if weakness:
            return Doubt(f"keyframe {keyframe.id} does not prove it: {weakness}")
        T = _placed(attempt)
        near = reachable(state, T, keyframe.segment, view.frame.stamp_ns)
        if near is False:
            return Doubt(f"keyframe {keyframe.id} sees something alike where the camera cannot have come so soon")
        place = Place(keyframe.id, T, len(evidence.cells))
        neighbours = self._neighbours(state, keyframe, T)
        sights = [Sighting(keyframe.id, T, evidence.cells), *self._sights(state, view, neighbours, T)]
        witness = any(disagreement(T, s.T_world_from_camera, state.typical_depth) <= 1.0 for s in sights[1:])
        second = self._second_frame_agrees(state, view, T)
        if near:
            enough = evidence.strong or witness or second
        else:  # carried off, or away for long: a second place and a second time, where there are neighbours to ask
            enough = second and evidence.broad and (witness or (evidence.strong and not neighbours))
        if not enough:
            return Doubt(f"keyframe {keyframe.id} sees this frame, a second frame must agree", (place,))
        rival = self._rival(state, view, sights, near=near)
        if rival is not None:
            reason = f"ambiguous: keyframes {keyframe.id} and {rival.keyframe_id} see this frame at two places"
            other = Place(rival.keyframe_id, rival.T_world_from_camera, len(rival.cells))
            return Doubt(reason, (place, other), ambiguous=True)
        return Choice(replace(state, candidate=None), attempt, Status.RELOCALISED, note)

    def _evidence(self, state: State, attempt: Attempt) -> Evidence:
        metric = state.segments.source_of(attempt.keyframe.segment).scale is Scale.METRIC
        return evidence_of(attempt, metric=metric)

    def _neighbours(self, state: State, keyframe: Keyframe, T_world: Float64) -> list[Keyframe]:
        """Other keyframes that should see a frame at this pose (4, 4) too."""
        near = state.keyframes.nearest(T_world, keyframe.segment, within=_SHARED_VIEW)
        return [k for k in near if k.id != keyframe.id and k.camera is not None][:_WITNESSES]

    def _rival(self, state: State, view: View, sights: list[Sighting], *, near: bool | None) -> Sighting | None:
        """A keyframe that sees the frame at another place as well as the first of these sights does at its own.

        Others are asked until one does, all of them where the camera may be anywhere; those first that saw the frame
        before.
        """
        first, sights = sights[0], list(sights)
        segment = state.keyframes[first.keyframe_id].segment

        def found() -> Sighting | None:
            stamp = view.frame.stamp_ns
            there = [s for s in sights if reachable(state, s.T_world_from_camera, segment, stamp) is not False]
            return contradiction(first.T_world_from_camera, sights, there, state.typical_depth)

        others = self._others(state, segment, {s.keyframe_id for s in sights})
        contraries = _CONTRARIES // 2 if self._budget.exceeded else _CONTRARIES
        rival = found()
        if rival is not None:
            return rival
        for sight in self._sights(state, view, others if near is None else others[:contraries]):
            sights.append(sight)
            rival = found()
            if rival is not None:
                return rival
        return None

    def _others(self, state: State, segment: int, asked: set[int]) -> list[Keyframe]:
        """All others of a segment: those that saw the frame before, then the newest first."""
        others = [k for k in state.keyframes.of_segment(segment) if k.id not in asked]
        others = [k for k in others if k.camera is not None and k.structure is not None]
        waiting = self._waiting_for(state)
        return sorted(others, key=lambda k: (k.id not in waiting, k.id not in self._asked, -k.id))

    def _sights(
        self, state: State, view: View, keyframes: list[Keyframe], T_world: Float64 | None = None
    ) -> Iterator[Sighting]:
        """Where each keyframe puts the frame, if it can prove that it sees it.

        Args:
            T_world: (4, 4) where it should see the frame; without it things that are turned are not searched for.
                Places that are alike, as doors of a corridor are, look alike without a turn.
        """
        for keyframe in keyframes:
            attempt = self._sight(state, view, keyframe, T_world)
            if not attempt.found.has_length or not attempt.found.ok:
                continue
            evidence = self._evidence(state, attempt)
            if not evidence.weakness(self._config.relocalisation_inliers):
                yield Sighting(keyframe.id, _placed(attempt), evidence.cells)

    def _sight(self, state: State, view: View, keyframe: Keyframe, T_world: Float64 | None) -> Attempt:
        if self._budget.exceeded and T_world is not None and keyframe.structure is not None:
            guess = poses.compose(poses.inverse(T_world), keyframe.T_world_from_camera)
            return self._at_guess(state, view, keyframe, guess)
        return self._attempt(state, view, keyframe, wide=T_world is not None and _turned(T_world, keyframe))

    def _second_frame_agrees(self, state: State, view: View, T_world: Float64) -> bool:
        """Whether a frame that waits for a second one is where this one says, by the motion between the two."""
        waiting = state.candidate
        if waiting is None or waiting.view.camera is None or view.camera is None:
            return False
        for place in waiting.places:
            between = poses.compose(poses.inverse(T_world), place.T_world_from_camera)
            if float(np.linalg.norm(between[:3, 3])) > _STEP_SHARE * state.typical_depth:
                continue
            seen = self._motion_since(waiting, view)
            if seen.ok and poses.rotation_angle_deg(seen.T_query_from_reference, between) < _STEP_DEG:
                return True
        return False

    def _motion_since(self, waiting: Candidate, view: View) -> RelativePose:
        """Of the camera since the frame that waits; matched once."""
        if self._since is None:
            assert waiting.view.camera is not None
            assert view.camera is not None
            matching = self._localiser.matching
            matches = matching.match(matching.reference(waiting.view), view.encoding)
            self._since = estimate_relative_pose(
                matches, waiting.view.camera, view.camera, config=self._config.pose, seed=self._config.seed
            )
        return self._since

    def next_in_turn(self, state: State) -> list[Keyframe]:
        """The older keyframes that are tried for one lost frame."""
        older = state.older()
        count = min(self._config.relocalisation_candidates, len(older), 1 if self._budget.exceeded else len(older))
        return [older[(state.turn + i) % len(older)] for i in range(count)]

    def new_segment(self, state: State, view: View) -> Choice | None:
        """Two lost frames in a row that match each other begin a new segment at the last known pose.

        Args:
            state: its `tentative` is the first of them.
        """
        tentative, used = state.tentative, state.segment_was_tracked
        if tentative is None or tentative.camera is None:
            return None
        if not self._localiser.matching.references_differ:
            probe = self._localiser.matching.match(tentative.encoding, view.encoding)
            if len(probe) < 2 * self._config.min_inliers:
                return None
        segment = state.segments.count if used else state.segments.current
        keyframe = self._maker.make(tentative, state.next_id, state.T_world_from_camera, segment, use_metric=True)
        attempt = self._localiser.attempt(state, view, keyframe, [])
        if not attempt.found.ok:
            return None
        if used:
            note = f"new segment {segment} at the last known pose after {state.lost_frames} lost frames; "
            state = replace(state, segments=state.segments.begun())
        else:
            note = f"begun again at frame {keyframe.frame_index}: nothing matched the first frame; "
            state = replace(state, keyframes=state.keyframes.without_segment(segment))
        return Choice(state.with_keyframe(keyframe).with_source_of(keyframe), attempt, note=note)

    # ---- after a frame was tracked

    def returned(self, state: State, known: int, *, due: bool) -> State | None:
        """Takes up an older keyframe where it sees the last frame too: its points are better known and drifted less.

        The two must agree on where the frame is, unless the older one is the far better connected (`Keyframe.support`).

        Args:
            state: its `last` is the frame.
            known: points of known depth by which the current keyframe sees the frame.
            due: the keyframe is to be replaced in any case: then a full match is worth its time.

        Returns:
            The state in which the frame was tracked against the older keyframe, or None.
        """
        keyframe, tracked = state.keyframe, state.last
        assert tracked is not None
        view, inliers = tracked.attempt.view, tracked.attempt.inliers
        T_world = state.pose_of(keyframe, tracked)
        near = state.keyframes.nearest(T_world, state.segments.current, within=_SAME_VIEW)
        candidate = next((k for k in near if k.id != keyframe.id and k.camera is not None), None)
        if candidate is None or candidate.structure is None or candidate.size != view.frame.size:
            return None
        guess = poses.compose(poses.inverse(T_world), candidate.T_world_from_camera)
        enough = self._config.relocalisation_inliers
        enough = max(enough, min(inliers, 4 * enough))
        better_connected = candidate.support >= 2 * min(keyframe.support, known)
        again = self._at_guess(state, _at_rest(view), candidate, guess)
        weak = candidate.support >= _FAR_BETTER * keyframe.support
        if weak and due and not self._budget.exceeded and not (_sees(again, enough) and _agree(again, guess, state)):
            # after a stretch of few points the guess is far off, and little is found near it
            again = self._at_leap(state, _at_rest(view), candidate, guess)
            if not _sees(again, enough):
                again = self._localiser.attempt(state, _at_rest(view), candidate, [guess])
        if not _sees(again, enough) or not (better_connected or _agree(again, guess, state)):
            return None
        T = again.found.T_frame_from_keyframe
        sharing = Sharing.of(again, T)
        candidate = with_best(again.keyframe, sharing)
        if outworn(candidate, sharing, self._config):
            return None
        candidate = replace(candidate, tracked=candidate.tracked + 1)
        state = replace(state, keyframes=state.keyframes.updated(candidate), current_id=candidate.id)
        return state.with_last(Tracked(again, T))

    def _at_guess(self, state: State, view: View, candidate: Keyframe, guess: Float64) -> Attempt:
        """The frame against a keyframe relative to which its pose is about known: guided by that where possible."""
        matching = self._localiser.matching
        if not matching.can_guide:
            return self._localiser.attempt(state, view, candidate, [guess])
        assert candidate.structure is not None
        camera = state.turning.expected(view, candidate).view.camera
        assert camera is not None
        matches = matching.guided(
            candidate.reference, view.encoding, prior_from_pose(candidate.structure, camera, guess)
        )
        return self._localiser.attempt(state, view, candidate, [guess], matches, guided=True)

    def _at_leap(self, state: State, view: View, candidate: Keyframe, guess: Float64) -> Attempt:
        """The frame against a keyframe from which the camera may have gone anywhere meanwhile: guided from what binary
        features of the two images say, where possible."""
        matching = self._localiser.matching
        if not matching.can_guide:
            return self._localiser.attempt(state, view, candidate, [guess])
        points = matching.guide_points(candidate.reference)
        prior = prior_at_rest(points, candidate, view.frame.stamp_ns)
        matches = matching.guided(candidate.reference, view.encoding, prior)
        return self._localiser.attempt(state, view, candidate, [guess], matches, guided=True)


def _expected(state: State, keyframe: Keyframe) -> Float64:
    """T_frame_from_keyframe (4, 4) of a frame that is where the last one was."""
    return poses.compose(poses.inverse(state.T_world_from_camera), keyframe.T_world_from_camera)


def _sees(attempt: Attempt, enough: int) -> bool:
    """Whether a frame is localised, with its distance, by that many matches."""
    return attempt.found.has_length and attempt.inliers >= enough


def _agree(attempt: Attempt, guess: Float64, state: State) -> bool:
    """Whether the pose found is the one that was expected, (4, 4) T_frame_from_keyframe."""
    T = attempt.found.T_frame_from_keyframe
    moved = float(np.linalg.norm(T[:3, 3] - guess[:3, 3]))
    return poses.rotation_angle_deg(T, guess) < _AGREE_DEG and moved < _AGREE_SHARE * state.typical_depth


def _turned(T_world: Float64, keyframe: Keyframe) -> bool:
    """Whether a frame at a pose (4, 4) sees things turned or slanted, compared with a keyframe."""
    return not upright(poses.compose(poses.inverse(T_world), keyframe.T_world_from_camera))


def _placed(attempt: Attempt) -> Float64:
    """T_world_from_camera (4, 4) of the frame; where no length is known it is held at the keyframe's place."""
    T = attempt.found.T_frame_from_keyframe.copy()
    if not attempt.found.has_length:
        T[:3, 3] = 0.0
    return poses.compose(attempt.keyframe.T_world_from_camera, poses.inverse(T))


def found_again(state: State, keyframe: Keyframe) -> str:
    """In words, that a keyframe sees the lost camera."""
    if not state.lost_frames:
        return f"found by the older keyframe {keyframe.id}; "
    return f"found again by keyframe {keyframe.id} after {state.lost_frames} lost frames; "


def _late(tracked: Tracked) -> str:
    return f"frame {tracked.attempt.view.frame.index} became a keyframe first: "


def _at_rest(view: View) -> View:
    """As before the first attempt."""
    return replace(view, camera=view.frame.camera, rate=None)
