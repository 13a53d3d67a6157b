"""The mask of what a camera carries along: learnt while it turns in three directions, and at no other time."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from ros2_densematch.geometry.camera import Camera
from ros2_densematch.tracking.static_mask import Picture, StaticMask, tiles_of_scene

CAMERA = Camera.from_matrix([[500.0, 0, 319.5], [0, 500.0, 239.5], [0, 0, 1]], 640, 480)
SMALL = CAMERA.resized(256, 192)
AROUND = [(0.0, 0.0), (4.0, 0.0), (4.0, 4.0), (0.0, 4.0), (0.0, 0.0), (4.0, 4.0), (0.0, 4.0), (4.0, 0.0), (0.0, 0.0)]


@pytest.fixture(scope="module")
def far() -> np.ndarray:
    """A texture around the camera, very far away."""
    rng = np.random.default_rng(0)
    noise = cv2.GaussianBlur(rng.integers(0, 256, (600, 800), np.uint8), (0, 0), 2.0)
    return np.asarray(cv2.normalize(noise, None, 20, 235, cv2.NORM_MINMAX), np.uint8)


def turned(yaw: float, pitch: float) -> np.ndarray:
    return np.asarray(cv2.Rodrigues(np.radians([pitch, 0, 0]))[0] @ cv2.Rodrigues(np.radians([0, yaw, 0]))[0])


def seen(far: np.ndarray, R: np.ndarray, body: np.ndarray | None = None) -> np.ndarray:
    """What a camera sees whose R_world_from_camera is R."""
    K = SMALL.K
    to_far = np.array([[1, 0, 272], [0, 1, 204], [0, 0, 1.0]])
    image = cv2.warpPerspective(far, K @ R.T @ np.linalg.inv(K) @ np.linalg.inv(to_far), (256, 192))
    if body is not None:
        image[144:] = body
    return np.asarray(image, np.uint8)


def learnt(
    far: np.ndarray, path: list[tuple[float, float]], body: np.ndarray | None, static: StaticMask | None = None
) -> StaticMask:
    static = static or StaticMask()
    begin = 0 if static.before is None else static.before.stamp_ns
    for i, angles in enumerate(path, start=1):
        R = turned(*angles)
        static = static.after(Picture(seen(far, R, body), CAMERA, R, begin + i * 200_000_000, 0))
    return static


@pytest.fixture(scope="module")
def body(far: np.ndarray) -> np.ndarray:
    """A quarter of the image at the lower rim."""
    return np.ascontiguousarray(far[:48, 100:356][:, ::-1])


def test_a_body_is_found_while_the_camera_looks_about(far: np.ndarray, body: np.ndarray) -> None:
    static = learnt(far, AROUND, body)
    assert static.tiles is not None
    assert static.tiles.shape == (24, 32)
    assert static.tiles[18:].mean() > 0.95
    assert static.tiles[:18].mean() < 0.01
    seen_pixels = static.pixels((640, 480))
    assert seen_pixels is not None
    assert seen_pixels.shape == (480, 640)
    assert seen_pixels[:350].mean() > 0.98
    assert not seen_pixels[370:].mean() > 0.05
    assert static.note == f"; static mask over {static.share:.0%} of the image"


def test_nothing_is_learnt_from_a_camera_that_stands(far: np.ndarray, body: np.ndarray) -> None:
    static = learnt(far, [(0.0, 0.0)] * 30, body)
    assert static.tiles is None
    assert static.sightings is None
    # a pose that wanders although the picture stands
    for i in range(30):
        R = turned(*AROUND[i % len(AROUND)])
        picture = Picture(seen(far, np.eye(3), body), CAMERA, R, 10**10 + i * 200_000_000, 0)
        static = static.after(picture)
    assert static.sightings is None


def test_two_directions_are_not_enough(far: np.ndarray, body: np.ndarray) -> None:
    static = learnt(far, [(4.0 * (i % 2), 0.0) for i in range(20)], body)
    assert static.tiles is None
    assert static.sightings is not None
    assert static.sightings[18:].min() > 10


def test_a_body_that_moves_is_forgotten(far: np.ndarray, body: np.ndarray) -> None:
    static = learnt(far, AROUND, body)
    assert static.tiles is not None
    moved = learnt(far, AROUND, np.ascontiguousarray(body[:, ::-1]), static)
    assert moved.tiles is not None  # the new picture has been learnt meanwhile
    gone = learnt(far, AROUND * 2, None, static)
    assert gone.tiles is None
    assert gone.note == ""


def test_more_than_two_fifths_of_the_image_are_no_mask(far: np.ndarray) -> None:
    static = StaticMask()
    for i, angles in enumerate(AROUND * 2):
        R = turned(*angles)
        image = seen(far, R)
        image[96:] = far[:96, :256]
        static = static.after(Picture(image, CAMERA, R, i * 200_000_000, 0))
    assert static.tiles is None


def test_what_agrees_with_the_pose_is_scene(far: np.ndarray, body: np.ndarray) -> None:
    xy = np.random.default_rng(1).uniform([0, 360], [640, 480], (4000, 2)).astype(np.float32)
    scene = tiles_of_scene(np.zeros((192, 256), np.uint8), (640, 480), xy, np.ones(4000, np.bool_))
    assert scene[18:].mean() > 0.95
    assert not scene[:18].any()
    static = StaticMask()
    for i, angles in enumerate(AROUND):
        R = turned(*angles)
        static = static.after(Picture(seen(far, R, body), CAMERA, R, i * 200_000_000, 0, scene))
    assert static.tiles is None


def test_another_segment_or_a_gap_begins_a_new_comparison(far: np.ndarray, body: np.ndarray) -> None:
    static = StaticMask()
    for i, angles in enumerate(AROUND):
        R = turned(*angles)
        static = static.after(Picture(seen(far, R, body), CAMERA, R, i * 200_000_000, i))
    assert static.sightings is None
    for i, angles in enumerate(AROUND):
        R = turned(*angles)
        static = static.after(Picture(seen(far, R, body), CAMERA, R, 10**11 + i * 10**10, 99))
    assert static.sightings is None
