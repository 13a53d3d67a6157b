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
        description="This many keyframes are kept in memory; beyond this the most redundant one is dropped.",
    )
    max_matches: int = Field(
        3000, ge=50, le=100_000, description="At most this many matches of a frame are used, the best ones."
    )
    min_inliers: int = Field(
        20, ge=8, le=1000, description="A frame with fewer matches that agree on a pose than this is lost."
    )
    max_rotation_std_deg: float = Field(
        0.08,
        gt=0.0,
        le=10.0,
        description="A frame is lost when its matches lie in a corner of the image and leave the rotation a larger "
        "standard deviation than this, in degrees.",
    )
    keyframe_overlap: float = Field(
        0.6,
        gt=0.0,
        lt=1.0,
        description="A new keyframe begins when the image area that matches cover falls below this share of its best.",
    )
    keyframe_inliers: float = Field(
        0.45,
        gt=0.0,
        lt=1.0,
        description="A new keyframe begins when the number of inliers falls below this share of the best one since the "
        "keyframe began.",
    )
    keyframe_parallax_deg: float = Field(
        12.0,
        gt=0.0,
        le=90.0,
        description="A new keyframe begins when the median triangulation angle exceeds this, in degrees.",
    )
    keyframe_rotation_deg: float = Field(
        25.0,
        gt=0.0,
        le=180.0,
        description="A new keyframe begins when the camera has turned by more than this, in degrees.",
    )
    min_parallax_deg: float = Field(
        1.0,
        gt=0.0,
        le=20.0,
        description="A fifth of the points must exceed this triangulation angle, in degrees, to be triangulated from "
        "scratch; below it the baseline is too short and the position is held.",
    )
    relocalisation_candidates: int = Field(
        2, ge=0, le=20, description="This many older keyframes are tried in each frame while tracking is lost."
    )
    relocalisation_inliers: int = Field(
        30, ge=8, le=1000, description="A relocalisation needs at least this many matches that agree on a pose."
    )
    relocalisation_interval: int = Field(
        3,
        ge=1,
        le=1000,
        description="In a new segment after a loss, one older keyframe is tried once in this many frames, to return to "
        "the old segment.",
    )
    max_lost_frames: int = Field(
        20,
        ge=1,
        le=100_000,
        description="A new segment begins at the current frame after this many lost frames in a row.",
    )
    guided: bool = Field(
        True,
        description="When true, matches are carried on from frame to frame without the network where the matcher can "
        "do it; otherwise every frame is matched anew.",
    )
    full_match_interval: int = Field(
        30,
        ge=0,
        le=100_000,
        description="A full match is made as a check after this many guided frames; 0 leaves these checks out.",
    )
    full_match_delay: int = Field(
        20,
        ge=0,
        le=1000,
        description="A check is made on a second thread, and its result is waited for this many guided frames later; 0 "
        "makes its own frame wait.",
    )
    time_budget_ms: float = Field(
        0.0,
        ge=0.0,
        le=10_000.0,
        description="Full matches are left out where tracking goes on without them, while frames take longer than this "
        "on average, in milliseconds; 0 switches this off, and results then do not depend on the computer's speed.",
    )
    static_mask: bool = Field(
        True,
        description="When true, parts of the image that stand still while the camera turns (robot body, HUD, dirt on "
        "the lens) are found and not matched.",
    )
    max_window: int = Field(
        5,
        ge=2,
        le=12,
        description="This many frames are kept with each keyframe for the joint refinement of its points.",
    )
    readout_ms: float = Field(
        0.0,
        ge=-100.0,
        le=100.0,
        description="A rolling shutter takes this time from the first row to the last, in milliseconds; it is negative "
        "where the last row comes first, and 0 where it is not known or the shutter is global.",
    )
    estimate_readout: bool = Field(
        True,
        description="When true, the readout time is estimated while the camera turns, where `readout_ms` is 0; this "
        "needs at least 5 frames a second, and depth images or stereo. Otherwise the shutter is a global one.",
    )
    seed: int = Field(
        0, ge=0, le=2**31 - 1, description="Everything that is drawn at random depends on this seed alone."
    )
    pose: PoseConfig = Field(
        default_factory=PoseConfig, description="These settings belong to the estimator of the pose of two views."
    )

    @property
    def readout_s(self) -> float | None:
        """Seconds from the first row to the last; None = to be estimated."""
        return None if self.estimate_readout and self.readout_ms == 0.0 else 1e-3 * self.readout_ms
