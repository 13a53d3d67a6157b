"""Photometric change: deterministic, in range, and geometry stays."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from ros2_densematch.training.data.photometric import PhotometricConfig, augment


@pytest.fixture
def picture() -> np.ndarray:
    rng = np.random.default_rng(0)
    small = rng.integers(30, 226, (16, 16, 3), dtype=np.uint8)
    return cv2.resize(small, (128, 128), interpolation=cv2.INTER_CUBIC)


def test_the_generator_alone_decides_the_result(picture):
    for seed in range(20):
        first = augment(picture, np.random.default_rng(seed))
        np.testing.assert_array_equal(first, augment(picture, np.random.default_rng(seed)))
        assert first.dtype == np.uint8
        assert first.shape == picture.shape


def test_strength_zero_changes_nothing(picture):
    np.testing.assert_array_equal(augment(picture, np.random.default_rng(0), PhotometricConfig(strength=0)), picture)


def test_every_change_alone_changes_the_picture_and_leaves_things_in_their_place(picture):
    kinds = [name for name in PhotometricConfig.model_fields if name != "strength"]
    grey = picture.mean(2).astype(np.float32)
    for kind in kinds:
        only = PhotometricConfig(**{name: float(name == kind) for name in kinds})
        shifts, changes = [], []
        for seed in range(8):
            changed = augment(picture, np.random.default_rng(seed), only)
            changes.append(np.abs(changed.astype(int) - picture).mean())
            shift, _ = cv2.phaseCorrelate(grey, changed.mean(2).astype(np.float32))
            shifts.append(np.hypot(*shift))
        assert np.median(changes) > 0.1, kind
        # A highlight or a shadow has edges of its own, so one picture may mislead the correlation: the median may not.
        assert np.median(shifts) < 0.25, (kind, shifts)


def test_usual_changes_keep_most_of_the_picture_in_range(picture):
    saturated = []
    for seed in range(60):
        changed = augment(picture, np.random.default_rng(seed))
        saturated.append(((changed <= 1) | (changed >= 254)).mean())
    assert np.median(saturated) < 0.1
    assert np.mean(np.array(saturated) > 0.8) < 0.1
