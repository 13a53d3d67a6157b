"""What a return to a known place needs beside a count of matches.

A lost frame may match a place that only looks like the one where it is. So a return is tested by what such a place
does not have: the depths that the frame measures, matches wherever the keyframe's points should be seen, a second
keyframe or a second frame that agrees, and a motion that fits into the time since the camera was last seen.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ros2_densematch.geometry import poses
from ros2_densematch.geometry.relative_pose import Scale
from ros2_densematch.tracking.attempt import Attempt
from ros2_densematch.tracking.refinement import Float
from ros2_densematch.tracking.state import State

_CELLS_X, _CELLS_Y = 8, 6
_MARGIN = 0.04  # of the image's width: where matches are not expected

# Chosen on rendered flights with cuts (benchmarks/returns.py).
_LEAST_RATIO = 0.5  # of the matches must agree
_LEAST_EXPECTED = 0.35  # of the cells where points should be seen must have a match
_STRONG_RATIO, _STRONG_EXPECTED, _STRONG_INLIERS = 0.7, 0.6, 100
_SAME_DEPTH = 0.1  # relative difference of a depth within which it agrees
_LEAST_DEPTHS, _LEAST_DEPTH_SHARE = 15, 0.6
_AGREE_DEG, _AGREE_SHARE = 3.0, 0.08

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
    """

    inliers: int
    ratio: float
    expected: float
    depth: float

    def weakness(self, least_inliers: int) -> str:
        """Why this is no return, in words; "" where it may be one."""
        if self.inliers < least_inliers:
            return f"only {self.inliers} matches agree, a return needs {least_inliers}"
        if self.ratio < _LEAST_RATIO:
            return f"only {100 * self.ratio:.0f} % of the matches agree, a return needs {100 * _LEAST_RATIO:.0f} %"
        if self.expected < _LEAST_EXPECTED:
            return (
                f"matches are missing where they should be: {100 * self.expected:.0f} % of the expected area is matched"
            )
        if self.depth < _LEAST_DEPTH_SHARE:
            return f"the depth does not fit: {100 * self.depth:.0f} % of it agrees"
        return ""

    @property
    def strong(self) -> bool:
        """Whether it needs no second witness while the camera cannot have gone far."""
        many = self.inliers >= _STRONG_INLIERS and self.ratio >= _STRONG_RATIO
        return many and self.expected >= _STRONG_EXPECTED


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
    seen = attempt.matches.query_xy[found.inliers].astype(np.float64)
    expected, depth = 1.0, float("nan")
    if found.has_length:
        known = structure.known
        X = (structure.bearing[known] / np.maximum(structure.rho[known], 1e-9)[:, None]) @ T[:3, :3].T + T[:3, 3]
        front = X[:, 2] > 1e-3
        xy = camera.project(X[front])
        margin = _MARGIN * camera.width
        inside = np.isfinite(xy).all(1) & (xy >= margin).all(1)
        inside &= (xy[:, 0] < camera.width - margin) & (xy[:, 1] < camera.height - margin)
        cells = set(_cells(xy[inside], frame.size))
        if cells:
            expected = len(cells & set(_cells(seen, frame.size))) / len(cells)
        depth = _depth_share(attempt, T) if metric else depth
    return Evidence(attempt.inliers, attempt.inliers / max(len(attempt.matches), 1), expected, depth)


def disagreement(A: Float, B: Float, typical_depth: float) -> float:
    """By how much two poses (4, 4) differ that put one frame somewhere: up to 1 they agree."""
    moved = float(np.linalg.norm(A[:3, 3] - B[:3, 3])) / (_AGREE_SHARE * typical_depth)
    return max(poses.rotation_angle_deg(A, B) / _AGREE_DEG, moved)


def reachable(state: State, T_world: Float, segment: int, stamp_ns: int) -> bool | None:
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


def _cells(xy: Float, size: tuple[int, int]) -> list[int]:
    column = np.clip((xy[:, 0] + 0.5) * _CELLS_X / size[0], 0, _CELLS_X - 1).astype(int)
    row = np.clip((xy[:, 1] + 0.5) * _CELLS_Y / size[1], 0, _CELLS_Y - 1).astype(int)
    return [int(i) for i in row * _CELLS_X + column]


def _depth_share(attempt: Attempt, T: Float) -> float:
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
