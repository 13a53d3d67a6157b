"""The options of `weakalign` and its presets."""

from __future__ import annotations

from ros2_densematch.matchers.common.parametric.config import ParametricConfig

PRESETS = {"base": ParametricConfig(), "refined": ParametricConfig(iterations=5)}
