"""The options of `gcm` and its presets."""

from __future__ import annotations

from pydantic import Field

from ros2_densematch.matchers.config import MatcherConfig


class GcmConfig(MatcherConfig):
    """Speed against accuracy, and the rules by which matches are kept."""

    max_pixels: int = Field(
        500_000,
        ge=256,
        le=100_000_000,
        description="Images with more pixels are reduced internally; coordinates stay those of the original.",
    )
    keypoints: int = Field(4096, ge=16, le=100_000, description="At most this many key points are taken per image.")
    radius: int = Field(
        7,
        ge=2,
        le=20,
        description="The patches of the sub-pixel alignment have this radius in pixels of the working image.",
    )
    iterations: int = Field(6, ge=0, le=50, description="The sub-pixel alignment takes this many Gauss-Newton steps.")
    growth_rounds: int = Field(1, ge=0, le=10, description="Matches grow this many times into cells without a match.")
    growth_iterations: int = Field(
        4,
        ge=0,
        le=50,
        description="The alignment of grown matches takes this many Gauss-Newton steps; it needs fewer because it "
        "starts closer.",
    )
    growth_radius: int = Field(
        5, ge=2, le=20, description="The patches of grown matches have this radius in pixels of the working image."
    )
    refinement: bool = Field(True, description="If true, matches are aligned with sub-pixel accuracy.")
    growth: bool = Field(True, description="If true, matches grow into cells without a match.")
    filter: bool = Field(
        True, description="If true, the learned filter scores the matches; otherwise their correlation is the score."
    )
    pair_filter: bool = Field(
        True,
        description="If true, the learned filter that sees the whole pair scores the matches; otherwise one that "
        "sees a match and its neighbours.",
    )
    hypotheses: bool = Field(
        True, description="If true, rotated, zoomed and slanted views are tried when the plain match is weak."
    )
    saliency_threshold: float = Field(
        -5.0, ge=-100.0, le=100.0, description="A key point has at least this saliency (a logit)."
    )
    similarity_threshold: float = Field(
        0.5, ge=-1.0, le=1.0, description="A coarse match has at least this cosine between its descriptors."
    )
    seed_correlation: float = Field(
        0.6,
        ge=-1.0,
        le=1.0,
        description="An aligned match with a lower patch correlation than this is dropped immediately, because hardly "
        "any such match is correct.",
    )
    grown_correlation: float = Field(
        0.6, ge=-1.0, le=1.0, description="A grown match with a lower patch correlation than this is dropped."
    )
    confirmed_residual: float = Field(
        6.0,
        gt=0.0,
        le=1000.0,
        description="A confirmed match lies within this many working pixels of the position that its neighbours "
        "predict.",
    )
    confirmed_support: float = Field(
        0.25, ge=0.0, lt=1.0, description="A confirmed match agrees with more than this share of its neighbours."
    )
    confident_score: float = Field(
        0.4, ge=0.0, le=1.0, description="Matches with a lower score than this are left out unless too few remain."
    )
    min_score: float = Field(
        0.1, ge=0.0, le=1.0, description="Matches with a lower score than this are always left out."
    )
    enough: int = Field(
        100,
        ge=0,
        le=1_000_000,
        description="If fewer matches than this are confident, the best ones up to this number are returned.",
    )
    weak_support: int = Field(
        60,
        ge=0,
        le=1_000_000,
        description="A plain match with fewer confirmed coarse matches than this is weak, and other views are tried.",
    )
    weak_share: float = Field(
        0.25,
        ge=0.0,
        le=1.0,
        description="A plain match with a smaller share of confirmed coarse matches than this is also weak.",
    )
    min_confirmed: int = Field(
        20, ge=1, le=1_000_000, description="Another view needs at least this many confirmed coarse matches to be used."
    )


PRESETS = {
    "turbo": GcmConfig(max_pixels=80_000, keypoints=1024, radius=5, iterations=4, hypotheses=False),
    "fast": GcmConfig(max_pixels=160_000, keypoints=2048, radius=6, iterations=4, hypotheses=False),
    "base": GcmConfig(),
    "precise": GcmConfig(max_pixels=1_500_000, keypoints=8192, iterations=8, growth_rounds=2),
}
