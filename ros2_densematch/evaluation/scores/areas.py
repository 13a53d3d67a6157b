"""Areas under recall curves of many resampled sets of pairs at once: the same numbers as `pose.pose_auc`, for
bootstraps."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ros2_densematch.arrays import Float64


def recall_areas(errors: Float64, thresholds: Sequence[float]) -> Float64:
    """Area under recall over error up to each threshold, divided by it; see `pose.pose_auc`.

    Args:
        errors: (R, N) of R sets of N pairs, N at least 1.
        thresholds: T upper ends.

    Returns:
        (R, T) in [0, 1].
    """
    ordered = np.sort(errors, axis=1)
    count = ordered.shape[1]
    recall = np.arange(count + 1) / count
    middle = (recall[1:] + recall[:-1]) / 2
    areas = []
    for threshold in thresholds:
        below = ordered < threshold
        reached = np.where(below, ordered, 0.0)
        steps = np.diff(reached, axis=1, prepend=0.0)
        risen = np.where(below, steps * middle, 0.0).sum(1)
        k = below.sum(1)
        last = np.where(k > 0, np.take_along_axis(reached, np.maximum(k - 1, 0)[:, None], 1)[:, 0], 0.0)
        areas.append((risen + recall[k] * (threshold - last)) / threshold)
    return np.stack(areas, 1)


def recall_at(errors: Float64, thresholds: Sequence[float]) -> Float64:
    """Share of the pairs (R, N) below each threshold, (R, T)."""
    return np.stack([(errors < threshold).mean(1) for threshold in thresholds], 1)
