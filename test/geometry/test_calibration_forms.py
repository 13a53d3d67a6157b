"""Calibration files as other tools write them: read as they mean it, or refused with a name and a way out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from ros2_densematch.geometry.camera import Camera

KALIBR = """
cam0:
  cam_overlaps: [1]
  camera_model: pinhole
  distortion_coeffs: [-0.28, 0.07, 0.0002, 1.8e-05]
  distortion_model: radtan
  intrinsics: [458.6, 457.3, 367.2, 248.4]
  resolution: [752, 480]
  rostopic: /cam0/image_raw
cam1:
  T_cn_cnm1: [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]
  camera_model: pinhole
  distortion_coeffs: [-0.01, 0.009, -0.011, 0.003]
  distortion_model: equidistant
  intrinsics: [190.9, 190.8, 254.9, 256.9]
  resolution: [512, 512]
  rostopic: /cam1/image_raw
"""
ONE_KALIBR = KALIBR.partition("cam1:")[0]
ORBSLAM2 = """%YAML:1.0

#--------------------------------------------------------------------------------------------
Camera.fx: 517.306408
Camera.fy: 516.469215
Camera.cx: 318.643040
Camera.cy: 255.313989
Camera.k1: 0.262383
Camera.k2: -0.953104
Camera.p1: -0.005358
Camera.p2: 0.002628
Camera.k3: 1.163314
Camera.width: 640
Camera.height: 480
Camera.fps: 30.0
"""
FISHEYE = (
    ORBSLAM2.replace("Camera.fx", 'Camera.type: "KannalaBrandt8"\nCamera.fx').replace("p1", "k3").replace("p2", "k4")
)
VINS = """%YAML:1.0
---
model_type: {model}
camera_name: camera
image_width: 752
image_height: 480
"""
VINS_PINHOLE = VINS.format(model="PINHOLE") + (
    "distortion_parameters:\n   k1: -0.28\n   k2: 0.07\n   p1: 0.0002\n   p2: 1.8e-05\n"
    "projection_parameters:\n   fx: 461.6\n   fy: 460.3\n   cx: 363.0\n   cy: 248.1\n"
)
VINS_FISHEYE = VINS.format(model="KANNALA_BRANDT") + (
    "projection_parameters:\n   k2: -0.01\n   k3: 0.02\n   k4: -0.03\n   k5: 0.004\n   mu: 461.6\n   mv: 460.3\n"
    "   u0: 363.0\n   v0: 248.1\n"
)
ECHO = """header:
  stamp: {secs: 1, nsecs: 2}
  frame_id: "cam"
height: 480
width: 640
distortion_model: "plumb_bob"
D: [0.1, -0.2, 0.0, 0.0, 0.0]
K: [500.0, 0.0, 319.5, 0.0, 510.0, 239.5, 0.0, 0.0, 1.0]
P: [450.0, 0.0, 320.0, 0.0, 0.0, 450.0, 240.0, 0.0, 0.0, 0.0, 1.0, 0.0]
binning_x: 2
binning_y: 2
---
header:
"""
OPENCV_FISHEYE = """%YAML:1.0
---
image_width: 640
image_height: 480
fisheye_model: 1
camera_matrix: !!opencv-matrix
   rows: 3
   cols: 3
   dt: d
   data: [ 300., 0., 319.5, 0., 300., 239.5, 0., 0., 1. ]
distortion_coefficients: !!opencv-matrix
   rows: 4
   cols: 1
   dt: d
   data: [ -0.01, 0.02, 0., 0. ]
"""
COLMAP = """# Camera list with one line of data per camera:
#   CAMERA_ID, MODEL, WIDTH, HEIGHT, PARAMS[]
# Number of cameras: 1
1 OPENCV 640 480 500.0 510.0 320.0 240.0 0.1 -0.2 0.001 0.002
"""
KITTI = "".join(f"P{i}: 718.856 0 607.1928 {-386.1 * i} 0 718.856 185.2157 0 0 0 1 0\n" for i in range(4))
RAW = "calib_time: 09-Jan-2012 13:57:47\nS_02: 1.392e+03 5.12e+02\nS_rect_02: 1242 375\nP_rect_02: " + (
    "721.5 0 609.6 44.9 0 721.5 172.9 0.2 0 0 1 0.003\n"
)


@pytest.fixture
def read(tmp_path: Path) -> Any:
    def camera(text: str, suffix: str = "") -> Camera:
        (tmp_path / "calib.txt").write_text(text)
        return Camera.from_yaml(f"{tmp_path / 'calib.txt'}{suffix}")

    return camera


@pytest.mark.parametrize(
    ("text", "suffix", "size", "intrinsics", "model", "D"),
    [
        (ONE_KALIBR, "", (752, 480), (458.6, 457.3, 367.2, 248.4), "plumb_bob", (-0.28, 0.07, 0.0002, 1.8e-05)),
        (KALIBR, "#cam1", (512, 512), (190.9, 190.8, 254.9, 256.9), "equidistant", (-0.01, 0.009, -0.011, 0.003)),
        (ORBSLAM2, "", (640, 480), (517.306408, 516.469215, 318.64304, 255.313989), "plumb_bob",
         (0.262383, -0.953104, -0.005358, 0.002628, 1.163314)),
        (FISHEYE.replace("Camera.k3: 1.163314\n", ""), "", (640, 480),
         (517.306408, 516.469215, 318.64304, 255.313989), "equidistant", (0.262383, -0.953104, -0.005358, 0.002628)),
        (VINS_PINHOLE, "", (752, 480), (461.6, 460.3, 363.0, 248.1), "plumb_bob", (-0.28, 0.07, 0.0002, 1.8e-05)),
        (VINS_FISHEYE, "", (752, 480), (461.6, 460.3, 363.0, 248.1), "equidistant", (-0.01, 0.02, -0.03, 0.004)),
        (ECHO, "", (320, 240), (250.0, 255.0, 159.5, 119.5), "plumb_bob", (0.1, -0.2, 0.0, 0.0, 0.0)),
        (OPENCV_FISHEYE, "", (640, 480), (300.0, 300.0, 319.5, 239.5), "equidistant", (-0.01, 0.02, 0.0, 0.0)),
        (COLMAP, "", (640, 480), (500.0, 510.0, 319.5, 239.5), "plumb_bob", (0.1, -0.2, 0.001, 0.002)),
        ("3 SIMPLE_RADIAL 640 480 500 320 240 0.05\n", "", (640, 480), (500.0, 500.0, 319.5, 239.5), "plumb_bob",
         (0.05, 0.0, 0.0, 0.0)),
        (KITTI, "#P2@1241x376", (1241, 376), (718.856, 718.856, 607.1928, 185.2157), "none", ()),
        (RAW, "", (1242, 375), (721.5, 721.5, 609.6, 172.9), "none", ()),
        ("517.3 516.5 318.6 255.3 0.2624 -0.9531 -0.0054 0.0026 1.1633\n", "@640x480", (640, 480),
         (517.3, 516.5, 318.6, 255.3), "plumb_bob", (0.2624, -0.9531, -0.0054, 0.0026, 1.1633)),
        ("0.5 0.6 0.5 0.5 0\n1280 1024\ncrop\n640 480\n", "", (1280, 1024), (640.0, 614.4, 639.5, 511.5), "none", ()),
    ],
    ids=["kalibr", "second of kalibr", "orbslam2", "orbslam3 fisheye", "vins", "vins fisheye", "ros 1 echo, binned",
         "opencv fisheye", "colmap", "colmap radial", "kitti", "kitti raw", "tum", "tum mono"],
)  # fmt: skip
def test_what_the_tool_means(
    read: Any,
    text: str,
    suffix: str,
    size: tuple[int, int],
    intrinsics: tuple[float, ...],
    model: str,
    D: tuple[float, ...],
) -> None:
    camera = read(text, suffix)
    assert camera.size == size
    found = (camera.K[0, 0], camera.K[1, 1], camera.K[0, 2], camera.K[1, 2])
    np.testing.assert_allclose(found, intrinsics, atol=0.26 if "binning" in text else 1e-9)
    assert camera.distortion_model == model
    np.testing.assert_allclose(camera.D, D)


def test_the_baseline_of_kitti_is_kept(read: Any) -> None:
    assert read(KITTI, "#P1@1241x376").baseline == pytest.approx(386.1 / 718.856)


def test_a_fisheye_of_opencv_projects_as_opencv_does(read: Any) -> None:
    camera = read(OPENCV_FISHEYE)
    points = np.array([[[0.5, -0.3, 1.0]], [[1.5, 0.4, 1.0]]])
    expected, _ = cv2.fisheye.projectPoints(points, np.zeros(3), np.zeros(3), camera.K, camera.D)
    np.testing.assert_allclose(camera.project(points[:, 0]), expected[:, 0], atol=1e-6)


@pytest.mark.parametrize(
    ("text", "suffix", "words"),
    [
        (KALIBR, "", "contains cam0, cam1: choose one after the file name, for example FILE#cam1"),
        (KALIBR, "#cam2", "no camera 'cam2', only cam0, cam1"),
        (ONE_KALIBR.replace("camera_model: pinhole", "camera_model: omni"), "", r"omni \(Mei\) is not supported"),
        (ONE_KALIBR.replace("camera_model: pinhole", "camera_model: ds"), "", r"ds \(double sphere\) is not supported"),
        (ONE_KALIBR.replace("radtan", "fov"), "", "distortion fov is not supported"),
        (
            ONE_KALIBR.replace("  resolution: [752, 480]\n", ""),
            "",
            "add it after the file name, for example FILE@1241x376",
        ),
        (VINS.format(model="MEI"), "", "model_type MEI is not supported"),
        (VINS_PINHOLE.replace("   fx: 461.6\n", ""), "", "key fx is missing"),
        (ORBSLAM2.replace("Camera.fy", "Camera.fyy"), "", "key Camera.fy is missing"),
        (KITTI, "", "contains P0, P1, P2, P3"),
        (KITTI, "#P0", "the image size is unknown"),
        ("1 FOV 640 480 500 500 320 240 0.9\n", "", "COLMAP's FOV is not supported"),
        (COLMAP + COLMAP.splitlines()[-1].replace("1 ", "2 ", 1), "", "contains 1, 2: choose one"),
        ("1 PINHOLE 640 480 500 500 320\n", "", "parameters of PINHOLE must be 4 numbers, got 3"),
        ("0.5 0.6 0.5 0.5 0.9\n1280 1024\n", "", "FOV .* is not supported"),
        ("lidar: {range: 100}\nwheel: 2\n", "", r"the keys \(lidar, wheel\) match no supported calibration"),
    ],
)
def test_what_cannot_be_read_is_named_with_a_way_out(read: Any, text: str, suffix: str, words: str) -> None:
    with pytest.raises(ValueError, match=words) as error:
        read(text, suffix)
    assert "calib.txt" in str(error.value)


def test_the_cases_of_public_reports(shared_data: Any) -> None:
    folder = Path(shared_data).parent / "cases/foreign_calibration_files"
    if not folder.is_dir():
        pytest.skip(f"there is no {folder}")
    for name, focal in (("echo", 308.4619140785584), ("euroc_sensor", 308.0), ("kalibr", 180.0), ("orbslam", 308.0)):
        camera = Camera.from_yaml(folder / f"{name}.yaml")
        assert (camera.size, camera.focal) == ((424, 240), focal)
    with pytest.raises(ValueError, match="MEI is not supported"):
        Camera.from_yaml(folder / "vins_mei.yaml")
