"""Pictures whose every position is known, and matchers that are loaded once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from ros2_densematch.arrays import Float64, Image
from ros2_densematch.matchers.base import Matcher
from ros2_densematch.matchers.gcm.matcher import GcmMatcher
from ros2_densematch.matchers.registry import list_matchers, list_plugins, load_matcher
from ros2_densematch.simulation import textures
from ros2_densematch.weights.catalogue import path_of
from ros2_densematch.weights.loading import read_state


@dataclass(frozen=True)
class Waves:
    """A smooth random picture that is known between the pixels: a sum of plane waves longer than six pixels."""

    frequency: Float64
    phase: Float64

    @staticmethod
    def drawn(seed: int) -> Waves:
        rng = np.random.default_rng(seed)
        angle, length = rng.uniform(0, 2 * np.pi, 60), rng.uniform(6, 40, 60)
        frequency = 2 * np.pi / length[:, None] * np.stack([np.cos(angle), np.sin(angle)], 1)
        return Waves(frequency, rng.uniform(0, 2 * np.pi, 60))

    def at(self, xy: Float64) -> Float64:
        """Values around 128 with a standard deviation of about 27, at (..., 2) positions."""
        return 128 + 5 * np.sin(xy @ self.frequency.T + self.phase).sum(-1)

    def image(self, width: int, height: int, affine: Float64 | None = None) -> NDArray[np.float32]:
        """The picture, or the picture carried by a (2, 3) affine map, at the pixels of an image."""
        xy = np.stack(np.meshgrid(np.arange(width), np.arange(height)), -1).astype(np.float64)
        if affine is not None:
            xy = (xy - affine[:, 2]) @ np.linalg.inv(affine[:, :2]).T
        return self.at(xy).astype(np.float32)


@pytest.fixture(scope="session")
def waves() -> Waves:
    return Waves.drawn(0)


@pytest.fixture(scope="session")
def photo() -> Callable[..., Image]:
    """Draws a textured RGB picture: `photo(seed, width, height)`."""

    made: dict[tuple[int, int, int], Image] = {}

    def draw(seed: int = 0, width: int = 480, height: int = 360) -> Image:
        key = (seed, width, height)
        if key not in made:
            ground = (textures.plaster, textures.brick)[seed % 2]
            paint = textures.gallery(ground, max(1, width * height // 22000))
            made[key] = paint(height, width, 160.0, np.random.default_rng(seed))
            made[key].setflags(write=False)
        return made[key]

    return draw


@pytest.fixture(scope="session")
def gcm() -> GcmMatcher:
    """The default matcher with the shipped weights."""
    return GcmMatcher(device="cpu")


@pytest.fixture(scope="session")
def shipped_filter() -> None:
    """Skips where the shipped weights hold no match filter: the correlation then stands in for the score."""
    if not any(name.startswith("filter.") for name in read_state(path_of("gcm"))):
        pytest.skip("the shipped weights of gcm hold no match filter yet")


@pytest.fixture(scope="session", params=["condl", "gcm", "sift", *list_plugins()])
def matcher(request: pytest.FixtureRequest) -> Matcher:
    """The matchers that need no fetched weights, and plugins: the half of the contract that speaks of matches."""
    return load_matcher(request.param, device="cpu", weights="random")


# The smallest preset of every matcher, and what lets it find anything with random weights.
SMALLEST: dict[str, dict[str, Any]] = {
    "cnngeometric": {"preset": "base"},
    "dkm": {"preset": "turbo", "coarse_size": (96, 128)},
    "ncnet": {"preset": "small"},
    "r2d2": {"preset": "turbo", "min_reliability": 0.0, "min_repeatability": 0.0},
    "roma": {"preset": "turbo", "coarse_size": (112, 112)},
    "roma_v2": {"preset": "turbo", "coarse_size": (64, 80)},
    "sift": {"preset": "base"},
    "sparse_ncnet": {"preset": "small"},
    "weakalign": {"preset": "base"},
}


@pytest.fixture(scope="session", params=list_matchers())
def any_matcher(request: pytest.FixtureRequest) -> Matcher:
    """Every matcher of the registry, untrained: this half of the contract does not depend on the weights."""
    options = {"preset": "base" if request.param in list_plugins() else "turbo", **SMALLEST.get(request.param, {})}
    return load_matcher(request.param, device="cpu", weights="random", **options)


@pytest.fixture(scope="session")
def carried() -> Callable[..., tuple[Image, Float64]]:
    """Enlarges and shifts a picture exactly: `carried(image, scale, shift)` -> image of the same size, (2, 3) map."""

    def carry(image: Image, scale: float, shift: tuple[float, float]) -> tuple[Image, Float64]:
        affine = np.array([[scale, 0, shift[0]], [0, scale, shift[1]]])
        size = (image.shape[1], image.shape[0])
        return np.asarray(cv2.warpAffine(image, affine, size, flags=cv2.INTER_CUBIC), np.uint8), affine

    return carry
