"""Whether stated covariances are those of the errors.

Bar-Shalom, Li and Kirubarajan, "Estimation with applications to tracking and navigation", 2001, section 5.4: the
normalised estimation error squared e^T C^-1 e has the chi-square distribution with as many degrees of freedom as e.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import chi2

from ros2_densematch.arrays import Float64
from ros2_densematch.evaluation.scores.figures import Figure, FigureGroup
from ros2_densematch.geometry import poses
from ros2_densematch.geometry.relative_pose import RelativePose, Scale


@dataclass(frozen=True)
class NormalisedErrors:
    """Normalised squared errors and their degrees of freedom, (N,) each."""

    squared: Float64
    degrees_of_freedom: NDArray[np.intp]

    def figures(self) -> tuple[Figure, ...]:
        """Median per degree of freedom beside what it should be, and the share inside the 95 % ellipsoid."""
        if not len(self.squared):
            return ()
        dof = self.degrees_of_freedom
        ideal = float(np.median(chi2.ppf(0.5, dof) / dof))
        inside = float((self.squared <= chi2.ppf(0.95, dof)).mean())
        return (
            Figure(
                "nees_median",
                f"median error² / dof (ideal {ideal:.2f})",
                float(np.median(self.squared / dof)),
                2,
                better="",
            ),
            Figure("inside_95", "inside the 95 % ellipsoid (ideal 95)", 100 * inside, 1, "%", better=""),
            Figure("covariances", "covariances judged", float(len(self.squared)), 0, better=""),
        )


def pose_error_squared(pose: RelativePose, T_true: Float64) -> tuple[float, int] | None:
    """Normalised squared error of a relative pose and its degrees of freedom; None where no covariance is stated.

    With Scale.UNIT the translation is a direction: its error is taken in the tangent plane (2 degrees of freedom), the
    rotation has 3; with Scale.NONE only the rotation counts.
    """
    if not pose.ok:
        return None
    T = pose.T_query_from_reference
    turn = poses.log_rotation(T_true[:3, :3] @ T[:3, :3].T)
    length = float(np.linalg.norm(T_true[:3, 3]))
    if pose.scale is Scale.NONE or length < 1e-12:
        J, error = np.hstack([np.zeros((3, 3)), np.eye(3)]), turn
    else:
        t = T[:3, 3] / np.linalg.norm(T[:3, 3])
        across = np.linalg.svd(t[None])[2][1:]  # (2, 3), orthonormal to t
        error = np.concatenate([across @ (T_true[:3, 3] / length - t), turn])
        J = np.zeros((5, 6))
        J[:2, :3], J[2:, 3:] = across / np.linalg.norm(T[:3, 3]), np.eye(3)
    C = J @ pose.covariance @ J.T
    try:
        squared = float(error @ np.linalg.solve(C, error))
    except np.linalg.LinAlgError:
        return None
    return (squared, len(error)) if np.isfinite(squared) and squared >= 0 else None


def match_errors_squared(error_xy: Float64, precision: NDArray[np.float32]) -> Float64:
    """e^T P e (N,) of displacements (N, 2) in pixels and precisions (N, 3) in px^-2; 2 degrees of freedom each."""
    x, y = error_xy.T
    xx, xy, yy = precision.astype(np.float64).T
    return np.asarray(xx * x * x + 2 * xy * x * y + yy * y * y, np.float64)


def covariance_group(
    key: str, title: str, setting: str, rows: Sequence[tuple[float, int]], note: str
) -> list[FigureGroup]:
    """The group of covariance figures; none where no covariance was stated."""
    if not rows:
        return []
    errors = NormalisedErrors(np.array([r[0] for r in rows]), np.array([r[1] for r in rows], np.intp))
    return [FigureGroup(key, title, setting, errors.figures(), note)]
