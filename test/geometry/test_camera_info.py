"""Cameras from CameraInfo messages and from camera YAML files."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from ros2_densematch.geometry.camera import Camera, UncalibratedCameraError
from ros2_densematch.geometry.camera_info import is_rectified_topic

K = [500.0, 0, 319.5, 0, 510.0, 239.5, 0, 0, 1]
D = [-0.3, 0.1, 0.001, 0.002, 0.0]
P = [450.0, 0, 310.0, -45.0, 0, 450.0, 230.0, 0, 0, 0, 1, 0]

YAML = """
image_width: 640
image_height: 480
camera_name: left
camera_matrix: {rows: 3, cols: 3, data: [500, 0, 319.5, 0, 510, 239.5, 0, 0, 1]}
distortion_model: plumb_bob
distortion_coefficients: {rows: 1, cols: 5, data: [-0.3, 0.1, 0.001, 0.002, 0.0]}
rectification_matrix: {rows: 3, cols: 3, data: [1, 0, 0, 0, 1, 0, 0, 0, 1]}
projection_matrix: {rows: 3, cols: 4, data: [450, 0, 310, -45, 0, 450, 230, 0, 0, 0, 1, 0]}
"""


def message(upper: bool = False, **changes: object) -> SimpleNamespace:
    fields: dict[str, object] = {
        "header": SimpleNamespace(frame_id="cam"),
        "width": 640,
        "height": 480,
        "distortion_model": "plumb_bob",
        "k": np.array(K),
        "d": np.array(D),
        "p": np.array(P),
        "binning_x": 0,
        "binning_y": 0,
        "roi": SimpleNamespace(x_offset=0, y_offset=0, width=0, height=0),
    }
    fields.update(changes)
    if upper:
        fields = {key.upper() if key in "kdp" else key: value for key, value in fields.items()}
    return SimpleNamespace(**fields)


@pytest.mark.parametrize("upper", [False, True], ids=["ros2", "ros1"])
def test_raw_message_uses_k_and_d(upper: bool) -> None:
    camera = Camera.from_camera_info(message(upper))
    assert camera.size == (640, 480)
    assert camera.frame_id == "cam"
    assert camera.distortion_model == "plumb_bob"
    np.testing.assert_array_equal(camera.K.ravel(), K)
    np.testing.assert_array_equal(camera.D, D)
    assert camera.baseline == pytest.approx(0.1)


def test_rectified_message_uses_p_and_no_distortion() -> None:
    by_flag = Camera.from_camera_info(message(), rectified=True)
    by_topic = Camera.from_camera_info(message(), image_topic="/stereo/left/image_rect_color")
    for camera in (by_flag, by_topic):
        assert camera.distortion_model == "none"
        np.testing.assert_array_equal(camera.K, np.reshape(P, (3, 4))[:, :3])
        assert camera.baseline == pytest.approx(0.1)
    raw = Camera.from_camera_info(message(), rectified=False, image_topic="/left/image_rect")
    np.testing.assert_array_equal(raw.K.ravel(), K)


def test_topic_names_that_say_rectified() -> None:
    assert is_rectified_topic("/camera/image_rect")
    assert is_rectified_topic("/camera/image_rect_color/compressed")
    assert is_rectified_topic("/camera/rectified/image")
    assert not is_rectified_topic("/camera/image_raw")
    assert not is_rectified_topic("/direction/unrect/image")


def test_uncalibrated_camera_is_refused_by_name() -> None:
    with pytest.raises(UncalibratedCameraError, match=r"'cam'.*not calibrated"):
        Camera.from_camera_info(message(k=np.zeros(9)))
    with pytest.raises(UncalibratedCameraError, match=r"P\[0\] = 0"):
        Camera.from_camera_info(message(p=np.zeros(12)), rectified=True)


def test_empty_model_and_coefficients_mean_no_distortion() -> None:
    camera = Camera.from_camera_info(message(distortion_model="", d=np.zeros(0)))
    assert camera.distortion_model == "none"
    assert Camera.from_camera_info(message(d=np.zeros(5))).distortion_model == "none"


@pytest.mark.parametrize(
    ("name", "coefficients", "model"),
    [
        ("fisheye", 4, "equidistant"),
        ("fisheye_model", 4, "equidistant"),
        ("Kannala-Brandt4", 4, "equidistant"),
        ("equidistant", 5, "equidistant"),  # OpenCV's fifth place, 0
        ("plumb_bob", 8, "rational_polynomial"),
        ("Brown Conrady", 5, "plumb_bob"),
        ("thin_prism", 12, "rational_polynomial"),
        ("rational_polynomial", 14, "rational_polynomial"),
        ("rational_polynomial", 5, "plumb_bob"),
    ],
)
def test_names_met_in_the_field(name: str, coefficients: int, model: str) -> None:
    D = np.full(coefficients, 0.01)
    D[4:5] = 0.0 if model == "equidistant" else 0.01
    assert Camera.from_camera_info(message(distortion_model=name, d=D)).distortion_model == model


@pytest.mark.parametrize(("name", "coefficients"), [("mei", 4), ("thin_prism_fisheye", 12), ("fov", 1), ("unknown", 5)])
def test_an_unknown_lens_is_refused_by_name(name: str, coefficients: int) -> None:
    with pytest.raises(ValueError, match=f"'{name}' is not supported"):
        Camera.from_camera_info(message(distortion_model=name, d=np.full(coefficients, 0.01)))


def test_a_fisheye_without_coefficients_is_no_pinhole() -> None:
    with pytest.raises(ValueError, match="equidistant takes 4 distortion coefficients, got 0"):
        Camera.from_camera_info(message(distortion_model="equidistant", d=np.zeros(0)))
    assert Camera.from_camera_info(message(distortion_model="fisheye", d=np.zeros(4))).distortion_model == "equidistant"


def test_region_of_interest_and_binning() -> None:
    roi = SimpleNamespace(x_offset=100, y_offset=40, width=400, height=300)
    camera = Camera.from_camera_info(message(roi=roi, binning_x=2, binning_y=2))
    assert camera.size == (200, 150)
    full = Camera.from_camera_info(message())
    # The binned pixel (50, 60) covers the pixels 200..201 and 160..161 of the full image.
    np.testing.assert_allclose(camera.normalise([[50.0, 60.0]]), full.normalise([[200.5, 160.5]]), atol=1e-9)


def test_region_that_leaves_the_image_is_refused() -> None:
    roi = SimpleNamespace(x_offset=300, y_offset=0, width=400, height=480)
    with pytest.raises(ValueError, match="leaves the image"):
        Camera.from_camera_info(message(roi=roi))


def test_message_of_another_type_is_refused() -> None:
    with pytest.raises(ValueError, match="SimpleNamespace has no field k"):
        Camera.from_camera_info(SimpleNamespace(width=640, height=480, distortion_model="", d=[], p=[]))


def test_yaml_of_the_camera_calibrator(tmp_path: Path) -> None:
    path = tmp_path / "left.yaml"
    path.write_text(YAML)
    camera = Camera.from_yaml(path)
    np.testing.assert_array_equal(camera.K.ravel(), K)
    np.testing.assert_array_equal(camera.D, D)
    assert camera.frame_id == "left"
    rectified = Camera.from_yaml(path, rectified=True)
    assert rectified.distortion_model == "none"
    assert rectified.K[0, 0] == 450


def test_yaml_of_opencv_file_storage(tmp_path: Path) -> None:
    path = tmp_path / "opencv.yaml"
    head = "%YAML:1.0\n---\nimage_width: 640\nimage_height: 480\n"
    matrix = "   rows: 3\n   cols: 3\n   dt: d\n   data: [500., 0., 319.5, 0., 510., 239.5, 0., 0., 1.]\n"
    path.write_text(f"{head}camera_matrix: !!opencv-matrix\n{matrix}")
    assert Camera.from_yaml(path).K[1, 1] == 510


@pytest.mark.parametrize(
    ("model", "coefficients"),
    [("none", []), ("plumb_bob", D), ("rational_polynomial", [0.1] * 8), ("equidistant", [0.01, 0.0, 0.02, 0.0])],
)
def test_yaml_round_trip(tmp_path: Path, model: str, coefficients: list[float]) -> None:
    camera = Camera(640, 480, np.reshape(K, (3, 3)), model, np.array(coefficients), "cam", np.reshape(P, (3, 4)))  # type: ignore[arg-type]
    path = tmp_path / "camera.yaml"
    camera.to_yaml(path)
    again = Camera.from_yaml(path)
    assert (again.size, again.distortion_model, again.frame_id) == (camera.size, model, "cam")
    for name in ("K", "D", "P"):
        np.testing.assert_array_equal(getattr(again, name), getattr(camera, name))
    assert list(tmp_path.iterdir()) == [path]


def test_bad_yaml_names_the_file_and_the_key(tmp_path: Path) -> None:
    path = tmp_path / "bad.yaml"
    with pytest.raises(FileNotFoundError, match=r"bad\.yaml"):
        Camera.from_yaml(path)
    for text, complaint in [
        ("a: [", "not a YAML file"),
        ("[1, 2]", "not a camera file"),
        (YAML.replace("image_width: 640", ""), "image_width is missing"),
        (YAML.replace("image_width: 640", "image_width: wide"), "wide"),
        (YAML.replace("data: [500, 0, ", "data: ["), "K must have 9 entries, got 7"),
        (YAML.replace("data: [500", "data: [0"), "not calibrated"),
        (YAML.replace("plumb_bob", "pillow"), "pillow"),
    ]:
        path.write_text(text)
        with pytest.raises(ValueError, match=complaint) as error:
            Camera.from_yaml(path)
        assert "bad.yaml" in str(error.value)


def test_camera_info_of_a_real_bag(shared_data) -> None:
    from rosbags.highlevel import AnyReader
    from rosbags.typesys import Stores, get_typestore

    with AnyReader(
        [shared_data.need("rosbag/kitti_a_sqlite3")], default_typestore=get_typestore(Stores.ROS2_HUMBLE)
    ) as bag:
        connection = next(c for c in bag.connections if c.topic == "/cam0/camera_info")
        _, _, raw = next(bag.messages(connections=[connection]))
        camera = Camera.from_camera_info(bag.deserialize(raw, connection.msgtype))
    assert camera.size == (1226, 370)
    assert camera.distortion_model == "none"
    assert 600 < camera.focal < 800
