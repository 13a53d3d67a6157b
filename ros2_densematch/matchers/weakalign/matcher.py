"""`weakalign`: weakly supervised affine and thin-plate-spline alignment as a matcher."""

from __future__ import annotations

import torch

from ros2_densematch.matchers.common.parametric.matcher import PRESETS, ParametricMatcher
from ros2_densematch.matchers.common.parametric.network import AlignmentNetwork, network_of
from ros2_densematch.weights.store import read_checkpoint


class WeakAlignMatcher(ParametricMatcher):
    """Weak alignment; see `docs/matchers/weakalign.md`."""

    name = "weakalign"

    def __init__(self, *, device: str = "auto", preset: str = "base", weights: str | None = None) -> None:
        """
        Args:
            device: "auto", "cpu", "cuda" or "cuda:N".
            preset: "base" as published; "refined" runs the affine stage five times before the spline.
            weights: None for the fetched official checkpoint, "random", or a file: the published checkpoint or a
                safetensors file with its keys.

        Raises:
            ValueError: unknown preset or device, or weights of another network.
            FileNotFoundError: no such weights file, or the checkpoint was not fetched yet.
        """
        if preset not in PRESETS:
            raise ValueError(f"unknown preset {preset!r} of {self.name}: choose one of {', '.join(PRESETS)}")
        self.preset = preset
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(0)
            if weights == "random":
                network = AlignmentNetwork("resnet101", (6, 18))
            else:
                network = network_of(read_checkpoint("weakalign", weights))
        super().__init__(network, device=device, iterations=PRESETS[preset])
