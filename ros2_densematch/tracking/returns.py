"""What a return to a known place needs beside a count of matches.

A lost frame may match a place that only looks like the one where it is. So a return is tested by what such a place
does not have: the depths that the frame measures, matches wherever the keyframe's points should be seen, a second
keyframe or a second frame that agrees, and a motion that fits into the time since the camera was last seen.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ros2_densematch.arrays import Float64
from ros2_densematch.geometry import poses
from ros2_densematch.geometry.relative_pose import Scale
from ros2_densematch.tracking.attempt import Attempt
from ros2_densematch.tracking.state import State

_CELLS_X, _CELLS_Y = 8, 6
_MARGIN = 0.04  # of the image's width: where matches are not expected

# Chosen on rendered flights with cuts (benchmarks/returns.py).
_LEAST_RATIO = 0.5  # of the matches must agree
_LEAST_EXPECTED = 0.35  # of the cells where points should be seen must have a match
_LEAST_EXPLAINED = 0.2  # of the cells of the frame must have one, where the camera may be anywhere
_STRONG_RATIO, _STRONG_EXPECTED, _STRONG_INLIERS = 0.7, 0.6, 100
_SAME_DEPTH = 0.1  # relative difference of a depth within which it agrees
_LEAST_DEPTHS, _LEAST_DEPTH_SHARE = 15, 0.6
_LARGEST_ROTATION_STD_DEG = 0.5  # matches at the rim of a frame agree on almost any pose
_AGREE_DEG, _AGREE_SHARE = 3.0, 0.08
_APART = 3.0  # disagreement from which on two places are two
_RIVAL = 0.6  # another place is one if it explains this share of what the best one explains of the frame

_SIGMAS = 3.0
_ACCELERATION, _ANGULAR_ACCELERATION = 1.0, 1.0  # m/s^2 (or typical depths where there is no metre), rad/s^2
_OPEN_S = 5.0  # after so long the camera may be anywhere


@dataclass(frozen=True)
class Evidence:
    """What speaks for a frame being where an attempt puts it.

    Attributes:
        inliers: matches that agree with the pose.
        ratio: their share of all matches.
        expected: share of the cells of the image in which known points of the keyframe should be seen and are.
        depth: share of the measured depths that agree; NaN where fewer than 15 can be compared.
        cells: of the frame in which a match agrees: what of the frame the place explains.
        rotation_std_deg: standard deviation of the rotation about its worst axis, degrees; 0 where it is not known.
    """

    inliers: int
    ratio: float
    expected: float
    depth: float
    cells: frozenset[int] = frozenset()
    rotation_std_deg: float = 0.0

    def weakness(self, min_inliers: int) -> str:
        """Why this is no return, in words; "" where it may be one."""
        if self.inliers < min_inliers:
            return f"only {self.inliers} matches agree, a return needs {min_inliers}"
        if self.ratio < _LEAST_RATIO:
            return f"only {100 * self.ratio:.0f} % of the matches agree, a return needs {100 * _LEAST_RATIO:.0f} %"
        if self.expected < _LEAST_EXPECTED:
            return (
                f"matches are missing where they should be: {100 * self.expected:.0f} % of the expected area is matched"
            )
        if self.depth < _LEAST_DEPTH_SHARE:
            return f"the depth does not fit: {100 * self.depth:.0f} % of it agrees"
        if self.rotation_std_deg > _LARGEST_ROTATION_STD_DEG:
            return (
                f"the matches fix the rotation to {self.rotation_std_deg:.1f} degrees only, a return needs "
                f"{_LARGEST_ROTATION_STD_DEG:g}"
            )
        return ""

    @property
    def broad(self) -> bool:
        """Whether the place explains so much of the frame that the camera may have been carried there: the rim of a
        frame looks like many places, and fixes none."""
        return len(self.cells) >= _LEAST_EXPLAINED * _CELLS_X * _CELLS_Y

    @property
    def strong(self) -> bool:
        """Whether it needs no second witness while the camera cannot have gone far."""
        many = self.inliers >= _STRONG_INLIERS and self.ratio >= _STRONG_RATIO
        return many and self.expected >= _STRONG_EXPECTED


@dataclass(frozen=True, eq=False)
class Sighting:
    """A keyframe that proves to see a frame.

    Attributes:
        keyframe_id: of the keyframe.
        T_world_from_camera: (4, 4) where it puts the frame.
        cells: of the frame that it explains (`Evidence.cells`).
    """

    keyframe_id: int
    T_world_from_camera: Float64
    cells: frozenset[int]


def contradiction(
    T_world: Float64, sights: list[Sighting], there: list[Sighting], typical_depth: float
) -> Sighting | None:
    """A sight of the frame at another place that explains about as much of the frame as its place does.

    Keyframes that agree explain together. A door that looks like another one explains the whole frame; the rim of a
    wall that looks like another wall's does not.

    Args:
        T_world: (4, 4) the frame's place.
        sights: of all keyframes asked.
        there: those among them at a place where the camera can have come.
        typical_depth: of the scene.
    """

    def explained(T: Float64) -> int:
        agreeing = [s for s in sights if disagreement(s.T_world_from_camera, T, typical_depth) <= 1.0]
        return len(frozenset[int]().union(*(s.cells for s in agreeing)))

    apart = [s for s in there if disagreement(s.T_world_from_camera, T_world, typical_depth) > _APART]
    least = _RIVAL * explained(T_world)
    return next((s for s in apart if explained(s.T_world_from_camera) >= least), None)


def evidence_of(attempt: Attempt, *, metric: bool) -> Evidence:
    """The evidence of an attempt that succeeded.

    Args:
        attempt: of a frame against a keyframe.
        metric: the keyframe's points are in metres, as the frame's depth image is.
    """
    found, frame = attempt.found, attempt.view.frame
    T, structure, camera = found.T_frame_from_keyframe, attempt.keyframe.structure, attempt.view.camera
    assert structure is not None
    assert camera is not None
    matched = _cells(attempt.matches.query_xy[found.inliers].astype(np.float64), frame.size)
    expected, depth = 1.0, float("nan")
    if found.has_length:
        known = structure.known
        X = (structure.bearing[known] / np.maximum(structure.rho[known], 1e-9)[:, None]) @ T[:3, :3].T + T[:3, 3]
        front = X[:, 2] > 1e-3
        xy = camera.project(X[front])
        margin = _MARGIN * camera.width
        inside = np.isfinite(xy).all(1) & (xy >= margin).all(1)
        inside &= (xy[:, 0] < camera.width - margin) & (xy[:, 1] < camera.height - margin)
        cells = _cells(xy[inside], frame.size)
        if cells:
            expected = len(cells & matched) / len(cells)
        depth = _depth_share(attempt, T) if metric else depth
    return Evidence(
        inliers=attempt.inliers,
        ratio=attempt.inliers / max(len(attempt.matches), 1),
        expected=expected,
        depth=depth,
        cells=matched,
        rotation_std_deg=found.rotation_std_deg,
    )


def disagreement(A: Float64, B: Float64, typical_depth: float) -> float:
    """By how much two poses (4, 4) differ that put one frame somewhere: up to 1 they agree."""
    moved = float(np.linalg.norm(A[:3, 3] - B[:3, 3])) / (_AGREE_SHARE * typical_depth)
    return max(poses.rotation_angle_deg(A, B) / _AGREE_DEG, moved)


def reachable(state: State, T_world: Float64, segment: int, stamp_ns: int) -> bool | None:
    """Whether the camera can have come to a pose (4, 4) of a segment since it was last seen; None where it may be
    anywhere."""
    seen = state.seen
    if seen is None or seen.segment != segment:
        return None
    seconds = (stamp_ns - seen.stamp_ns) * 1e-9
    if not 0.0 < seconds < _OPEN_S:
        return None
    unit = 1.0 if state.segments.scale is Scale.METRIC else state.typical_depth
    far = seen.speed * seconds + 0.5 * _ACCELERATION * unit * seconds**2
    turned = seen.rate * seconds + 0.5 * _ANGULAR_ACCELERATION * seconds**2
    distance = float(np.linalg.norm(T_world[:3, 3] - seen.T_world_from_camera[:3, 3]))
    angle = float(np.radians(poses.rotation_angle_deg(T_world, seen.T_world_from_camera)))
    near = _AGREE_SHARE * state.typical_depth
    return bool(distance <= _SIGMAS * far + near and angle <= _SIGMAS * turned + np.radians(_AGREE_DEG))


def _cells(xy: Float64, size: tuple[int, int]) -> frozenset[int]:
    column = np.clip((xy[:, 0] + 0.5) * _CELLS_X / size[0], 0, _CELLS_X - 1).astype(int)
    row = np.clip((xy[:, 1] + 0.5) * _CELLS_Y / size[1], 0, _CELLS_Y - 1).astype(int)
    return frozenset((row * _CELLS_X + column).tolist())


def _depth_share(attempt: Attempt, T: Float64) -> float:
    """Share of the frame's depths at the inliers that are those of the keyframe's points; NaN where few are known."""
    depth, found, structure = attempt.view.frame.depth, attempt.found, attempt.keyframe.structure
    assert structure is not None
    if depth is None:
        return float("nan")
    chosen = found.inliers & (found.index >= 0)
    index = found.index[chosen]
    chosen_xy = np.rint(attempt.matches.query_xy[chosen]).astype(np.intp)
    known = structure.known[index]
    X = (structure.bearing[index] / np.maximum(structure.rho[index], 1e-9)[:, None]) @ T[:3, :3].T + T[:3, 3]
    height, width = depth.shape
    measured = depth[chosen_xy[:, 1].clip(0, height - 1), chosen_xy[:, 0].clip(0, width - 1)].astype(np.float64)
    usable = known & np.isfinite(measured) & (measured > 0)
    if usable.sum() < _LEAST_DEPTHS:
        return float("nan")
    return float(np.mean(np.abs(measured[usable] - X[usable, 2]) < _SAME_DEPTH * measured[usable]))
