"""Trajectories of one camera: association by time, alignment and path length. Metrics lie in `evaluation`."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ros2_densematch.arrays import Float64
from ros2_densematch.geometry import poses

Int64 = NDArray[np.int64]
Index = NDArray[np.intp]


@dataclass(frozen=True, eq=False)
class Trajectory:
    """Poses of one camera over time.

    Attributes:
        stamps_ns: int64 (N,), strictly increasing, nanoseconds.
        T_world_from_camera: float64 (N, 4, 4).

    Raises:
        ValueError: shapes do not fit, time does not increase, or a pose is not finite.
    """

    stamps_ns: Int64
    T_world_from_camera: Float64

    def __post_init__(self) -> None:
        stamps = np.asarray(self.stamps_ns, np.int64).ravel()
        T = np.asarray(self.T_world_from_camera, np.float64).reshape(-1, 4, 4)
        if len(stamps) != len(T):
            raise ValueError(f"a trajectory needs one stamp for each pose, got {len(stamps)} stamps and {len(T)} poses")
        if np.any(np.diff(stamps) <= 0):
            at = int(np.flatnonzero(np.diff(stamps) <= 0)[0]) + 1
            raise ValueError(f"time must increase along a trajectory; it does not at pose {at}: sort the poses first")
        if not np.all(np.isfinite(T)):
            raise ValueError("a pose of the trajectory is not finite: leave out poses that are not known")
        object.__setattr__(self, "stamps_ns", stamps)
        object.__setattr__(self, "T_world_from_camera", T)

    def __len__(self) -> int:
        return len(self.stamps_ns)

    def __repr__(self) -> str:
        seconds = 1e-9 * float(self.stamps_ns[-1] - self.stamps_ns[0]) if len(self) else 0.0
        return f"<{len(self)} poses over {seconds:.3g} s, path length {self.path_length():.3g}>"

    @property
    def positions(self) -> Float64:
        """Camera centres (N, 3) in the world frame."""
        return np.asarray(self.T_world_from_camera[:, :3, 3], np.float64)

    def select(self, index: NDArray[np.bool_] | Index) -> Trajectory:
        """The poses that a boolean mask (N,) or an increasing index array picks."""
        return Trajectory(self.stamps_ns[index], self.T_world_from_camera[index])

    def path_length(self) -> float:
        """Sum of the distances between successive positions; 0 for fewer than two poses."""
        return float(np.linalg.norm(np.diff(self.positions, axis=0), axis=1).sum())

    def interpolated(self, stamps_ns: ArrayLike, max_gap_ns: int = 10**9) -> tuple[Trajectory, NDArray[np.bool_]]:
        """Poses at other times: linear in position, constant angular speed in rotation.

        Args:
            stamps_ns: (M,), strictly increasing.
            max_gap_ns: no pose is made up between two that are farther apart than this.

        Returns:
            The trajectory at the times that could be served, and a mask (M,) that says which these are.
        """
        wanted = np.asarray(stamps_ns, np.int64).ravel()
        served = np.zeros(len(wanted), np.bool_)
        result = []
        for i, stamp in enumerate(wanted):
            after = int(np.searchsorted(self.stamps_ns, stamp))
            if after < len(self) and self.stamps_ns[after] == stamp:
                result.append(self.T_world_from_camera[after])
            elif 0 < after < len(self) and self.stamps_ns[after] - self.stamps_ns[after - 1] <= max_gap_ns:
                start, end = int(self.stamps_ns[after - 1]), int(self.stamps_ns[after])
                fraction = (int(stamp) - start) / (end - start)
                before, behind = self.T_world_from_camera[after - 1], self.T_world_from_camera[after]
                result.append(poses.interpolate(before, behind, fraction))
            else:
                continue
            served[i] = True
        return Trajectory(wanted[served], np.array(result).reshape(-1, 4, 4)), served


@dataclass(frozen=True, eq=False)
class Similarity:
    """x -> scale R x + t, with R (3, 3) and t (3,); scale 1 for a rigid motion."""

    R: Float64
    t: Float64
    scale: float

    def apply(self, xyz: ArrayLike) -> Float64:
        """Points (N, 3) moved."""
        return np.asarray(self.scale * np.asarray(xyz, np.float64) @ self.R.T + self.t, np.float64)


def associate(a_ns: ArrayLike, b_ns: ArrayLike, max_difference_ns: int = 20_000_000) -> tuple[Index, Index]:
    """Pairs of equal time: indices into both lists of increasing stamps, one to one, nearest first.

    Args:
        a_ns, b_ns: int64 (N,) and (M,), increasing, nanoseconds.
        max_difference_ns: largest difference of a pair.
    """
    a, b = np.asarray(a_ns, np.int64).ravel(), np.asarray(b_ns, np.int64).ravel()
    if len(a) == 0 or len(b) == 0:
        return np.zeros(0, np.intp), np.zeros(0, np.intp)
    after = np.searchsorted(b, a)
    pairs: list[tuple[int, int, int]] = []
    for shift in (-1, 0):
        j = np.clip(after + shift, 0, len(b) - 1)
        difference = np.abs(b[j] - a)
        near = np.flatnonzero(difference <= max_difference_ns)
        pairs.extend(zip(difference[near].tolist(), near.tolist(), j[near].tolist(), strict=True))
    used_a: set[int] = set()
    used_b: set[int] = set()
    chosen = []
    for _, i, k in sorted(pairs):
        if i not in used_a and k not in used_b:
            used_a.add(i)
            used_b.add(k)
            chosen.append((i, k))
    index = np.array(sorted(chosen), np.intp).reshape(-1, 2)
    return index[:, 0], index[:, 1]


def align(source: ArrayLike, target: ArrayLike, *, with_scale: bool = True) -> Similarity:
    """The similarity (or rigid motion) that maps points onto others with the least squared distance.

    Umeyama, "Least-squares estimation of transformation parameters between two point patterns", PAMI 1991, section III.
    Where the points do not determine it (one point, a line) the result is one of the equally good ones. Without any
    extent the scale is 1.

    Args:
        source, target: (N, 3), N at least 1.
        with_scale: whether the scale is estimated too.

    Raises:
        ValueError: shapes differ, or there is no point.
    """
    x, y = np.asarray(source, np.float64).reshape(-1, 3), np.asarray(target, np.float64).reshape(-1, 3)
    if len(x) != len(y) or len(x) == 0:
        raise ValueError(f"alignment needs pairs of points, got {len(x)} and {len(y)}")
    mean_x, mean_y = x.mean(0), y.mean(0)
    covariance = (y - mean_y).T @ (x - mean_x) / len(x)
    U, singular, Vt = np.linalg.svd(covariance)
    signs = np.array([1.0, 1.0, 1.0 if np.linalg.det(U) * np.linalg.det(Vt) >= 0 else -1.0])
    R = np.asarray((U * signs) @ Vt, np.float64)
    variance = float(((x - mean_x) ** 2).sum() / len(x))
    scale = float((singular * signs).sum()) / variance if with_scale and variance > 1e-18 else 1.0
    if not scale > 0:
        scale = 1.0
    return Similarity(R, np.asarray(mean_y - scale * R @ mean_x, np.float64), scale)
