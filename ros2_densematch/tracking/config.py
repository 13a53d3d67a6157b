"""Settings of the tracker; every field is a ROS parameter of the same name."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from ros2_densematch.geometry.two_view import PoseConfig


class TrackerConfig(BaseModel):
    """Keyframe policy, relocalisation and limits. Unknown names and values out of range are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_keyframes: int = Field(
        24,
        ge=2,
        le=1000,
        description="At most this many keyframes are kept in memory; if there are more, the most redundant one is "
        "dropped.",
    )
    max_matches: int = Field(
        3000, ge=50, le=100_000, description="At most this many matches per frame are used, the best ones first."
    )
    min_inliers: int = Field(
        20, ge=8, le=1000, description="A frame is lost if fewer matches than this agree on a pose."
    )
    max_rotation_std_deg: float = Field(
        0.08,
        gt=0.0,
        le=10.0,
        description="A frame is lost if its matches cover only a corner of the image and the standard deviation of "
        "its rotation exceeds this, in degrees.",
    )
    keyframe_overlap: float = Field(
        0.6,
        gt=0.0,
        lt=1.0,
        description="A new keyframe is made when the image area covered by matches falls below this share of its "
        "maximum for the keyframe.",
    )
    keyframe_inliers: float = Field(
        0.45,
        gt=0.0,
        lt=1.0,
        description="A new keyframe is made when the number of inliers falls below this share of its maximum for the "
        "keyframe.",
    )
    keyframe_parallax_deg: float = Field(
        12.0,
        gt=0.0,
        le=90.0,
        description="A new keyframe is made when the median triangulation angle exceeds this, in degrees.",
    )
    keyframe_rotation_deg: float = Field(
        25.0,
        gt=0.0,
        le=180.0,
        description="A new keyframe is made when the camera has turned by more than this, in degrees.",
    )
    min_parallax_deg: float = Field(
        1.0,
        gt=0.0,
        le=20.0,
        description="To start a map, a fifth of the points must exceed this triangulation angle, in degrees; below it "
        "the baseline is too short and the position is held.",
    )
    relocalisation_candidates: int = Field(
        2, ge=0, le=20, description="While tracking is lost, this many older keyframes are tried per frame."
    )
    relocalisation_inliers: int = Field(
        30, ge=8, le=1000, description="A relocalisation needs at least this many inliers."
    )
    relocalisation_interval: int = Field(
        3,
        ge=1,
        le=1000,
        description="In a new segment after a loss, one older keyframe is tried every this many frames, to return to "
        "the old segment.",
    )
    max_lost_frames: int = Field(
        20,
        ge=1,
        le=100_000,
        description="After this many lost frames in a row, a new segment starts at the current frame.",
    )
    guided: bool = Field(
        True,
        description="If true and supported by the matcher, matches are carried from frame to frame without the "
        "network; otherwise every frame is matched in full.",
    )
    full_match_interval: int = Field(
        30,
        ge=0,
        le=100_000,
        description="After this many guided frames, a full match is made as a check; 0 disables these checks.",
    )
    full_match_delay: int = Field(
        20,
        ge=0,
        le=1000,
        description="A check runs on a second thread, and its result is used exactly this many guided frames later; "
        "with 0, its own frame waits for it.",
    )
    time_budget_ms: float = Field(
        -1.0,
        ge=-1.0,
        le=10_000.0,
        description="While frames take longer than this on average, in milliseconds, full matches that tracking does "
        "not need are skipped. 0 disables this, and results then do not depend on the computer's speed; a negative "
        "value means the interval between images in the live node, and 0 everywhere else.",
    )
    static_mask: bool = Field(
        True,
        description="If true, parts of the image that stay in place while the camera turns (robot body, HUD, dirt on "
        "the lens) are detected and not matched.",
    )
    max_window: int = Field(
        5,
        ge=2,
        le=12,
        description="Each keyframe keeps this many frames for the joint refinement of its points.",
    )
    readout_ms: float = Field(
        0.0,
        ge=-100.0,
        le=100.0,
        description="Readout time of a rolling shutter from the first row to the last, in milliseconds; it is "
        "negative if the last row is read first, and 0 if it is unknown or the shutter is global.",
    )
    estimate_readout: bool = Field(
        True,
        description="If true and `readout_ms` is 0, the readout time is estimated while the camera turns; this needs "
        "at least 5 frames/s, and depth images or stereo. If false and `readout_ms` is 0, the shutter is "
        "global.",
    )
    seed: int = Field(0, ge=0, le=2**31 - 1, description="All random numbers depend on this seed only.")
    pose: PoseConfig = Field(
        default_factory=PoseConfig, description="These settings control the two-view pose estimator."
    )

    @property
    def readout_s(self) -> float | None:
        """Seconds from the first row to the last; None = to be estimated."""
        return None if self.estimate_readout and self.readout_ms == 0.0 else 1e-3 * self.readout_ms
