"""Absolute and relative trajectory error (ATE, RPE) against ground truth.

Definitions: Sturm et al., "A benchmark for the evaluation of RGB-D SLAM systems", IROS 2012, section IV. The
alignment of positions is `geometry.trajectory.align`.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ros2_densematch.arrays import Float64
from ros2_densematch.geometry import poses
from ros2_densematch.geometry.trajectory import Similarity, align

__all__ = ["Similarity", "align", "align_rotations", "relative_errors", "rms", "rotation_errors_deg"]


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
