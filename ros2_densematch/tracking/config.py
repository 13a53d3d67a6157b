"""Settings of the tracker; every field is a ROS parameter of the same name."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from ros2_densematch.geometry.two_view import PoseConfig


class TrackerConfig(BaseModel):
    """Keyframe policy, relocalisation and limits. Unknown names and values out of range are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_keyframes: int = Field(
        24, ge=2, le=1000, description="Keyframes kept in memory; the most redundant one is dropped beyond this."
    )
    max_matches: int = Field(3000, ge=50, le=100_000, description="Most matches a frame, the best ones.")
    min_inliers: int = Field(20, ge=8, le=1000, description="A frame with fewer consistent matches is lost.")
    max_rotation_std_deg: float = Field(
        0.08,
        gt=0.0,
        le=10.0,
        description="A frame whose matches lie in a corner and fix the rotation less well, in degrees, is lost.",
    )
    keyframe_overlap: float = Field(
        0.6,
        gt=0.0,
        lt=1.0,
        description="New keyframe when the image area still covered by matches falls below this share of its best.",
    )
    keyframe_inliers: float = Field(
        0.45,
        gt=0.0,
        lt=1.0,
        description="New keyframe when the inliers fall below this share of the best count since the keyframe began.",
    )
    keyframe_parallax_deg: float = Field(
        12.0, gt=0.0, le=90.0, description="New keyframe when the median triangulation angle exceeds this, in degrees."
    )
    keyframe_rotation_deg: float = Field(
        25.0, gt=0.0, le=180.0, description="New keyframe when the camera has turned by more than this, in degrees."
    )
    min_parallax_deg: float = Field(
        1.0,
        gt=0.0,
        le=20.0,
        description="Least triangulation angle, in degrees, that a fifth of the points must exceed to be triangulated "
        "from scratch; below it the baseline is too short and the position is held.",
    )
    relocalisation_candidates: int = Field(
        2, ge=0, le=20, description="Older keyframes tried a frame while tracking is lost."
    )
    relocalisation_inliers: int = Field(
        30, ge=8, le=1000, description="Consistent matches that a relocalisation needs."
    )
    relocalisation_interval: int = Field(
        3,
        ge=1,
        le=1000,
        description="In a new segment after a loss, every so many frames one older keyframe is tried to return to the "
        "old segment.",
    )
    max_lost_frames: int = Field(
        20,
        ge=1,
        le=100_000,
        description="After so many lost frames in a row a new segment begins at the current frame.",
    )
    guided: bool = Field(
        True,
        description="Carry matches on from frame to frame without the network where the matcher can; false = match "
        "every frame anew.",
    )
    full_match_interval: int = Field(
        30, ge=0, le=100_000, description="Guided frames after which a full match is made as a check; 0 = never."
    )
    time_budget_ms: float = Field(
        0.0,
        ge=0.0,
        le=10_000.0,
        description="While frames take longer than this on average, in ms, full matches are left out where tracking "
        "goes on without them; 0 = off: results then do not depend on the computer's speed.",
    )
    max_window: int = Field(
        5, ge=2, le=12, description="Frames kept with each keyframe for the joint refinement of its points."
    )
    readout_ms: float = Field(
        0.0,
        ge=-100.0,
        le=100.0,
        description="Time from the first to the last row of a rolling shutter, in ms; negative where the last row "
        "comes first; 0 = not known, or a global shutter.",
    )
    estimate_readout: bool = Field(
        True,
        description="Where `readout_ms` is 0, estimate it while the camera turns (at least 5 frames a second, and "
        "depth images or stereo); false = the shutter is a global one.",
    )
    seed: int = Field(0, ge=0, description="Seed of everything that is drawn at random.")
    pose: PoseConfig = Field(
        default_factory=lambda: PoseConfig(),
        description="Settings of the two-view estimator (see geometry.two_view).",
    )

    @property
    def readout_s(self) -> float | None:
        """Seconds from the first row to the last; None = to be estimated."""
        return None if self.estimate_readout and self.readout_ms == 0.0 else 1e-3 * self.readout_ms
