"""Stereo pairs as people have them: cameras swapped, the baseline's sign turned, rows that do not agree."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from ros2_densematch.geometry.camera import Camera
from ros2_densematch.io.sources.stereo_check import check_pair, with_positive_baseline

K = np.array([[300.0, 0, 159.5], [0, 300, 119.5], [0, 0, 1]])


def right_camera(tx: float) -> Camera:
    return Camera(320, 240, K, P=np.hstack([K, [[300 * tx], [0], [0]]]))


@pytest.fixture(scope="module")
def pair() -> tuple[np.ndarray, np.ndarray]:
    """A textured wall with a nearer board: disparities of 8 and 20 px."""
    rng = np.random.default_rng(3)
    wall = cv2.GaussianBlur(rng.integers(0, 255, (240, 400)).astype(np.uint8), (0, 0), 1.5)
    board = cv2.GaussianBlur(rng.integers(0, 255, (100, 120)).astype(np.uint8), (0, 0), 1.5)
    views = []
    for shift_wall, shift_board in ((0, 0), (8, 20)):
        view = wall[:, 20 + shift_wall : 340 + shift_wall].copy()
        view[70:170, 100 - shift_board : 220 - shift_board] = board
        views.append(cv2.normalize(view, None, 0, 255, cv2.NORM_MINMAX))
    return views[0], views[1]


def test_a_right_pair_is_right(pair) -> None:
    found = check_pair(*pair, Camera.from_matrix(K, 320, 240), right_camera(-0.1))
    assert found is not None
    assert (found.problem, found.flipped) == ("", False)


def test_the_left_images_twice_are_no_pair(pair) -> None:
    camera = Camera.from_matrix(K, 320, 240)
    found = check_pair(pair[0], pair[0].copy(), camera, right_camera(-0.1))
    assert found is not None
    assert "the right images equal the left ones" in found.problem
    black = np.zeros_like(pair[0])
    assert check_pair(black, black, camera, right_camera(-0.1)) is None


def test_a_baseline_of_the_wrong_sign_is_turned(pair) -> None:
    camera = right_camera(0.1)
    found = check_pair(*pair, Camera.from_matrix(K, 320, 240), camera)
    assert found is not None
    assert (found.problem, found.flipped) == ("", True)
    assert with_positive_baseline(camera).baseline == pytest.approx(0.1)


@pytest.mark.parametrize("tx", [-0.1, 0.1])
def test_swapped_cameras_are_told_by_the_sign_of_the_disparities(pair, tx: float) -> None:
    found = check_pair(pair[1], pair[0], Camera.from_matrix(K, 320, 240), right_camera(tx))
    assert found is not None
    assert "negative" in found.problem
    assert "swap --image-topic and --right-image-topic" in found.problem


def test_rows_that_do_not_agree_are_refused_with_the_number(pair) -> None:
    lower = np.roll(pair[1], 6, axis=0)
    found = check_pair(pair[0], lower, Camera.from_matrix(K, 320, 240), right_camera(-0.1))
    assert found is not None
    assert "differ by 1" in found.problem or "differ by 6" in found.problem
    assert "not rectified" in found.problem


def test_blank_images_tell_nothing() -> None:
    blank = np.full((240, 320), 90, np.uint8)
    assert check_pair(blank, blank, Camera.from_matrix(K, 320, 240), right_camera(-0.1)) is None
