"""`weakalign`: weakly supervised affine and thin-plate-spline alignment as a matcher."""

from __future__ import annotations

from ros2_densematch.matchers.common.parametric.matcher import ParametricMatcher
from ros2_densematch.matchers.common.parametric.network import AlignmentNetwork, network_for
from ros2_densematch.matchers.network import State
from ros2_densematch.matchers.weakalign.config import PRESETS


class WeakAlignMatcher(ParametricMatcher):
    """Weak alignment; see `docs/matchers/weakalign.md`."""

    name = "weakalign"
    PRESETS = PRESETS

    def _checkpoint(self) -> str:
        return "weakalign"

    def _build(self, state: State | None) -> AlignmentNetwork:
        return AlignmentNetwork("resnet101", (6, 18)) if state is None else network_for(state)
