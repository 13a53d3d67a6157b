"""Settings of the two-view estimator."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ros2_densematch.geometry.intrinsics import IntrinsicUncertainty


@dataclass(frozen=True)
class PoseConfig:
    """Settings of `estimate_relative_pose`. Distances are in pixels of the original images.

    Attributes:
        max_epipolar_error_px: largest Sampson distance of an inlier.
        max_homography_error_px: upper limit of the distance at which a homography or a rotation explains a match; the
            limit used adapts to the noise found, `noise_factor` times its standard deviation.
        noise_factor: see there; 3 keeps 98.9 % of Gaussian noise in two dimensions.
        min_inliers: fewer are DEGENERATE.
        min_iterations, max_iterations, success_probability: of LO-RANSAC.
        explained_ratio: a homography (rotation) that explains this share of the epipolar inliers makes the scene PLANAR
            (PANORAMIC), as in COLMAP.
        min_parallax_px: below this median shift against the best pure rotation the translation is taken as not visible.
        focal_std: relative standard deviation of the focal lengths of calibrations that do not state one.
        principal_point_std: likewise of each coordinate of the principal point, over the focal length.
        distortion_std: likewise of the first radial distortion coefficient.
        rolling_shutter_std: angle in radians by which a camera may turn unknown within one readout.
        drift_px: by how much the matches of a whole surface may be off together, where all is well; 0 = each errs by
            itself.
    """

    max_epipolar_error_px: float = 1.0
    max_homography_error_px: float = 3.0
    noise_factor: float = 3.0
    min_inliers: int = 15
    min_iterations: int = 50
    max_iterations: int = 10000
    success_probability: float = 0.9999
    explained_ratio: float = 0.8
    min_parallax_px: float = 0.5
    focal_std: float = 0.002
    principal_point_std: float = 0.002
    distortion_std: float = 0.002
    rolling_shutter_std: float = 0.0
    drift_px: float = 0.05

    def __post_init__(self) -> None:
        for name in ("max_epipolar_error_px", "max_homography_error_px", "noise_factor"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be positive, got {getattr(self, name)}")
        for name in ("explained_ratio", "success_probability"):
            if not 0 < getattr(self, name) < 1:
                raise ValueError(f"{name} must lie between 0 and 1, got {getattr(self, name)}")
        if self.min_inliers < 8:
            raise ValueError(f"min_inliers must be at least 8 (the pose alone has 5 unknowns), got {self.min_inliers}")
        if not 1 <= self.min_iterations <= self.max_iterations:
            raise ValueError(
                f"min_iterations must lie in 1..max_iterations, got {self.min_iterations} and {self.max_iterations}"
            )
        if self.min_parallax_px < 0:
            raise ValueError(f"min_parallax_px must not be negative, got {self.min_parallax_px}")
        for name in ("focal_std", "principal_point_std", "distortion_std", "rolling_shutter_std", "drift_px"):
            if not (np.isfinite(getattr(self, name)) and getattr(self, name) >= 0):
                raise ValueError(f"{name} must be 0 or more, got {getattr(self, name)}")

    @property
    def uncertainty(self) -> IntrinsicUncertainty:
        """Of calibrations that do not state their own."""
        return IntrinsicUncertainty(
            self.focal_std, self.principal_point_std, self.distortion_std, self.rolling_shutter_std
        )
