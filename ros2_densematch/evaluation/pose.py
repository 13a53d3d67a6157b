"""Errors of relative poses and their area under the recall curve (AUC)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ros2_densematch.geometry import poses


def pose_errors_deg(estimated: ArrayLike, true: ArrayLike) -> tuple[float, float]:
    """Rotation error and translation direction error in degrees of a relative pose.

    Args:
        estimated, true: (4, 4) T_query_from_reference; only the direction of the translation counts.

    Returns:
        Rotation error in [0, 180] and angle between the translations in [0, 180]. The sign of the translation counts:
        a pose that moves backwards is wrong by 180 degrees. The angle is 180 where one translation has no length.
    """
    estimated, true = np.asarray(estimated, np.float64), np.asarray(true, np.float64)
    angle = poses.direction_angle_deg(estimated[:3, 3], true[:3, 3])
    return poses.rotation_angle_deg(estimated, true), 180.0 if np.isnan(angle) else angle


def pose_error_deg(estimated: ArrayLike | None, true: ArrayLike) -> float:
    """The larger of the two errors of `pose_errors_deg`; infinite where there is no estimate (None)."""
    return float("inf") if estimated is None else max(pose_errors_deg(estimated, true))


def pose_auc(errors_deg: ArrayLike, thresholds_deg: Sequence[float] = (5.0, 10.0, 20.0)) -> NDArray[np.float64]:
    """Area under the curve of recall over pose error, up to each threshold, divided by it: in [0, 1].

    Sarlin et al., "SuperGlue: Learning feature matching with graph neural networks", CVPR 2020, section 5.2: the exact
    integral of the recall, interpolated linearly between the sorted errors.

    Args:
        errors_deg: (N,) errors in degrees; infinite = failed.
        thresholds_deg: upper ends of the integral in degrees.

    Raises:
        ValueError: there is no error, one is NaN or negative, or a threshold is not positive.
    """
    errors = np.sort(np.asarray(errors_deg, np.float64).ravel())
    if len(errors) == 0 or np.isnan(errors).any() or errors[0] < 0:
        raise ValueError(f"pose errors must be at least one number >= 0 and none NaN (inf = failed), got {errors}")
    thresholds = np.asarray(thresholds_deg, np.float64)
    if not (thresholds > 0).all():
        raise ValueError(f"thresholds must be positive degrees, got {thresholds.tolist()}")
    recall = np.concatenate([[0.0], np.arange(1, len(errors) + 1) / len(errors)])
    errors = np.concatenate([[0.0], errors])
    areas = []
    for threshold in thresholds:
        last = int(np.searchsorted(errors, threshold))
        x = np.append(errors[:last], threshold)
        y = np.append(recall[:last], recall[last - 1])
        areas.append(float(np.sum(0.5 * (y[1:] + y[:-1]) * np.diff(x)) / threshold))
    return np.array(areas)
