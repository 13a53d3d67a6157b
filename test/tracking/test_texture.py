"""An image without texture above its noise is told from one with little contrast."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from ros2_densematch.tracking.texture import is_textureless

SIZE = (480, 640)


def blotches(contrast: float, scale_px: float, seed: int = 0) -> np.ndarray:
    """Random texture of a scale, its standard deviation as a share of 255."""
    texture = cv2.GaussianBlur(np.random.default_rng(seed).normal(size=SIZE), (0, 0), scale_px)
    return 120 + 255 * contrast * texture / texture.std()


def camera(scene: np.ndarray, noise: float, seed: int = 1) -> np.ndarray:
    """What a sensor with noise (grey levels) makes of it."""
    noisy = scene + np.random.default_rng(seed).normal(0, noise, scene.shape)
    return np.clip(np.rint(noisy), 0, 255).astype(np.uint8)


@pytest.mark.parametrize("noise", [0.0, 0.5, 2.0, 3.0])
def test_a_blank_wall_shows_nothing(noise: float) -> None:
    rows, columns = np.mgrid[: SIZE[0], : SIZE[1]]
    shaded = 200 - 0.05 * columns - 1e-4 * (rows - 200) ** 2  # lit from one side, darker towards the corners
    assert is_textureless(camera(shaded, noise))
    assert is_textureless(np.repeat(camera(shaded, noise)[..., None], 3, axis=2))


@pytest.mark.parametrize("scale_px", [1.5, 3.0, 6.0])
@pytest.mark.parametrize("noise", [0.5, 2.0])
def test_three_percent_of_contrast_are_enough(scale_px: float, noise: float) -> None:
    assert not is_textureless(camera(blotches(0.03, scale_px), noise))


def test_texture_of_single_pixels_is_not_taken_for_noise() -> None:
    assert not is_textureless(camera(np.full(SIZE, 120.0), 15.0))  # asphalt, a carpet, or a night too dark to tell


def test_a_strip_of_texture_at_the_edge_is_enough_and_a_speck_is_not() -> None:
    wall = np.full(SIZE, 180.0)
    strip = wall.copy()
    strip[:, :48] = blotches(0.1, 3.0)[:, :48]
    assert not is_textureless(camera(strip, 1.5))
    speck = wall.copy()
    speck[200:216, 300:316] = 40
    assert is_textureless(camera(speck, 1.5))


def test_what_is_masked_does_not_count() -> None:
    hud = np.full(SIZE, 180.0)
    hud[300:] = blotches(0.1, 3.0)[300:]
    mask = np.ones(SIZE, dtype=bool)
    mask[290:] = False
    assert not is_textureless(camera(hud, 1.5))
    assert is_textureless(camera(hud, 1.5), mask)


def test_the_smallest_images_are_judged_too() -> None:
    assert is_textureless(np.full((16, 16), 90, np.uint8))
    assert not is_textureless(camera(blotches(0.2, 3.0)[:16, :16], 1.0))
