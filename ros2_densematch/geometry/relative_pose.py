"""The result of two-view geometry: the kind of scene, what is known of the scale, the pose and its covariance."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from ros2_densematch.arrays import Float64

# Variances that stand for "not known". Large enough that no filter believes the number, small enough that a 6x6 which
# also holds the variances of a good rotation can still be inverted in double precision.
UNKNOWN_TRANSLATION_VARIANCE = 1e6  # m^2 or unit^2, on every axis: PANORAMIC, DEGENERATE
UNKNOWN_LENGTH_VARIANCE = 1e4  # unit^2, along a translation of length 1: Scale.UNIT
UNKNOWN_ROTATION_VARIANCE = float(np.pi**2)  # rad^2: DEGENERATE


class Geometry(IntEnum):
    """Class of a two-view geometry, with COLMAP's numbers (its UNCALIBRATED, 3, does not occur here)."""

    UNDEFINED = 0
    """Not estimated, for instance without calibration."""
    DEGENERATE = 1
    """No pose: too few matches or inliers, or no more of them than chance gives."""
    CALIBRATED = 2
    """Essential matrix of a general scene."""
    PLANAR = 4
    """One plane; the pose comes from its homography."""
    PANORAMIC = 5
    """Pure rotation, or a translation too small to measure: only the rotation is known."""
    PLANAR_OR_PANORAMIC = 6
    """A homography explains all matches, and the parallax is too small for a translation: like PANORAMIC."""
    WATERMARK = 7
    """No pose: the agreeing matches stay in place in the border region while the scene behind them moves or changes."""


class Scale(IntEnum):
    """What the length of the translation means."""

    NONE = 0
    """The translation is unknown."""
    UNIT = 1
    """The translation is a direction of length 1."""
    METRIC = 2
    """Metres."""


@dataclass(frozen=True, eq=False)
class RelativePose:
    """Relative pose of a query camera with respect to a reference camera.

    Attributes:
        T_query_from_reference: float64 (4, 4), X_query = R X_reference + t, both in optical frames (x right, y down,
            z forward).
        geometry: class of the two-view geometry.
        scale: what the length of t means: metres, an arbitrary unit, or nothing.
        scale_std: standard deviation of the length of t in metres with Scale.METRIC, NaN otherwise.
        covariance: float64 (6, 6) of T_query_from_reference, order x y z, rotation x y z, perturbation on the
            left, fixed axes of the query frame (see `poses`). With Scale.UNIT the variance along t is
            UNKNOWN_LENGTH_VARIANCE, with Scale.NONE the translation's is UNKNOWN_TRANSLATION_VARIANCE.
        inliers: bool (N,), the matches that agree with the pose.
        num_matches: N.
        num_inliers: number of inliers.
        inlier_ratio: num_inliers / num_matches, 0 without matches.
        median_epipolar_px: median Sampson distance of the inliers in pixels (for PANORAMIC: of the reprojection error);
            NaN without inliers.
        median_triangulation_deg: median angle between the two rays of the inliers; NaN without inliers.
        homography_inlier_ratio: share of the epipolar inliers that a single homography explains as well.
        status: the reason for the result, as text.
    """

    T_query_from_reference: Float64
    geometry: Geometry
    scale: Scale
    scale_std: float
    covariance: Float64
    inliers: NDArray[np.bool_]
    num_matches: int
    num_inliers: int
    inlier_ratio: float
    median_epipolar_px: float
    median_triangulation_deg: float
    homography_inlier_ratio: float
    status: str

    def __repr__(self) -> str:
        return f"<{self.geometry.name} pose, scale {self.scale.name}, {self.num_inliers} inliers of {self.num_matches}>"

    @property
    def ok(self) -> bool:
        """True if there is a pose: at least the rotation is known."""
        return self.geometry not in (Geometry.UNDEFINED, Geometry.DEGENERATE, Geometry.WATERMARK)


def no_pose(
    num_matches: int, status: str, *, geometry: Geometry = Geometry.DEGENERATE, inliers: NDArray[np.bool_] | None = None
) -> RelativePose:
    """The result where there is no pose: identity, with covariances that say that nothing is known."""
    kept = np.zeros(num_matches, np.bool_) if inliers is None else inliers
    return RelativePose(
        T_query_from_reference=np.eye(4),
        geometry=geometry,
        scale=Scale.NONE,
        scale_std=float("nan"),
        covariance=np.diag([UNKNOWN_TRANSLATION_VARIANCE] * 3 + [UNKNOWN_ROTATION_VARIANCE] * 3),
        inliers=kept,
        num_matches=num_matches,
        num_inliers=int(kept.sum()),
        inlier_ratio=float(kept.mean()) if num_matches else 0.0,
        median_epipolar_px=float("nan"),
        median_triangulation_deg=float("nan"),
        homography_inlier_ratio=0.0,
        status=status,
    )
