"""Keyframes and the bounded store that holds them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from ros2_densematch.geometry import poses
from ros2_densematch.geometry.camera import Camera
from ros2_densematch.matchers.base import Encoding
from ros2_densematch.tracking.refinement import Float
from ros2_densematch.tracking.structure import Structure


@dataclass
class Sight:
    """One frame's view of a keyframe's points, kept for the joint refinement.

    Attributes:
        T_frame_from_keyframe: (4, 4), map units.
        index: (N,) points of the keyframe.
        xy: (N, 2) normalised coordinates where the frame sees them.
        weight: (N,) relative weight of each observation, 1 = typical.
        fixed: the pose is not changed (the keyframe before, which holds the scale).
    """

    T_frame_from_keyframe: Float
    index: NDArray[np.intp]
    xy: Float
    weight: Float
    fixed: bool = False


@dataclass
class Keyframe:
    """A reference image with everything that is reused while frames are matched against it.

    Attributes:
        id: number of the keyframe since the tracker began.
        frame_index, stamp_ns, size, camera, odometry: of its frame.
        segment: number of the stretch of trajectory that it belongs to.
        T_world_from_camera: (4, 4), in the map unit of its segment.
        reference: encoding for `match(reference, ...)`.
        query: encoding for `match(..., query)`; the same object where the matcher makes no difference.
        structure: its points; None without a camera.
        window: some of the frames that saw it, for the joint refinement.
        best_inliers, best_cells: the most that any frame reached, for the decision when to replace it.
        support: the fewest known points by which it or a keyframe before it was connected to its predecessor.
        tracked: number of frames that were tracked against it.
        rate: (3,) angular velocity at its time in rad/s, in its own frame; None = not known yet.
    """

    id: int
    frame_index: int
    stamp_ns: int
    size: tuple[int, int]
    camera: Camera | None
    segment: int
    T_world_from_camera: Float
    reference: Encoding
    query: Encoding
    structure: Structure | None
    odometry: Float | None = None
    window: list[Sight] = field(default_factory=list)
    best_inliers: int = 0
    best_cells: int = 0
    support: float = float("inf")
    tracked: int = 0
    rate: Float | None = None

    def set_camera(self, camera: Camera) -> None:
        """Takes another camera for the same image: its points get new rays."""
        self.camera = camera
        if self.structure is not None:
            self.structure.set_camera(camera)

    def rescale(self, factor: float, anchor: Float) -> None:
        """Multiplies all lengths by `factor`; the world point `anchor` (3,) stays where it is."""
        T = self.T_world_from_camera.copy()
        T[:3, 3] = anchor + factor * (T[:3, 3] - anchor)
        self.T_world_from_camera = T
        for sight in self.window:
            sight.T_frame_from_keyframe = _scaled(sight.T_frame_from_keyframe, factor)
        if self.structure is not None:
            self.structure.rescale(factor)


class KeyframeStore:
    """Keyframes in order of their making; the most redundant one goes when there are too many."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._keyframes: list[Keyframe] = []

    def __len__(self) -> int:
        return len(self._keyframes)

    def __iter__(self) -> Iterator[Keyframe]:
        return iter(self._keyframes)

    def add(self, keyframe: Keyframe) -> None:
        """Adds a keyframe, which is never the one that is dropped."""
        self._keyframes.append(keyframe)
        while len(self._keyframes) > self.limit:
            self._keyframes.remove(self._most_redundant(keyframe))

    def drop_segment(self, segment: int) -> None:
        """Forgets all keyframes of a segment."""
        self._keyframes = [k for k in self._keyframes if k.segment != segment]

    def nearest(self, T_world_from_camera: Float, segment: int, within: float | None = None) -> list[Keyframe]:
        """Keyframes, those of `segment` that look most alike from this pose (4, 4) first.

        Args:
            within: only those of `segment` that differ by less: radians of turn plus distance over median depth.
        """
        unit = self._unit()
        if within is not None:
            same = [k for k in self._keyframes if k.segment == segment]
            near = [k for k in same if _difference(k.T_world_from_camera, T_world_from_camera, unit) < within]
            return sorted(near, key=lambda k: (_difference(k.T_world_from_camera, T_world_from_camera, unit), k.id))
        return sorted(
            self._keyframes,
            key=lambda k: (k.segment != segment, _difference(k.T_world_from_camera, T_world_from_camera, unit), -k.id),
        )

    def _unit(self) -> float:
        """A length that changes a view about as much as one radian: the median depth of all known points."""
        rho = [k.structure.median_rho() for k in self._keyframes if k.structure is not None]
        known = [r for r in rho if np.isfinite(r) and r > 0]
        return 1.0 / float(np.median(known)) if known else 1.0

    def _most_redundant(self, newest: Keyframe) -> Keyframe:
        unit = self._unit()
        others = [k for k in self._keyframes if k is not newest]

        def loneliness(k: Keyframe) -> tuple[float, int]:
            same = [o for o in self._keyframes if o is not k and o.segment == k.segment]
            nearest = [_difference(k.T_world_from_camera, o.T_world_from_camera, unit) for o in same]
            return (min(nearest) if nearest else np.inf, k.id)

        return min(others, key=loneliness)


def _difference(A: Float, B: Float, unit: float) -> float:
    turn = np.radians(poses.rotation_angle_deg(A, B))
    return float(turn + np.linalg.norm(A[:3, 3] - B[:3, 3]) / unit)


def _scaled(T: Float, factor: float) -> Float:
    scaled: Float = T.copy()
    scaled[:3, 3] *= factor
    return scaled
