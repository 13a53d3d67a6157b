"""A closer look: enlarged images give more right matches where the plain match found few, and nothing else changes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from ros2_densematch.matchers.base import Image
from ros2_densematch.matchers.gcm import matcher as gcm_module
from ros2_densematch.matchers.gcm.candidates import Candidates
from ros2_densematch.matchers.gcm.closer_look import enlarged, in_working_pixels, joined_without_repetition
from ros2_densematch.matchers.gcm.encoding import ENLARGEMENT, working_image
from ros2_densematch.matchers.gcm.matcher import GcmMatcher

Photo = Callable[..., Image]


def epipolar_error(x0: np.ndarray, x1: np.ndarray, K0: np.ndarray, K1: np.ndarray, T: np.ndarray) -> np.ndarray:
    """Sampson distance in pixels under the true pose."""
    x, y, z = T[:3, 3]
    F = np.linalg.inv(K1).T @ np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]]) @ T[:3, :3] @ np.linalg.inv(K0)
    p, q = np.c_[x0, np.ones(len(x0))], np.c_[x1, np.ones(len(x1))]
    lines1, lines0 = p @ F.T, q @ F
    return np.abs((lines1 * q).sum(1)) / np.sqrt((lines1[:, :2] ** 2).sum(1) + (lines0[:, :2] ** 2).sum(1))


def with_intrinsics_of_half(K: np.ndarray, factor: float) -> np.ndarray:
    scaled = K * factor
    scaled[:2, 2] = (K[:2, 2] + 0.5) * factor - 0.5
    scaled[2, 2] = 1.0
    return scaled


def weak_pair(shared_data: Path) -> tuple[Image, Image, np.ndarray, np.ndarray, np.ndarray]:
    """A facade photographed from far apart, at 640 pixels: the plain match finds hardly anything it trusts."""
    folder = shared_data / "pose_pairs" / "strecha_herzjesu"
    lines = [line.split() for line in (folder / "pairs.txt").read_text().splitlines() if not line.startswith("#")]
    first, second, *numbers = lines[3]
    values = np.array([float(n) for n in numbers])
    images = []
    for name in (first, second):
        image = cv2.cvtColor(cv2.imread(str(folder / name)), cv2.COLOR_BGR2RGB)
        factor = 640 / max(image.shape[:2])
        size = round(image.shape[1] * factor), round(image.shape[0] * factor)
        images.append(np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8))
    K0, K1 = (with_intrinsics_of_half(values[i : i + 9].reshape(3, 3), factor) for i in (0, 9))
    return images[0], images[1], K0, K1, values[18:].reshape(4, 4)


def candidates(x0: np.ndarray, x1: np.ndarray) -> Candidates:
    n = len(x0)
    unit = np.ones(n)
    linear = np.tile(np.eye(2), (n, 1, 1))
    return Candidates(x0, x1, linear, unit, unit, unit, np.ones((n, 3)), unit, np.zeros(n, np.bool_))


def test_a_weak_pair_gains_right_matches(gcm: GcmMatcher, shared_data: Path) -> None:
    first, second, K0, K1, T = weak_pair(shared_data)
    without = GcmMatcher(device="cpu", stages=frozenset({"refine", "grow", "filter", "hypotheses"}))
    right = []
    for matcher in (without, gcm):
        found = matcher.match(matcher.encode(first), matcher.encode(second))
        error = epipolar_error(found.reference_xy, found.query_xy, K0, K1, T)
        right.append(int((error < 1.0).sum()))
    assert right[1] > 1.5 * right[0]


def test_an_ordinary_pair_is_never_looked_at_again(
    gcm: GcmMatcher, photo: Photo, carried: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: object) -> None:
        raise AssertionError("an ordinary pair was enlarged")

    monkeypatch.setattr(gcm_module, "enlarged", never)
    image = photo(0)
    other, _ = carried(image, 1.15, (-20.2, -30.8))
    assert len(gcm.match(gcm.encode(image), gcm.encode(other))) > 300


def test_pictures_that_share_nothing_do_not_pay(gcm: GcmMatcher, photo: Photo, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gcm_module, "enlarged", None)  # calling it would be an error
    assert len(gcm.match(gcm.encode(photo(0)), gcm.encode(photo(1)))) < 20


def test_a_keyframe_is_enlarged_once(gcm: GcmMatcher, photo: Photo) -> None:
    encoding = gcm.encode(photo(0)).data
    first = enlarged(encoding, gcm._encode_working)
    assert enlarged(encoding, gcm._encode_working) is first
    width, height = encoding.size
    assert first.size == (round(width * ENLARGEMENT), round(height * ENLARGEMENT))


def test_a_mask_is_enlarged_too(gcm: GcmMatcher, photo: Photo) -> None:
    image = photo(0)
    mask = np.ones(image.shape[:2], np.bool_)
    mask[:, :200] = False
    found = enlarged(gcm.encode(image, mask=mask).data, gcm._encode_working)
    assert found.keypoints[:, 0].min() >= 200 * ENLARGEMENT - 1


def test_pixels_of_a_larger_original_are_used() -> None:
    image = np.random.default_rng(0).integers(0, 255, (1200, 1600, 3), np.uint8)
    working = working_image(image, None, 480_000)
    assert working.rgb.shape[:2] == (600, 800)
    assert working.detail is not None
    assert working.detail.shape[:2] == (900, 1200)
    slightly = working_image(image[:660, :880], None, 480_000)
    assert slightly.detail is not None
    assert slightly.detail.shape[:2] == (660, 880)
    assert working_image(image[:600, :800], None, 480_000).detail is None


def test_candidates_come_back_to_working_pixels(gcm: GcmMatcher, photo: Photo) -> None:
    """Against a known affine map: pixel centres stay centres, and so do the map and its normal matrix."""
    encodings = [gcm.encode(photo(i)).data for i in (0, 1)]
    a, b = (enlarged(e, gcm._encode_working) for e in encodings)
    x0 = np.array([[10.0, 20.0], [300.25, 44.5]])
    linear = np.array([[0.9, 0.2], [-0.1, 1.1]])
    x1 = x0 @ linear.T + [3.0, 4.0]
    close = candidates((x0 + 0.5) * a.scale - 0.5, (x1 + 0.5) * b.scale - 0.5)
    close.linear = np.diag(b.scale) @ np.tile(linear, (2, 1, 1)) @ np.diag(1 / a.scale)
    found = in_working_pixels(close, a, b)
    assert found.reference_xy == pytest.approx(x0)
    assert found.query_xy == pytest.approx(x1)
    assert found.linear == pytest.approx(np.tile(linear, (2, 1, 1)))
    # half a pixel of the enlarged image is a third of a working pixel: the precision grows by the square of 1.5
    assert found.information == pytest.approx(np.ones((2, 3)) * ENLARGEMENT**2, rel=0.01)


def test_of_two_matches_at_one_place_the_better_stays() -> None:
    first = candidates(np.array([[0.0, 0.0], [50.0, 50.0]]), np.array([[1.0, 1.0], [51.0, 51.0]]))
    second = candidates(np.array([[0.3, 0.2], [80.0, 20.0]]), np.array([[9.0, 9.0], [81.0, 21.0]]))
    kept, score = joined_without_repetition(first, np.array([0.4, 0.9]), second, np.array([0.8, 0.3]))
    assert kept.reference_xy.tolist() == [[50.0, 50.0], [0.3, 0.2], [80.0, 20.0]]
    assert score.tolist() == [0.9, 0.8, 0.3]
