"""Settings of the two-view estimator."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field, model_validator

from ros2_densematch.geometry.intrinsics import IntrinsicUncertainty


class PoseConfig(BaseModel):
    """Settings of `estimate_relative_pose`. Distances are in pixels of the original images.

    Unknown names and values out of range are refused; a pose has five unknowns, hence at least eight inliers.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_epipolar_error_px: float = Field(
        1.0, gt=0.0, le=100.0, description="A match is an inlier up to this Sampson distance, in pixels."
    )
    max_homography_error_px: float = Field(
        3.0,
        gt=0.0,
        le=100.0,
        description="A homography or a rotation explains a match up to this distance in pixels; the actual limit "
        "adapts to the noise of the matches and is at most this.",
    )
    noise_factor: float = Field(
        3.0,
        gt=0.0,
        le=100.0,
        description="The limit of a homography or a rotation is this many standard deviations of the matches' noise; "
        "3 keeps 98.9 % of Gaussian noise in two dimensions.",
    )
    min_inliers: int = Field(
        15, ge=8, le=100_000, description="Two views with fewer inliers than this are DEGENERATE and give no pose."
    )
    min_iterations: int = Field(
        50, ge=1, le=10_000_000, description="LO-RANSAC draws at least this many samples of matches."
    )
    max_iterations: int = Field(
        10_000, ge=1, le=10_000_000, description="LO-RANSAC draws at most this many samples of matches."
    )
    success_probability: float = Field(
        0.9999,
        gt=0.0,
        lt=1.0,
        description="LO-RANSAC stops when the probability that one sample had no wrong match reaches this.",
    )
    explained_ratio: float = Field(
        0.8,
        gt=0.0,
        lt=1.0,
        description="The scene is PLANAR when a homography explains this share of the inliers, and PANORAMIC when a "
        "rotation does, as in COLMAP.",
    )
    min_parallax_px: float = Field(
        0.5,
        ge=0.0,
        le=1000.0,
        description="The translation is unknown if the median shift relative to the best pure rotation is below this, "
        "in pixels.",
    )
    focal_std: float = Field(
        0.002,
        ge=0.0,
        le=1.0,
        description="This relative standard deviation of the focal lengths is assumed if the calibration states none.",
    )
    principal_point_std: float = Field(
        0.002,
        ge=0.0,
        le=1.0,
        description="This standard deviation of each coordinate of the principal point, as a share of the focal "
        "length, is assumed if the calibration states none.",
    )
    distortion_std: float = Field(
        0.002,
        ge=0.0,
        le=1.0,
        description="This standard deviation of the first radial distortion coefficient is assumed if the calibration "
        "states none.",
    )
    rolling_shutter_std: float = Field(
        0.0,
        ge=0.0,
        le=1.0,
        description="The unknown rotation of the camera within one readout has this standard deviation, in radians.",
    )
    drift_px: float = Field(
        0.01,
        ge=0.0,
        le=100.0,
        description="The matches of a whole surface share an error of this standard deviation in pixels under good "
        "conditions; 0 means that all errors are independent.",
    )

    @model_validator(mode="after")
    def _iterations_in_order(self) -> PoseConfig:
        if self.min_iterations > self.max_iterations:
            raise ValueError(
                f"min_iterations must lie in 1..max_iterations, got {self.min_iterations} and {self.max_iterations}"
            )
        return self

    @property
    def uncertainty(self) -> IntrinsicUncertainty:
        """Of calibrations that do not state their own."""
        return IntrinsicUncertainty(
            self.focal_std, self.principal_point_std, self.distortion_std, self.rolling_shutter_std
        )

    def with_wider_epipolar_limit(self, factor: float) -> PoseConfig:
        """The same settings with this many times the epipolar error; it may exceed what a user can set."""
        return self.model_copy(update={"max_epipolar_error_px": factor * self.max_epipolar_error_px})
