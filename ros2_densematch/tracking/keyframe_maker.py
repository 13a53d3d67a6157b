"""Making keyframes: encodings, metric points, and points carried over from the keyframe before."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ros2_densematch.arrays import Float64
from ros2_densematch.geometry import poses
from ros2_densematch.geometry.correspondences import Correspondences
from ros2_densematch.matchers.base import Encoding
from ros2_densematch.tracking import mapping
from ros2_densematch.tracking.attempt import Attempt
from ros2_densematch.tracking.config import TrackerConfig
from ros2_densematch.tracking.guidance import prior_backwards
from ros2_densematch.tracking.keyframe import Keyframe
from ros2_densematch.tracking.localisation import relative_weight
from ros2_densematch.tracking.matching import Matching
from ros2_densematch.tracking.metric import rho_from_stereo
from ros2_densematch.tracking.segments import LengthSource
from ros2_densematch.tracking.state import State, Tracked
from ros2_densematch.tracking.structure import Structure, transfer
from ros2_densematch.tracking.view import View


class KeyframeMaker:
    """Makes keyframes out of frames.

    Args:
        matching: of the frame in work.
        config: of the tracker.
    """

    def __init__(self, matching: Matching, config: TrackerConfig) -> None:
        self._matching = matching
        self._config = config

    def make(
        self, view: View, number: int, T_world_from_camera: Float64, segment: int, *, use_metric: bool
    ) -> Keyframe:
        """A keyframe without points but those that depth or stereo measure.

        Args:
            number: of the keyframe.
            use_metric: the map unit is the metre or not yet chosen; otherwise depth and stereo are left aside.
        """
        frame, reference = view.frame, self._matching.reference(view)
        structure, note = None, ""
        if view.camera is not None:
            depth = frame.depth if use_metric else None
            structure = Structure(view.camera, depth, 3 * self._config.max_matches, measured=depth is not None)
            if frame.right_image is not None and frame.right_camera is not None and use_metric:
                try:
                    structure = self._with_stereo(view, reference, structure)
                except ValueError as error:
                    note = f"; stereo not used: {error}"
        return Keyframe(
            id=number,
            frame_index=frame.index,
            stamp_ns=frame.stamp_ns,
            size=frame.size,
            camera=view.camera,
            segment=segment,
            T_world_from_camera=T_world_from_camera,
            reference=reference,
            query=view.encoding,
            structure=structure,
            odometry=frame.odometry,
            rate=view.rate,
            note=note,
        )

    def promoted(self, state: State, tracked: Tracked) -> State:
        """The state in which a frame that was tracked against the current keyframe has taken its place; the points that
        both see are carried over."""
        previous, attempt, source = state.keyframe, tracked.attempt, state.segments.source
        T_previous_from_new = poses.inverse(tracked.T_from_keyframe)
        keyframe = self.make(
            attempt.view,
            state.next_id,
            state.pose_of(previous, tracked),
            previous.segment,
            use_metric=source is not LengthSource.FIRST_BASELINE,
        )
        if keyframe.structure is not None and previous.structure is not None:
            inliers = np.flatnonzero(attempt.found.inliers)
            index = attempt.found.index[inliers]
            known = int(np.count_nonzero(previous.structure.known[index]))
            xy = attempt.matches.query_xy[inliers]
            structure = transfer(previous.structure, index, tracked.T_from_keyframe, keyframe.structure, xy)
            keyframe = replace(keyframe, structure=structure, support=min(previous.support, known))
            if structure.known.any():
                back = self._back(keyframe.reference, previous.query, attempt)
                keyframe = mapping.anchored_to_previous(
                    keyframe, previous, back, T_previous_from_new, relative_weight(back)
                )
        state = state.with_keyframe(keyframe)
        return state.with_source_of(keyframe) if source is LengthSource.NOTHING else state

    def _back(self, new: Encoding, previous: Encoding, attempt: Attempt) -> Correspondences:
        """Matches of a new keyframe with the one before, against which it was tracked: the same ones backwards
        and more, where the matcher can be guided by them."""
        if not self._matching.can_guide:
            return self._matching.match(new, previous, wide=False)
        prior = prior_backwards(attempt.matches.select(attempt.found.inliers))
        return self._matching.guided(new, previous, prior)

    def _with_stereo(self, view: View, reference: Encoding, structure: Structure) -> Structure:
        frame = view.frame
        assert frame.right_camera is not None
        assert frame.camera is not None
        matches = self._matching.match(reference, self._matching.right(frame), wide=False)
        xy, rho, info = rho_from_stereo(matches, frame.camera, frame.right_camera)
        structure, index = structure.with_points(xy)
        _, first = np.unique(index, return_index=True)
        first = first[index[first] >= 0]
        structure = structure.with_prior(index[first], rho[first], info[first])
        return replace(structure, measured=bool(structure.known.any()))
