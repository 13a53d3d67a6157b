"""Cameras: projection and normalisation agree with OpenCV and with each other for every distortion model."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ros2_densematch.geometry.camera import Camera, UncalibratedCameraError

K = np.array([[517.3, 0, 318.6], [0, 516.5, 255.3], [0, 0, 1]])
TUM = [0.2624, -0.9531, -0.0054, 0.0026, 1.1633]
KINECT = [0.5, -2.6, 0.0002, -0.0001, 1.5, 0.4, -2.4, 1.4]


def coefficients(model: str) -> st.SearchStrategy[tuple[str, list[float]]]:
    def small(scale: float) -> st.SearchStrategy[float]:
        return st.floats(-scale, scale, allow_nan=False)

    ranges = {
        "none": [],
        "plumb_bob": [0.3, 0.1, 0.005, 0.005, 0.05],
        "rational_polynomial": [0.3, 0.1, 0.005, 0.005, 0.05, 0.1, 0.05, 0.01],
        "equidistant": [0.1, 0.05, 0.02, 0.01],
    }[model]
    return st.tuples(st.just(model), st.tuples(*[small(s) for s in ranges]).map(list))


any_model = st.sampled_from(["none", "plumb_bob", "rational_polynomial", "equidistant"]).flatmap(coefficients)


def opencv_project(model: str, D: list[float], xyz: np.ndarray) -> np.ndarray:
    zero = np.zeros(3)
    if model == "equidistant":
        return cv2.fisheye.projectPoints(xyz[:, None], zero, zero, K, np.array(D))[0].reshape(-1, 2)
    return cv2.projectPoints(xyz, zero, zero, K, np.array(D or [0.0] * 5))[0].reshape(-1, 2)


@settings(max_examples=60, deadline=None)
@given(lens=any_model, seed=st.integers(0, 2**31))
def test_projection_equals_opencv(lens: tuple[str, list[float]], seed: int) -> None:
    g = np.random.default_rng(seed)
    xyz = np.concatenate([g.uniform(-0.5, 0.5, (40, 2)), np.ones((40, 1))], 1) * g.uniform(0.3, 20, (40, 1))
    camera = Camera(640, 480, K, *lens)
    pixels = camera.project(xyz)
    seen = np.isfinite(pixels).all(1)
    assert seen.mean() > 0.5
    np.testing.assert_allclose(pixels[seen], opencv_project(*lens, xyz)[seen], atol=1e-7)


@settings(max_examples=80, deadline=None)
@given(lens=any_model, seed=st.integers(0, 2**31))
def test_normalising_undoes_projection(lens: tuple[str, list[float]], seed: int) -> None:
    g = np.random.default_rng(seed)
    xy = g.uniform(-0.6, 0.6, (50, 2))
    camera = Camera(640, 480, K, *lens)
    pixels = camera.project(np.concatenate([xy, np.ones((50, 1))], 1) * 3.0)
    seen = np.isfinite(pixels).all(1)
    assert seen.mean() > 0.5
    np.testing.assert_allclose(camera.normalise(pixels[seen]), xy[seen], atol=1e-7)


@pytest.mark.parametrize(
    ("model", "D"), [("plumb_bob", TUM), ("rational_polynomial", KINECT), ("equidistant", [-0.01, 0.03, -0.03, 0.005])]
)
def test_every_pixel_of_a_real_lens_goes_there_and_back(model: str, D: list[float]) -> None:
    camera = Camera(640, 480, K, model, np.array(D))
    xy = np.stack(np.meshgrid(np.arange(0, 640, 13), np.arange(0, 480, 13)), 2).reshape(-1, 2).astype(float)
    rays = camera.normalise(xy)
    assert np.isfinite(rays).all()
    np.testing.assert_allclose(camera.project(np.concatenate([rays, np.ones((len(rays), 1))], 1)), xy, atol=1e-8)


@settings(max_examples=30, deadline=None)
@given(lens=any_model, seed=st.integers(0, 2**31))
def test_pixel_jacobian_is_the_derivative_of_projection(lens: tuple[str, list[float]], seed: int) -> None:
    xy = np.random.default_rng(seed).uniform(-0.4, 0.4, (10, 2))
    camera = Camera(640, 480, K, *lens)
    step = np.array([3e-5, -2e-5])

    def project(points: np.ndarray) -> np.ndarray:
        return camera.project(np.concatenate([points, np.ones((10, 1))], 1))

    difference = project(xy + step) - project(xy - step)
    np.testing.assert_allclose(camera.pixel_jacobian(xy) @ (2 * step), difference, atol=1e-6)


def test_skew_of_k_counts() -> None:
    skewed = K.copy()
    skewed[0, 1] = 4.0
    camera = Camera.from_matrix(skewed, 640, 480)
    point = np.array([[0.2, -0.3, 1.0]])
    np.testing.assert_allclose(camera.project(point), (point @ skewed.T)[:, :2])
    np.testing.assert_allclose(camera.normalise(camera.project(point)), point[:, :2])


def test_points_behind_the_camera_are_not_seen_by_a_pinhole_but_by_a_fisheye() -> None:
    point = np.array([[1.0, 0.0, -0.2]])
    assert np.isnan(Camera.from_matrix(K, 640, 480).project(point)).all()
    assert np.isnan(Camera(640, 480, K, "plumb_bob", np.array(TUM)).project(point)).all()
    fisheye = Camera(640, 480, K, "equidistant", np.zeros(4)).project(point)
    assert fisheye[0, 0] == pytest.approx(K[0, 2] + K[0, 0] * np.arctan2(1.0, -0.2))


def test_a_pixel_that_no_ray_reaches_is_nan_not_a_wrong_number() -> None:
    # Barrel distortion r (1 - 0.5 r^2) reaches at most r = 0.544; beyond it the polynomial folds back.
    camera = Camera(640, 480, np.diag([100.0, 100.0, 1.0]), "plumb_bob", np.array([-0.5, 0, 0, 0, 0]))
    inside, outside = camera.normalise([[54.0, 0.0], [56.0, 0.0]])
    assert np.isfinite(inside).all()
    assert inside[0] < np.sqrt(2 / 3)
    assert np.isnan(outside).all()
    assert np.isnan(camera.project([[1.0, 0.0, 1.0]])).all()
    fisheye = Camera(640, 480, np.diag([100.0, 100.0, 1.0]), "equidistant", np.zeros(4))
    assert np.isnan(fisheye.normalise([[158.0, 0.0]])).all()  # 90.5 degrees
    assert np.isnan(camera.normalise([[np.nan, 1.0]])).all()


def test_undistorted_image_shows_points_where_the_pinhole_projects_them() -> None:
    for model, D in (("plumb_bob", [-0.3, 0.1, 0.002, -0.001, 0.0]), ("equidistant", [0.02, -0.01, 0.0, 0.0])):
        camera = Camera(640, 480, K, model, np.array(D))
        point = np.array([[0.31, -0.22, 1.0]])
        image = np.zeros((480, 640), np.float32)
        x, y = camera.project(point)[0]
        yy, xx = np.mgrid[:480, :640]
        image = np.exp(-((xx - x) ** 2 + (yy - y) ** 2) / (2 * 3.0**2)).astype(np.float32)
        flat = camera.undistort_image(image)
        expected = camera.undistorted().project(point)[0]
        weight = flat / flat.sum()
        np.testing.assert_allclose([(weight * xx).sum(), (weight * yy).sum()], expected, atol=0.1)


def test_undistorting_an_image_of_another_size_is_refused() -> None:
    with pytest.raises(ValueError, match=r"320 x 240.*640 x 480"):
        Camera.from_matrix(K, 640, 480).undistort_image(np.zeros((240, 320), np.uint8))


@given(scale=st.sampled_from([0.5, 2.0, 0.25]), x=st.floats(0, 639), y=st.floats(0, 479))
def test_resizing_follows_the_half_pixel_rule(scale: float, x: float, y: float) -> None:
    camera = Camera(640, 480, K, "plumb_bob", np.array(TUM))
    small = camera.resized(int(640 * scale), int(480 * scale))
    moved = (np.array([[x, y]]) + 0.5) * scale - 0.5
    np.testing.assert_allclose(small.normalise(moved), camera.normalise([[x, y]]), atol=1e-9)


def test_size_mismatch_is_rescaled_or_refused() -> None:
    camera = Camera.from_matrix(K, 640, 480)
    assert camera.for_image(640, 480) is camera
    assert camera.for_image(320, 240).K[0, 0] == pytest.approx(K[0, 0] / 2)
    with pytest.raises(ValueError, match=r"640 x 360.*640 x 480"):
        camera.for_image(640, 360)


def test_bad_cameras_are_refused_by_name() -> None:
    with pytest.raises(UncalibratedCameraError, match=r"front.*not calibrated"):
        Camera(640, 480, np.zeros((3, 3)), frame_id="front")
    with pytest.raises(ValueError, match="thin_prism_fisheye"):
        Camera(640, 480, K, "thin_prism_fisheye", np.ones(8))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"plumb_bob takes 4 or 5 .* got 3"):
        Camera(640, 480, K, "plumb_bob", np.ones(3))
    with pytest.raises(ValueError, match="not a finite number"):
        Camera(640, 480, K, "plumb_bob", np.array([np.nan, 0, 0, 0, 0]))
    with pytest.raises(ValueError, match="last row"):
        Camera(640, 480, K.T)
    with pytest.raises(ValueError, match="0 x 480"):
        Camera(0, 480, K)
