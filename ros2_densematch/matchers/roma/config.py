"""The options of `roma` and its presets."""

from __future__ import annotations

from pydantic import field_validator

from ros2_densematch.matchers.common.dense.config import DenseConfig, whole_patches

_PATCH = 14  # pixels of a side of DINOv2's patches


class RomaConfig(DenseConfig):
    """As of `DenseConfig`; sides of the coarse pass are multiples of 14."""

    @field_validator("coarse_size")
    @classmethod
    def _whole_patches(cls, value: tuple[int, int]) -> tuple[int, int]:
        return whole_patches(value, _PATCH)


PRESETS = {
    "turbo": RomaConfig(coarse_size=(420, 420), direction="reference_to_query"),
    "fast": RomaConfig(direction="reference_to_query"),
    "base": RomaConfig(upsample_size=(864, 864)),
    "precise": RomaConfig(coarse_size=(672, 672), upsample_size=(1152, 1152)),
}
