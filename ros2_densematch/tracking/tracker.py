"""The tracker: frame by frame from images to correspondences, relative poses and a trajectory.

Pure and deterministic: no input or output, no clock but for the timings, the same frames give the same answers.
"""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from ros2_densematch.geometry import poses
from ros2_densematch.geometry.correspondences import Correspondences
from ros2_densematch.geometry.two_view import RelativePose, Scale
from ros2_densematch.matchers.base import Matcher
from ros2_densematch.tracking import mapping
from ros2_densematch.tracking.config import TrackerConfig
from ros2_densematch.tracking.frame import Frame, frame_problem
from ros2_densematch.tracking.keyframe import Keyframe, KeyframeStore
from ros2_densematch.tracking.keyframe_maker import KeyframeMaker, Seen, milliseconds_since, unsuitable
from ros2_densematch.tracking.localisation import Localisation, localise
from ros2_densematch.tracking.metric import odometry_length
from ros2_densematch.tracking.tracked_frame import Status, TrackedFrame
from ros2_densematch.tracking.turning import Turning

__all__ = ["Status", "TrackedFrame", "Tracker", "TrackerConfig"]

Float = NDArray[np.float64]

_MEASURED_STD = 0.02  # relative standard deviation of the metre from depth or stereo, and from odometry
_ODOMETRY_STD = 0.05
_USUAL_GAIN = 0.1  # share of a new count in the running mean of inliers
_STRONGER = 1.5  # times the support that another keyframe must give to take a frame over
_FEW_KNOWN = 30  # with fewer known points in view an older keyframe is looked for
_AGREE_DEG, _AGREE_SHARE = 1.5, 0.05  # two keyframes agree on a pose: turn, and distance over median depth
_SAME_VIEW = 0.35  # radians of turn plus distance over median depth within which an older keyframe shows the same


class Tracker:
    """Tracks a sequence of frames against keyframes.

    The world frame is the optical frame of the first camera. Lengths are metres where a depth image, a stereo pair or
    odometry gives them; otherwise one arbitrary unit (the median depth of the first keyframe), carried from keyframe to
    keyframe by the points that both see; and no length at all while the camera has only turned or hardly moved.

    Args:
        matcher, config: any matcher; settings, None = the defaults.
    """

    def __init__(self, matcher: Matcher, config: TrackerConfig | None = None) -> None:
        self.matcher = matcher
        self.config = config if config is not None else TrackerConfig()
        self._maker = KeyframeMaker(self.matcher, self.config)
        self.reset()

    def reset(self) -> None:
        """Forgets everything but the numbers of keyframes; the next frame becomes the first keyframe."""
        self._store = KeyframeStore(self.config.max_keyframes)
        self._keyframe: Keyframe | None = None
        self._last: Seen | None = None  # the previous frame, when it was tracked against the current keyframe
        self._tentative: Seen | None = None  # a lost frame that may begin a new segment
        self._last_T_world = np.eye(4)
        self._last_stamp_ns: int | None = None
        self._lost_frames = 0
        self._segment, self._segments = 0, 1
        self._scale, self._scale_std = Scale.NONE, float("nan")
        self._scales: dict[int, tuple[Scale, float]] = {}
        self._typical_depth = 1.0  # median depth of the last known points, map units: the unit of a new segment
        self._usual_inliers = 0.0  # of the frames so far, the last ones most
        self._turn = 0  # which older keyframe is tried next
        self._turning = Turning(self.config.readout_s)
        self._asked_for = ""  # why the next frame becomes a keyframe whatever it shows

    def reconfigure(self, config: TrackerConfig, matcher: Matcher | None = None) -> None:
        """New settings from the next frame on. What is known stays; but another matcher begins anew."""
        if config.readout_s != self.config.readout_s:
            self._turning = Turning(config.readout_s)
        self.config, self._maker.config, self._store.limit = config, config, config.max_keyframes
        if matcher is not None:
            self.matcher = self._maker.matcher = matcher
            self.reset()

    def request_keyframe(self) -> None:
        """The next frame that is tracked becomes a keyframe."""
        self._asked_for = "it was asked for"

    @property
    def keyframes(self) -> tuple[Keyframe, ...]:
        """The keyframes in memory, oldest first."""
        return tuple(self._store)

    @property
    def readout_s(self) -> float:
        """Seconds from the first to the last row of the camera's rolling shutter, as given or as estimated so far; 0 =
        all rows at once, as far as is known."""
        return self._turning.shutter.readout_s

    @property
    def _depth_is_measured(self) -> bool:
        """Depth images or stereo give the metre: it does not drift."""
        return self._scale is Scale.METRIC and self._scale_std == _MEASURED_STD

    def process(self, frame: Frame) -> TrackedFrame:
        """Tracks the next frame; never raises for what is in the frame: a frame that cannot be used is REJECTED."""
        problem = frame_problem(frame)
        if not problem and self._last_stamp_ns is not None and frame.stamp_ns <= self._last_stamp_ns:
            problem = (
                f"its time {frame.stamp_ns} ns is not after the previous frame's {self._last_stamp_ns} ns: sort the "
                "frames, or reset the tracker when the clock was set back"
            )
        if problem:
            where = f"{frame.source}: " if frame.source else ""
            return TrackedFrame(frame.index, frame.stamp_ns, Status.REJECTED, where + problem, segment=self._segment)
        self._last_stamp_ns = frame.stamp_ns
        timings = {"encode": 0.0, "match": 0.0, "pose": 0.0}
        start = time.perf_counter()
        encoding = self.matcher.encode(frame.image, mask=frame.mask)
        timings["encode"] = milliseconds_since(start)
        start, before = time.perf_counter(), timings["encode"]
        seen = Seen(frame, encoding, timings, frame.camera)
        answer = self._track(seen)
        timings["pose"] = milliseconds_since(start) - timings["match"] - (timings["encode"] - before)
        if answer.T_world_from_camera is not None:
            self._last_T_world = answer.T_world_from_camera
            self._turning.passed(seen, answer.T_world_from_camera)
        return answer

    def _track(self, seen: Seen) -> TrackedFrame:
        if self._keyframe is None:
            self._begin(seen, np.eye(4))
            return self._answer(seen, Status.INITIALISED, "first frame: it is the first keyframe", is_keyframe=True)
        keyframe = self._keyframe
        if seen.frame.camera is None or keyframe.camera is None:
            return self._track_uncalibrated(seen, keyframe)
        found = self._localise(seen, keyframe, self._predictions())
        first = seen.attempt
        moved = float(np.linalg.norm(found.T_frame_from_keyframe[:3, 3])) > 0
        if found.ok and (found.has_length or self._scale == Scale.NONE or not moved):
            rejoined = self._rejoin_older_segment(seen, keyframe)
            if rejoined is not None:
                return rejoined
            seen.attempt = first
            if self._lost_frames:
                return self._accept(seen, keyframe, found, Status.RELOCALISED, self._found_again(keyframe))
            keyframe, found, why = self._stronger(seen, keyframe, found)
            return self._accept(seen, keyframe, found, Status.TRACKED, why)
        if self._last is not None and self._last.T_from_keyframe is not None:
            # The keyframe is out of sight, the previous frame hardly is: make that one the keyframe, a frame late.
            previous = self._last
            promoted = self._promote(previous, keyframe)
            again = self._localise(seen, promoted, [np.eye(4)])
            if again.ok and (again.has_length or not found.ok):
                late = f"frame {previous.frame.index} became a keyframe first: "
                return self._accept(seen, promoted, again, Status.TRACKED, late)
        if found.ok:
            for other in self._older(keyframe)[: self.config.relocalisation_candidates]:
                again = self._localise(seen, other, [])
                if again.has_length:
                    return self._accept(seen, other, again, Status.TRACKED, f"back to keyframe {other.id}: ")
            seen.attempt = first
            return self._accept(seen, keyframe, found, Status.TRACKED)
        return self._lost(seen)

    def _stronger(self, seen: Seen, keyframe: Keyframe, found: Localisation) -> tuple[Keyframe, Localisation, str]:
        """The keyframe against which a frame with few matches is tracked, and what is found there.

        A sudden drop is mostly blur: a blurred frame matches its blurred predecessor better than a sharp keyframe, and
        a sharp frame an older keyframe better than a blurred one that was just made.
        """
        inliers, first = int(found.inliers.sum()), seen.attempt
        if inliers >= self.config.keyframe_inliers * max(keyframe.best_inliers, self._usual_inliers):
            return keyframe, found, ""
        previous = self._last
        if previous is not None and previous.T_from_keyframe is not None:
            probe = None
            if not self.matcher.reference_encoding_differs:
                probe = self._maker.match(seen, previous.encoding, seen.encoding)
            if probe is None or _support(probe) > _STRONGER * _support(seen.matches):
                promoted = self._promote(previous, keyframe)
                again = self._localise(seen, promoted, [np.eye(4)], probe)
                if again.ok and again.has_length >= found.has_length:
                    return promoted, again, f"frame {previous.frame.index} became a keyframe first: "
        else:
            for other in self._older(keyframe)[:1]:
                again = self._localise(seen, other, [])
                if again.has_length and int(again.inliers.sum()) > _STRONGER * inliers:
                    return other, again, f"back to keyframe {other.id}: "
        seen.attempt = first
        self._keyframe = keyframe
        return keyframe, found, ""

    def _older(self, keyframe: Keyframe) -> list[Keyframe]:
        """The other keyframes that can give a pose, likeliest first."""
        ordered = self._store.nearest(self._last_T_world, self._segment)
        return [k for k in ordered if k is not keyframe and k is not self._keyframe and k.camera is not None]

    # ---- poses against keyframes

    def _localise(
        self, seen: Seen, keyframe: Keyframe, predictions: list[Float], matches: Correspondences | None = None
    ) -> Localisation:
        """Pose against a keyframe; `matches` where they were made already."""
        seen.matches = self._maker.match(seen, keyframe.reference, seen.encoding) if matches is None else matches
        self._turning.prepare(seen, keyframe)
        found = self._pose(seen, keyframe, predictions)
        if found.ok and self._turning.measure(seen, keyframe, found):
            again = self._pose(seen, keyframe, [found.T_frame_from_keyframe] if found.has_length else predictions)
            found = again if again.ok else found
        seen.found = found
        return found

    def _pose(self, seen: Seen, keyframe: Keyframe, predictions: list[Float]) -> Localisation:
        assert keyframe.structure is not None
        assert seen.camera is not None
        assert seen.matches is not None
        return localise(
            seen.matches,
            keyframe.structure,
            seen.camera,
            min_inliers=self.config.min_inliers,
            # measured depth does not drift: there the bound would only cost frames
            max_rotation_std_deg=float("inf") if self._scale == Scale.METRIC else self.config.max_rotation_std_deg,
            predictions=predictions,
            config=self.config.pose,
            seed=self.config.seed,
        )

    def _predictions(self) -> list[Float]:
        if self._last is None or self._last.T_from_keyframe is None:
            return []
        return [self._last.T_from_keyframe]

    def _accept(
        self, seen: Seen, keyframe: Keyframe, found: Localisation, status: Status, prefix: str = ""
    ) -> TrackedFrame:
        """The frame is consistent with the keyframe: position, points, and whether it replaces the keyframe."""
        frame, config = seen.frame, self.config
        structure = keyframe.structure
        assert structure is not None
        assert frame.camera is not None
        assert seen.matches is not None
        self._keyframe, self._lost_frames, self._tentative = keyframe, 0, None
        self._usual_inliers += _USUAL_GAIN * (int(found.inliers.sum()) - self._usual_inliers)
        self._enter_segment(keyframe.segment)
        keyframe.tracked += 1
        reason = found.reason
        if self._depth_is_measured:
            self._turning.learn(seen, keyframe, found)
        T = found.T_frame_from_keyframe.copy()
        if not found.has_length:
            T, reason = self._without_length(seen, keyframe, found)
        has_length = self._scale != Scale.NONE and bool(structure.known().any())
        if has_length:
            reason += self._learn_metric(seen, keyframe, found, T)
            T = found.T_frame_from_keyframe if found.has_length else T
            if found.has_length and mapping.add_sight(keyframe, found, T, config):
                mapping.refine_window(keyframe)
                T = keyframe.window[-1].T_frame_from_keyframe
        if structure.known().any():
            self._typical_depth = 1.0 / max(structure.median_rho(), 1e-9)
        seen.T_from_keyframe = T
        self._last = seen
        inliers = int(found.inliers.sum())
        cells = mapping.covered_cells(seen.matches.reference_xy[found.inliers], keyframe.size)
        why = mapping.keyframe_reason(keyframe, inliers, cells, found.parallax_deg, poses.rotation_angle_deg(T), config)
        why = self._asked_for or unsuitable(keyframe, frame, self._scale) or why
        known = int(np.count_nonzero(structure.known()[found.index[found.inliers]]))
        weak = known < _FEW_KNOWN and keyframe.tracked % config.relocalisation_interval == 0
        # where depth is measured the unit does not drift: going back would make a jump and gain little
        may_drift = self._scale is not Scale.NONE and not self._depth_is_measured
        older_may_do = (why or weak) and may_drift and not self._asked_for
        if older_may_do and self._return_to_older(seen, keyframe, inliers, known):
            assert seen.found is not None
            back = f"back to keyframe {self._keyframe.id}; {seen.found.reason}"
            return self._answer(seen, status, prefix + back, self._keyframe)
        if why:
            self._promote(seen, keyframe)
            changed = Status.NEW_KEYFRAME if status is Status.TRACKED else status
            return self._answer(seen, changed, f"{prefix}new keyframe: {why}; {reason}", keyframe, is_keyframe=True)
        return self._answer(seen, status, prefix + reason, keyframe)

    def _return_to_older(self, seen: Seen, keyframe: Keyframe, inliers: int, known: int) -> bool:
        """Takes up an older keyframe where it sees this frame as well: its points are better known and drifted less.

        The two must agree on where the frame is, unless the older one is the far better connected (`Keyframe.support`;
        the present one knows no better than by its `known` points in view).
        """
        assert seen.T_from_keyframe is not None
        T_world = poses.compose(keyframe.T_world_from_camera, poses.inverse(seen.T_from_keyframe))
        older = self._store.nearest(T_world, self._segment, within=_SAME_VIEW)
        candidate = next((k for k in older if k is not keyframe and k.camera is not None), None)
        if candidate is None or candidate.structure is None or candidate.size != seen.frame.size:
            return False
        before = (seen.attempt, seen.T_from_keyframe)
        guess = poses.compose(poses.inverse(T_world), candidate.T_world_from_camera)
        found = self._localise(seen, candidate, [guess])
        T = found.T_frame_from_keyframe
        enough = max(self.config.relocalisation_inliers, min(inliers, 4 * self.config.relocalisation_inliers))
        turned, moved = poses.rotation_angle_deg(T, guess), float(np.linalg.norm(T[:3, 3] - guess[:3, 3]))
        agree = turned < _AGREE_DEG and moved < _AGREE_SHARE * self._typical_depth
        better = candidate.support >= 2 * min(keyframe.support, known)
        if found.has_length and int(found.inliers.sum()) >= enough and (agree or better):
            assert seen.matches is not None
            cells = mapping.covered_cells(seen.matches.reference_xy[found.inliers], candidate.size)
            turn = poses.rotation_angle_deg(T)
            count = int(found.inliers.sum())
            if not mapping.keyframe_reason(candidate, count, cells, found.parallax_deg, turn, self.config):
                candidate.tracked += 1
                seen.T_from_keyframe = T
                self._keyframe, self._last = candidate, seen
                return True
        seen.attempt, seen.T_from_keyframe = before
        return False

    def _without_length(self, seen: Seen, keyframe: Keyframe, found: Localisation) -> tuple[Float, str]:
        """The keyframe's points give no length: triangulate them with this frame if it moved enough, else hold."""
        T = found.T_frame_from_keyframe.copy()
        moved = float(np.linalg.norm(T[:3, 3])) > 0
        held = T.copy()
        held[:3, 3] = 0.0
        if not moved:
            return held, f"pure rotation or too little motion: rotation chained, position held; {found.reason}"
        if found.near_parallax_deg < self.config.min_parallax_deg:
            short = f"baseline too short ({found.near_parallax_deg:.2f} degrees of parallax)"
            return held, f"{short}: rotation chained, position held; {found.reason}"
        assert seen.frame.camera is not None
        assert keyframe.structure is not None
        length = odometry_length(seen.frame.odometry, keyframe.odometry)
        depth = self._typical_depth
        T_map = mapping.initialise_structure(keyframe, found, seen.frame.camera.focal, length, depth)
        if T_map is None:
            return held, f"the points do not lie in front of both cameras: position held; {found.reason}"
        if self._scale != Scale.NONE:
            self._new_segment(keyframe)
            note = f"new segment {self._segment}: the length unit was lost while the camera turned away; "
        else:
            note = ""
        metric = length is not None
        self._set_scale(Scale.METRIC if metric else Scale.UNIT, _ODOMETRY_STD if metric else float("nan"))
        unit = "metres from odometry" if metric else "unit = median depth"
        seen.found = replace(found, T_frame_from_keyframe=T_map, has_length=True)
        mapping.add_sight(keyframe, seen.found, T_map, self.config)
        mapping.refine_window(keyframe)
        if keyframe.window:
            T_map = keyframe.window[-1].T_frame_from_keyframe
        return T_map, f"{note}points triangulated ({unit}); {found.reason}"

    def _learn_metric(self, seen: Seen, keyframe: Keyframe, found: Localisation, T: Float) -> str:
        """Uses the frame's depth image: as knowledge about the keyframe's points, or to turn the unit into metres."""
        depth, structure = seen.frame.depth, keyframe.structure
        if depth is None or not found.has_length or structure is None or structure.depth is not None:
            return ""
        assert seen.matches is not None
        xy = seen.matches.query_xy.astype(np.float64)
        if self._scale == Scale.METRIC:
            mapping.add_query_depth(keyframe, found, T, depth, xy)
            return ""
        ratio = mapping.metric_ratio(structure, found, depth, xy)
        if not np.isfinite(ratio) or ratio <= 0:
            return ""
        members = [k for k in self._store if k.segment == self._segment]
        anchor = members[0].T_world_from_camera[:3, 3].copy()
        for k in members:
            k.rescale(ratio, anchor)
        found.T_frame_from_keyframe[:3, 3] *= ratio
        old = self._segment
        self._new_segment(keyframe, whole=True)
        self._set_scale(Scale.METRIC, _MEASURED_STD)
        return f"; new segment {self._segment}: a depth image turned the unit of segment {old} into metres"

    # ---- keyframes and segments

    def _begin(self, seen: Seen, T_world: Float) -> Keyframe:
        """A keyframe without a predecessor."""
        keyframe = self._maker.make(seen, T_world, self._segment, use_metric=True)
        self._store.add(keyframe)
        self._keyframe, self._last, self._tentative = keyframe, None, None
        self._scale_of_first(keyframe)
        return keyframe

    def _scale_of_first(self, keyframe: Keyframe) -> None:
        metric = keyframe.structure is not None and keyframe.structure.measured
        self._set_scale(Scale.METRIC if metric else Scale.NONE, _MEASURED_STD if metric else float("nan"))

    def _promote(self, seen: Seen, previous: Keyframe) -> Keyframe:
        """Makes a tracked frame the current keyframe and carries the points over to it."""
        keyframe = self._maker.promote(seen, previous, use_metric=self._scale is not Scale.UNIT)
        if keyframe.structure is not None and keyframe.structure.measured and self._scale is Scale.NONE:
            self._set_scale(Scale.METRIC, _MEASURED_STD)
        self._store.add(keyframe)
        self._keyframe, self._last = keyframe, None
        return keyframe

    def _new_segment(self, keyframe: Keyframe, *, whole: bool = False) -> None:
        """Begins a segment with this keyframe (or, `whole`, renames the present one)."""
        old = self._segment
        self._segment = self._segments
        self._segments += 1
        for k in self._store:
            if k is keyframe or (whole and k.segment == old):
                k.segment = self._segment

    def _enter_segment(self, segment: int) -> None:
        if segment != self._segment:
            self._segment = segment
            self._scale, self._scale_std = self._scales.get(segment, (Scale.NONE, float("nan")))

    def _set_scale(self, scale: Scale, std: float) -> None:
        self._scale, self._scale_std = scale, std
        self._scales[self._segment] = (scale, std)

    # ---- loss and recovery

    def _found_again(self, keyframe: Keyframe) -> str:
        return f"found again by keyframe {keyframe.id} after {self._lost_frames} lost frames; "

    def _lost(self, seen: Seen) -> TrackedFrame:
        keyframe, first, found = self._keyframe, seen.attempt, seen.found  # against the keyframe as it is now
        assert keyframe is not None
        self._lost_frames += 1
        self._last = None
        candidates = self._older(keyframe)
        for _ in range(min(self.config.relocalisation_candidates, len(candidates))):
            candidate = candidates[self._turn % len(candidates)]
            self._turn += 1
            again = self._localise(seen, candidate, [])
            if again.ok and int(again.inliers.sum()) >= self.config.relocalisation_inliers:
                return self._accept(seen, candidate, again, Status.RELOCALISED, self._found_again(candidate))
        if not self._tracked_segment() or self._lost_frames >= self.config.max_lost_frames:
            started = self._try_new_segment(seen)
            if started is not None:
                return started
        seen.attempt = first
        return self._answer(seen, Status.LOST, f"lost: {found.reason if found else ''}", keyframe)

    def _rejoin_older_segment(self, seen: Seen, keyframe: Keyframe) -> TrackedFrame | None:
        """In a later segment, every few frames, whether a keyframe of an older one sees this frame; then that one goes
        on and the later one is given up: nothing relates the two units but this frame."""
        older = [k for k in self._store if k.segment < self._segment and k.structure is not None]
        older = [k for k in older if self._scales.get(k.segment, (Scale.NONE, 0.0))[0] >= self._scale]
        if not older or keyframe.tracked % self.config.relocalisation_interval:
            return None
        candidate = older[self._turn % len(older)]
        self._turn += 1
        found = self._localise(seen, candidate, [])
        if not found.has_length or int(found.inliers.sum()) < self.config.relocalisation_inliers:
            return None
        left = self._segment
        self._store.drop_segment(left)
        note = f"segment {candidate.segment} found again by keyframe {candidate.id}, segment {left} ends; "
        return self._accept(seen, candidate, found, Status.RELOCALISED, note)

    def _tracked_segment(self) -> bool:
        """Whether any frame was tracked in the present segment."""
        return any(k.tracked > 0 for k in self._store if k.segment == self._segment)

    def _try_new_segment(self, seen: Seen) -> TrackedFrame | None:
        """Two lost frames in a row that match each other begin a new segment at the last known pose."""
        tentative, self._tentative = self._tentative, seen
        if tentative is None or tentative.frame.camera is None or seen.frame.camera is None:
            return None
        if not self.matcher.reference_encoding_differs:
            probe = self._maker.match(seen, tentative.encoding, seen.encoding)
            if len(probe) < 2 * self.config.min_inliers:
                return None
        used, old_segment = self._tracked_segment(), self._segment
        if used:
            self._segment = self._segments
        keyframe = self._maker.make(tentative, self._last_T_world, self._segment, use_metric=True)
        found = self._localise(seen, keyframe, [])
        if not found.ok:
            self._segment = old_segment
            return None
        lost = self._lost_frames
        if used:
            self._segments += 1
            note = f"new segment {self._segment} at the last known pose after {lost} lost frames; "
        else:
            self._store.drop_segment(old_segment)
            note = f"begun again at frame {keyframe.frame_index}: nothing matched the first frame; "
        self._store.add(keyframe)
        self._scale_of_first(keyframe)
        return self._accept(seen, keyframe, found, Status.TRACKED, note)

    # ---- without calibration

    def _track_uncalibrated(self, seen: Seen, keyframe: Keyframe) -> TrackedFrame:
        """Matches only; a keyframe is replaced when too few are left or they moved far."""
        if (seen.frame.camera is None) != (keyframe.camera is None):
            self._begin(seen, self._last_T_world)
            what = "gone" if seen.frame.camera is None else "known"
            status = Status.NO_CALIBRATION if seen.frame.camera is None else Status.INITIALISED
            return self._answer(seen, status, f"the calibration is {what} from here: new keyframe", is_keyframe=True)
        matches = seen.matches = self._maker.match(seen, keyframe.reference, seen.encoding)
        keyframe.tracked += 1
        cells = mapping.covered_cells(matches.reference_xy, keyframe.size) if len(matches) else 0
        why = mapping.keyframe_reason(keyframe, len(matches), cells, 0.0, 0.0, self.config)
        if len(matches):
            moved = np.median(np.linalg.norm(matches.query_xy - matches.reference_xy, axis=1))
            if not why and moved > 0.15 * keyframe.size[0]:
                why = f"the image moved by {moved:.0f} pixels"
        why = self._asked_for or unsuitable(keyframe, seen.frame, self._scale) or why
        reason = f"{len(matches)} matches; no calibration, so no pose: give CameraInfo or a camera file"
        if why:
            self._store.add(self._keyframe_without_pose(seen))
            return self._answer(
                seen, Status.NO_CALIBRATION, f"new keyframe: {why}; {reason}", keyframe, is_keyframe=True
            )
        return self._answer(seen, Status.NO_CALIBRATION, reason, keyframe)

    def _keyframe_without_pose(self, seen: Seen) -> Keyframe:
        keyframe = self._maker.make(seen, self._last_T_world, self._segment, use_metric=True)
        self._keyframe, self._last = keyframe, None
        return keyframe

    # ---- answers

    def _answer(
        self,
        seen: Seen,
        status: Status,
        reason: str,
        keyframe: Keyframe | None = None,
        *,
        is_keyframe: bool = False,
    ) -> TrackedFrame:
        """Collects what is known of a frame; without `keyframe` the frame is itself the (first) keyframe."""
        reference = keyframe if keyframe is not None else self._keyframe
        assert reference is not None
        self._asked_for = "" if is_keyframe else self._asked_for
        tracked = status in (Status.INITIALISED, Status.TRACKED, Status.NEW_KEYFRAME, Status.RELOCALISED)
        T_world = None
        if tracked and reference.camera is not None:
            T_world = reference.T_world_from_camera
            if seen.T_from_keyframe is not None:
                T_world = poses.compose(T_world, poses.inverse(seen.T_from_keyframe))
        found = seen.found if tracked else None
        return TrackedFrame(
            index=seen.frame.index,
            stamp_ns=seen.frame.stamp_ns,
            status=status,
            reason=reason + seen.note,
            keyframe_id=reference.id,
            keyframe_index=reference.frame_index,
            keyframe_stamp_ns=reference.stamp_ns,
            correspondences=seen.matches,
            relative_pose=self._relative_pose(seen) if seen.found is not None else None,
            T_world_from_camera=T_world,
            scale=self._scale if T_world is not None else Scale.NONE,
            scale_std=self._scale_std if T_world is not None else float("nan"),
            is_keyframe=is_keyframe,
            segment=self._segment,
            num_inliers=int(found.inliers.sum()) if found is not None else 0,
            inliers=found.inliers if found is not None else None,
            timings_ms=seen.timings,
        )

    def _relative_pose(self, seen: Seen) -> RelativePose:
        found = seen.found
        assert found is not None
        if self._scale is Scale.METRIC and found.has_length and found.ok and seen.T_from_keyframe is not None:
            return found.metric_pose(seen.T_from_keyframe, self._scale_std)
        return found.two_view


def _support(matches: Correspondences | None) -> float:
    """Expected number of right matches: the sum of their scores."""
    return 0.0 if matches is None else float(matches.score.sum())
