"""Sequences of TUM RGB-D, EuRoC and KITTI odometry, as tiny folders of the same layout."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from ros2_densematch.io.sources.opening import open_source
from ros2_densematch.io.sources.options import SourceOptions


def images(folder: Path, names: list[str], size: tuple[int, int]) -> None:
    folder.mkdir(parents=True)
    for i, name in enumerate(names):
        cv2.imwrite(str(folder / name), np.full((size[1], size[0]), 20 * i, np.uint8))


@pytest.fixture
def tum(tmp_path: Path) -> Path:
    folder = tmp_path / "rgbd_dataset_freiburg1_tiny"
    names = [f"130503110{i}.500000.png" for i in range(3)]
    images(folder / "rgb", names, (640, 480))
    (folder / "rgb.txt").write_text("# colour images\n" + "".join(f"{n[:-4]} rgb/{n}\n" for n in names))
    (folder / "groundtruth.txt").write_text(
        "# timestamp tx ty tz qx qy qz qw\n" + "".join(f"130503110{i}.5001 {i} 0 0 0 0 0 1\n" for i in range(3))
    )
    return folder


@pytest.fixture
def euroc(tmp_path: Path) -> Path:
    folder = tmp_path / "MH_00_tiny"
    stamps = [1403636579763555584 + 50_000_000 * i for i in range(3)]
    images(folder / "mav0/cam0/data", [f"{s}.png" for s in stamps], (752, 480))
    rows = "".join(f"{s},{s}.png\n" for s in stamps)
    (folder / "mav0/cam0/data.csv").write_text("#timestamp [ns],filename\n" + rows)
    (folder / "mav0/cam0/sensor.yaml").write_text(
        "sensor_type: camera\nT_BS:\n  cols: 4\n  rows: 4\n"
        "  data: [0, -1, 0, 0.5, 1, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1]\n"
        "rate_hz: 20\nresolution: [752, 480]\ncamera_model: pinhole\n"
        "intrinsics: [458.654, 457.296, 367.215, 248.375]\ndistortion_model: radial-tangential\n"
        "distortion_coefficients: [-0.28, 0.07, 0.0002, 0.00002]\n"
    )
    (folder / "mav0/state_groundtruth_estimate0").mkdir()
    truth = "".join(f"{s},{i},2,3,1,0,0,0,0,0,0,0,0,0,0,0,0\n" for i, s in enumerate(stamps))
    (folder / "mav0/state_groundtruth_estimate0/data.csv").write_text("#timestamp, p, q (w x y z), v, b\n" + truth)
    return folder


@pytest.fixture
def kitti(tmp_path: Path) -> Path:
    folder = tmp_path / "sequences/04"
    images(folder / "image_2", [f"{i:06d}.png" for i in range(3)], (124, 37))
    (folder / "times.txt").write_text("0.000000e+00\n1.037936e-01\n2.075903e-01\n")
    row = "70 0 60 {} 0 70 18 0 0 0 1 0"
    (folder / "calib.txt").write_text("".join(f"P{k}: {row.format(-7.0 * k)}\n" for k in range(4)))
    (tmp_path / "poses").mkdir()
    (tmp_path / "poses/04.txt").write_text("".join(f"1 0 0 0 0 1 0 0 0 0 1 {1.2 * i}\n" for i in range(3)))
    return folder


def test_tum(tum: Path) -> None:
    source = open_source(tum)
    frames = list(source)
    assert [f.stamp_ns for f in frames] == [1305031100500000000 + 10**9 * i for i in range(3)]
    assert frames[0].camera is not None
    assert frames[0].camera.K[0, 0] == 517.3
    assert frames[0].camera.D[0] == 0.2624
    assert source.ground_truth is not None
    assert source.ground_truth.stamps_ns[0] == 1305031100500100000
    assert source.ground_truth.positions[2].tolist() == [2, 0, 0]
    assert source.notes == ["the calibration is the published one of freiburg1"]


def test_tum_without_a_calibration_says_what_to_add(tum: Path) -> None:
    other = tum.rename(tum.parent / "desk")
    assert any("--camera" in text for text in open_source(other).warnings)
    (other / "calib.txt").write_text("500 500 320 240\n")
    assert next(iter(open_source(other))).camera.K[0, 0] == 500


def test_euroc_poses_are_those_of_the_camera_and_not_of_the_body(euroc: Path) -> None:
    source = open_source(euroc)
    frames = list(source)
    assert frames[1].stamp_ns - frames[0].stamp_ns == 50_000_000
    assert frames[0].camera is not None
    assert frames[0].camera.distortion_model == "plumb_bob"
    assert source.ground_truth is not None
    T = source.ground_truth.T_world_from_camera[1]
    assert T[:3, 3].tolist() == [1.5, 2, 3]
    assert T[:3, :3] @ [1, 0, 0] == pytest.approx([0, 1, 0])


def test_kitti_colour_camera_stands_beside_the_grey_one(kitti: Path) -> None:
    source = open_source(kitti)
    frames = list(source)
    assert [f.stamp_ns for f in frames] == [0, 103793600, 207590300]
    assert frames[0].camera is not None
    assert frames[0].camera.K.tolist() == [[70, 0, 60], [0, 70, 18], [0, 0, 1]]
    assert source.ground_truth is not None
    # P2 = K [I | t] with t = (-14/70, 0, 0): the camera stands 0.2 m to the right of camera 0
    assert source.ground_truth.positions[1] == pytest.approx([0.2, 0, 1.2])


@pytest.mark.parametrize(
    ("name", "file", "content", "words"),
    [
        ("tum", "rgb.txt", "1.5 rgb/a.png extra\n", "line 1: expected `stamp file`"),
        ("tum", "rgb.txt", "1.5 ../../secret.png\n", "is outside the folder"),
        ("tum", "groundtruth.txt", "1.5 0 0 0 0 0 1\n", "line 1: 8 numbers are expected"),
        ("euroc", "mav0/cam0/data.csv", "later,a.png\n", "expected `nanoseconds,file`"),
        ("euroc", "mav0/cam0/sensor.yaml", "rate_hz: 20\n", "sensor.yaml"),
        ("kitti", "times.txt", "0\n1\n", "2 times but 3 images"),
        ("kitti", "times.txt", "0\nnan\n2\n", "line 2"),
    ],
)
def test_a_damaged_list_is_named(
    request: pytest.FixtureRequest, name: str, file: str, content: str, words: str
) -> None:
    folder: Path = request.getfixturevalue(name)
    (folder / file).write_text(content)
    with pytest.raises(ValueError, match=words):
        open_source(folder, SourceOptions())
