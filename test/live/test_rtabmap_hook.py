"""RTAB-Map's Python matcher hook, called as RTAB-Map calls it."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType
from typing import Any

import cv2
import numpy as np
import pytest

from ros2_densematch.live.rtabmap import match_descriptors

SIZE = (640, 480)


@pytest.fixture
def hook(repository: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("rtabmap_densematch", repository / "scripts/rtabmap_densematch.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def scene(count: int = 400, noise: float = 0.1, seed: int = 0) -> tuple[np.ndarray, ...]:
    """Key points of two views with descriptors; the second set is shuffled. Last: where each went."""
    rng = np.random.default_rng(seed)
    xy = rng.uniform(20, 460, (count, 2)).astype(np.float32)
    descriptors = rng.normal(size=(count, 64)).astype(np.float32)
    order = rng.permutation(count)
    moved = (xy * 1.02 + [12, 5])[order].astype(np.float32)
    seen = (descriptors + noise * rng.normal(size=descriptors.shape))[order].astype(np.float32)
    return xy, moved, descriptors, seen, np.argsort(order)


def test_called_as_rtabmap_does(hook: ModuleType) -> None:
    """PyMatcher: init("ifiis"), then match with eight positional arguments, arrays of float32 and two ints."""
    xy, moved, a, b, where = scene()
    hook.init(64, 0.2, 20, 1, "indoor")
    ones = np.ones(len(xy), np.float32)
    pairs = hook.match(xy, moved, ones, ones, a, b, *SIZE)
    # uint64 would be read twice by RTAB-Map 0.21 to 0.23: once as it is, once as int32
    assert pairs.dtype == np.int64
    assert pairs.flags["C_CONTIGUOUS"]
    assert pairs.shape == (len(xy), 2)
    np.testing.assert_array_equal(pairs[:, 1], where[pairs[:, 0]])


def test_nothing_to_match_is_an_empty_array_of_two_columns(hook: ModuleType) -> None:
    hook.init(64, 0.2, 20, 0, "")
    none = np.zeros((0, 2), np.float32), np.zeros(0, np.float32), np.zeros((0, 64), np.float32)
    pairs = hook.match(none[0], none[0], none[1], none[1], none[2], none[2], *SIZE)
    assert pairs.shape == (0, 2)
    assert pairs.dtype == np.int64


def test_points_without_a_partner_are_left_out() -> None:
    xy, moved, a, b, where = scene()
    rng = np.random.default_rng(1)
    strangers = rng.normal(size=(400, 64)).astype(np.float32)
    pairs = match_descriptors(
        np.vstack([xy, rng.uniform(0, 480, (400, 2))]), moved, np.vstack([a, strangers]), b, SIZE, threshold=0.2
    )
    assert len(pairs) >= 400
    right = (pairs[:, 0] < 400) & (where[np.minimum(pairs[:, 0], 399)] == pairs[:, 1])
    assert right.mean() > 0.98


def test_repeated_texture_is_told_apart_by_the_neighbours() -> None:
    """Half of the descriptors have a near twin: their ratio says nothing, their neighbours do."""
    rng = np.random.default_rng(2)
    xy, moved, a, _, where = scene()
    a[1::2] = a[::2] + 0.25 * rng.normal(size=a[::2].shape)
    b = (a + 0.05 * rng.normal(size=a.shape)).astype(np.float32)[np.argsort(where)]
    pairs = match_descriptors(xy, moved, a, b, SIZE, threshold=0.9)
    assert len(pairs) > 350
    assert (where[pairs[:, 0]] == pairs[:, 1]).mean() > 0.98
    # fewer than there must be to vote: only the ratio is left, and it says nothing
    assert len(match_descriptors(xy[:10], moved, a[:10], b, SIZE, threshold=0.9)) == 0


def test_wrong_lengths_and_thresholds_are_named() -> None:
    xy, moved, a, b, _ = scene(20)
    with pytest.raises(ValueError, match="do not fit descriptors"):
        match_descriptors(xy, moved, a[:5], b, SIZE)
    with pytest.raises(ValueError, match="PyMatcher/Threshold"):
        match_descriptors(xy, moved, a, b, SIZE, threshold=1.5)


def test_a_cleaner_set_than_a_cross_check_on_real_images(shared_data: Any) -> None:
    """Two blurred frames of a handheld camera, key points by SIFT; right is what one epipolar geometry explains."""
    images = [
        cv2.imread(str(shared_data.need(f"sequences/tum_fr1_rpy/rgb/00000{i}.jpg")), cv2.IMREAD_GRAYSCALE)
        for i in (0, 4)
    ]
    sift = cv2.SIFT.create(1000)
    found = [sift.detectAndCompute(image, None) for image in images]
    xy = [np.array([k.pt for k in keys], np.float32) for keys, _ in found]
    ours = match_descriptors(xy[0], xy[1], found[0][1], found[1][1], (images[0].shape[1], images[0].shape[0]))
    crossed = cv2.BFMatcher(cv2.NORM_L2, crossCheck=True).match(found[0][1], found[1][1])
    cross = np.array([(m.queryIdx, m.trainIdx) for m in crossed])

    def right(pairs: np.ndarray) -> tuple[int, float]:
        _, mask = cv2.findFundamentalMat(xy[0][pairs[:, 0]], xy[1][pairs[:, 1]], cv2.USAC_MAGSAC, 1.0, 0.9999, 10000)
        return int(mask.sum()), float(mask.mean())

    (count, share), (cross_count, cross_share) = right(ours), right(cross)
    assert count > 0.7 * cross_count
    assert share > 1.5 * cross_share
