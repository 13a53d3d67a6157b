"""Absolute and relative trajectory error (ATE, RPE) against ground truth.

Definitions: Sturm et al., "A benchmark for the evaluation of RGB-D SLAM systems", IROS 2012, section IV; alignment:
Umeyama, "Least-squares estimation of transformation parameters between two point patterns", PAMI 1991, equations 34-42.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ros2_densematch.geometry import poses

Float64 = NDArray[np.float64]


@dataclass(frozen=True)
class Similarity:
    """x' = scale * R x + t: float, (3, 3), (3,)."""

    scale: float
    R: Float64
    t: Float64

    def apply(self, positions: Float64) -> Float64:
        """The positions (N, 3) in the other frame."""
        moved: Float64 = self.scale * positions @ self.R.T + self.t
        return moved


def poses_at(
    stamps_ns: NDArray[np.int64],
    truth_stamps_ns: NDArray[np.int64],
    truth: Float64,
    *,
    max_gap_s: float = 0.2,
) -> tuple[NDArray[np.intp], Float64]:
    """Ground truth at given times, interpolated between its two neighbours (position linear, rotation slerp).

    Args:
        stamps_ns: (N,) times wanted.
        truth_stamps_ns: (M,) times of the ground truth, increasing.
        truth: (M, 4, 4) T_world_from_camera.
        max_gap_s: no interpolation between neighbours further apart than this.

    Returns:
        Index (K,) of the times that have ground truth, and the poses (K, 4, 4) there.
    """
    index: list[int] = []
    found: list[Float64] = []
    for i, stamp in enumerate(stamps_ns):
        after = int(np.searchsorted(truth_stamps_ns, stamp))
        if after < len(truth_stamps_ns) and truth_stamps_ns[after] == stamp:
            index.append(i)
            found.append(truth[after])
        elif 0 < after < len(truth_stamps_ns):
            span = int(truth_stamps_ns[after] - truth_stamps_ns[after - 1])
            if span <= max_gap_s * 1e9:
                fraction = float(stamp - truth_stamps_ns[after - 1]) / span
                index.append(i)
                found.append(poses.interpolate(truth[after - 1], truth[after], fraction))
    return np.array(index, np.intp), np.array(found, np.float64).reshape(-1, 4, 4)


def align(estimated: Float64, true: Float64) -> Similarity:
    """The similarity that brings estimated positions (N, 3) onto the true ones, least squares.

    Where the estimate does not move at all, its scale is not defined and stays 1. Where either moves on a line only,
    the rotation about that line is arbitrary; positions are not affected by it.

    Raises:
        ValueError: the shapes differ, or there is no position.
    """
    if estimated.shape != true.shape or estimated.ndim != 2 or estimated.shape[1] != 3 or not len(true):
        raise ValueError(f"positions must be two (N, 3) arrays of one N > 0, got {estimated.shape} and {true.shape}")
    mean_estimated, mean_true = estimated.mean(0), true.mean(0)
    a, b = estimated - mean_estimated, true - mean_true
    variance = float((a**2).sum() / len(a))
    U, d, Vt = np.linalg.svd(b.T @ a / len(a))
    sign = np.array([1.0, 1.0, np.sign(np.linalg.det(U) * np.linalg.det(Vt)) or 1.0])
    R = U @ np.diag(sign) @ Vt
    still = variance <= 1e-18 * max(float(mean_estimated @ mean_estimated), 1.0)
    scale = 1.0 if still else float((d * sign).sum() / variance)
    return Similarity(scale, R, mean_true - scale * R @ mean_estimated)


def align_rotations(estimated: Float64, true: Float64) -> Float64:
    """The rotation (3, 3) that, put before estimated orientations (N, 3, 3), comes closest to the true ones (chordal).

    For orientations this is defined also where positions lie on a line, and does not mix the two kinds of error.
    """
    return poses.nearest_rotation(np.einsum("nij,nkj->ik", true, estimated))


def rotation_errors_deg(estimated: Float64, true: Float64) -> Float64:
    """Angles (N,) in degrees between orientations (N, 3, 3) after `align_rotations`."""
    aligned = align_rotations(estimated, true) @ estimated
    return np.array([poses.rotation_angle_deg(a, b) for a, b in zip(aligned, true, strict=True)])


def relative_errors(
    estimated: Float64, true: Float64, steps: NDArray[np.intp], scale: float
) -> tuple[Float64, Float64]:
    """Relative pose errors over given steps.

    Args:
        estimated, true: (N, 4, 4) T_world_from_camera.
        steps: (K, 2) indices of the first and the second pose of each step.
        scale: length of one unit of the estimate in units of the truth.

    Returns:
        Translation errors (K,) in units of the truth and rotation errors (K,) in degrees.
    """
    translation, rotation = np.zeros(len(steps)), np.zeros(len(steps))
    for k, (i, j) in enumerate(steps):
        moved = poses.inverse(estimated[i]) @ estimated[j]
        moved[:3, 3] *= scale
        error = poses.inverse(poses.inverse(true[i]) @ true[j]) @ moved
        translation[k] = np.linalg.norm(error[:3, 3])
        rotation[k] = poses.rotation_angle_deg(error[:3, :3])
    return translation, rotation


def rms(values: Float64) -> float:
    """Root mean square of (N,) values."""
    return float(np.sqrt(np.mean(values**2)))
