"""Keyframes. They never change: whatever a frame adds to one makes another version with the same number."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ros2_densematch.arrays import Float64
from ros2_densematch.geometry.camera import Camera
from ros2_densematch.matchers.base import Encoding
from ros2_densematch.tracking.structure import Structure


@dataclass(frozen=True, eq=False)
class Observation:
    """One frame's view of a keyframe's points, kept for the joint refinement.

    Attributes:
        T_frame_from_keyframe: (4, 4), map units.
        index: (N,) points of the keyframe.
        xy: (N, 2) normalised coordinates where the frame sees them.
        weight: (N,) relative weight of each observation, 1 = typical.
        fixed: the pose is not changed (the keyframe before, which holds the scale).
    """

    T_frame_from_keyframe: Float64
    index: NDArray[np.intp]
    xy: Float64
    weight: Float64
    fixed: bool = False


@dataclass(frozen=True, eq=False)
class WidestObservation:
    """The frame of a keyframe's window that is farthest from it, by which its points are triangulated.

    Attributes:
        length: of the baseline, map units.
        noise: (6, 6) covariance of its T_frame_from_keyframe, with the points free; conventions of `geometry.poses`.
    """

    length: float
    noise: Float64

    def noise_at(self, T_frame_from_keyframe: Float64) -> Float64:
        """Covariance (6, 6) of the pose of another frame (4, 4) by the error that all triangulated points share.

        To these points a frame on half the way looks as if it had made half the error of the farthest one.
        """
        share = float(np.linalg.norm(T_frame_from_keyframe[:3, 3])) / max(self.length, 1e-12)
        part = np.diag([share] * 3 + [min(share, 1.0)] * 3)
        return np.asarray(part @ self.noise @ part)


@dataclass(frozen=True)
class Counts:
    """Numbers of matches, of full and of guided ones: a guided match gives fewer, so each is compared with its kind."""

    full: float = 0.0
    guided: float = 0.0

    def of(self, *, guided: bool) -> float:
        """That of one kind."""
        return self.guided if guided else self.full

    def with_value(self, value: float, *, guided: bool) -> Counts:
        """With another number of one kind."""
        return replace(self, guided=value) if guided else replace(self, full=value)

    def raised(self, value: float, *, guided: bool) -> Counts:
        """With a number of one kind where that is larger."""
        return self.with_value(max(value, self.of(guided=guided)), guided=guided)


@dataclass(frozen=True, eq=False)
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
        widest: the farthest of them, after the refinement; None where there is none whose pose was free.
        best_inliers, best_cells: the most that any frame reached, for the decision when to replace it.
        support: the fewest known points by which it or a keyframe before it was connected to its predecessor.
        tracked: number of frames that were tracked against it.
        rate: (3,) angular velocity at its time in rad/s, in its own frame; None = not known yet.
        note: what could not be used of its frame, in words.
    """

    id: int
    frame_index: int
    stamp_ns: int
    size: tuple[int, int]
    camera: Camera | None
    segment: int
    T_world_from_camera: Float64
    reference: Encoding
    query: Encoding
    structure: Structure | None
    odometry: Float64 | None = None
    window: tuple[Observation, ...] = ()
    widest: WidestObservation | None = None
    best_inliers: Counts = Counts()
    best_cells: int = 0
    support: float = float("inf")
    tracked: int = 0
    rate: Float64 | None = None
    note: str = ""

    def with_camera(self, camera: Camera) -> Keyframe:
        """With another camera for the same image: its points get new rays."""
        structure = self.structure.with_camera(camera) if self.structure is not None else None
        return replace(self, camera=camera, structure=structure)

    def rescaled(self, factor: float, anchor: Float64) -> Keyframe:
        """With all lengths multiplied by `factor`; the world point `anchor` (3,) stays where it is."""
        T = self.T_world_from_camera.copy()
        T[:3, 3] = anchor + factor * (T[:3, 3] - anchor)
        window = tuple(replace(s, T_frame_from_keyframe=_scaled(s.T_frame_from_keyframe, factor)) for s in self.window)
        structure = self.structure.rescaled(factor) if self.structure is not None else None
        return replace(self, T_world_from_camera=T, window=window, structure=structure, widest=None)


def _scaled(T: Float64, factor: float) -> Float64:
    scaled: Float64 = T.copy()
    scaled[:3, 3] *= factor
    return scaled
