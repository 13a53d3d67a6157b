"""From messages to frames: calibration, mask, depth, stereo baseline and odometry, with what is wrong in words."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest

from ros2_densematch.geometry import poses
from ros2_densematch.live.inputs import Inputs
from ros2_densematch.live.products import image_message
from ros2_densematch.live.synchroniser import Bundle
from ros2_densematch.live.topics import CAMERA_INFO, DEPTH, DEPTH_INFO, RIGHT, RIGHT_INFO
from ros2_densematch.messages.conversions import header_message, odometry_message

MS = 1_000_000
WIDTH, HEIGHT = 64, 48


def info(fx: float = 50.0, frame_id: str = "cam", width: int = WIDTH, tx: float = 0.0) -> Any:
    roi = SimpleNamespace(x_offset=0, y_offset=0, width=0, height=0, do_rectify=False)
    k = np.array([fx, 0, 31.5, 0, fx, 23.5, 0, 0, 1.0])
    p = np.array([fx, 0, 31.5, -fx * tx, 0, fx, 23.5, 0, 0, 0, 1.0, 0])
    return SimpleNamespace(
        header=header_message(0, frame_id), width=width, height=HEIGHT, distortion_model="plumb_bob", d=np.zeros(5),
        k=k, r=np.eye(3).ravel(), p=p, binning_x=0, binning_y=0, roi=roi,
    )  # fmt: skip


def bundle(stamp_ms: int = 100, **companions: Any) -> Bundle:
    image = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    return Bundle(stamp_ms * MS, image_message(image, "rgb8", stamp_ms * MS, "cam"), companions, 0, 7)


def odometry(x: float, stamp_ms: int, child: str = "base_link") -> Any:
    T = poses.make_pose(np.eye(3), [x, 0, 0])
    return odometry_message(
        T, np.eye(6), np.zeros(6), np.eye(6), stamp_ns=stamp_ms * MS, world_frame_id="odom", frame_id=child
    )


def test_a_frame_has_the_calibration_and_keeps_its_number() -> None:
    inputs = Inputs()
    assert inputs.frame(bundle(), "/image")[0].camera is None
    assert inputs.camera_info(CAMERA_INFO, info(), 0) == ""
    frame, frame_id = inputs.frame(bundle(200), "/image")
    assert (frame.index, frame.camera.focal, frame_id, frame.source) == (7, 50.0, "cam", "/image")
    # the same again is not read again, another one is
    before = inputs.camera()
    inputs.camera_info(CAMERA_INFO, info(), 0)
    assert inputs.camera() is before
    inputs.camera_info(CAMERA_INFO, info(fx=60.0), 0)
    assert inputs.frame(bundle(300), "/image")[0].camera.focal == 60.0


def test_a_bad_calibration_is_named_and_the_one_before_stays() -> None:
    inputs = Inputs()
    inputs.camera_info(CAMERA_INFO, info(), 0)
    assert "not a finite number" in inputs.camera_info(CAMERA_INFO, info(fx=float("nan")), 0)
    assert "not calibrated" in inputs.camera_info(CAMERA_INFO, info(fx=0.0), 0)
    assert inputs.frame(bundle(), "/image")[0].camera.focal == 50.0
    assert len(inputs.log.warnings) == 1
    assert inputs.log.warnings[0].startswith("2 calibrations on camera_info")


def test_a_mask_is_taken_and_one_of_another_size_is_named(tmp_path: Path) -> None:
    inputs = Inputs()
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    mask[:, 32:] = 255
    cv2.imwrite(str(tmp_path / "good.png"), mask)
    cv2.imwrite(str(tmp_path / "small.png"), mask[:10])
    inputs.set_mask(str(tmp_path / "good.png"))
    frame, _ = inputs.frame(bundle(), "/image")
    assert frame.mask is not None
    assert frame.mask[:, 32:].all()
    assert not frame.mask[:, :32].any()
    with pytest.raises(ValueError, match=r"nowhere\.png"):
        inputs.set_mask(str(tmp_path / "nowhere.png"))
    inputs.set_mask(str(tmp_path / "small.png"))
    with pytest.raises(ValueError, match="the mask is 64 x 10, the image 64 x 48"):
        inputs.frame(bundle(200), "/image")
    inputs.set_mask("")
    assert inputs.frame(bundle(300), "/image")[0].mask is None


def test_depth_is_decoded_and_a_damaged_one_is_left_out_and_counted() -> None:
    inputs = Inputs()
    depth = image_message(np.full((HEIGHT, WIDTH), 1500, np.uint16), "16UC1", 100 * MS, "cam")
    frame, _ = inputs.frame(bundle(**{DEPTH: depth}), "/image")
    assert frame.depth is not None
    assert frame.depth[0, 0] == pytest.approx(1.5)
    depth.data = depth.data[:10]
    assert inputs.frame(bundle(200, **{DEPTH: depth}), "/image")[0].depth is None
    assert "1 images on depth could not be decoded" in inputs.log.warnings[0]


def test_what_cannot_be_used_is_said_once_and_not_twice() -> None:
    inputs = Inputs()
    inputs.log.count("images on depth could not be decoded and are not used", "data has 3 bytes")
    inputs.log.count("calibrations on camera_info could not be used", "fx is 0")
    said: set[str] = set()
    elsewhere = ["the calibration on camera_info cannot be used: fx is 0"]
    found = inputs.log.unsaid(said, elsewhere)
    assert found == ["images on depth could not be decoded and are not used; the first: data has 3 bytes"]
    inputs.log.count("images on depth could not be decoded and are not used", "data has 4 bytes")
    assert inputs.log.unsaid(said, elsewhere) == []
    assert inputs.log.unsaid(said) == []  # said by somebody else before
    assert inputs.log.warnings[0].startswith("2 images on depth")


def test_each_image_gets_the_calibration_of_its_own_time() -> None:
    inputs = Inputs()
    inputs.camera_info(CAMERA_INFO, info(), 0)
    zoomed = info(fx=80.0)
    inputs.camera_info(CAMERA_INFO, zoomed, 200 * MS)
    before, _ = inputs.frame(bundle(100), "/image")
    after, _ = inputs.frame(bundle(200), "/image")
    assert before.camera is not None
    assert after.camera is not None
    assert after.camera.K[0, 0] == 80.0
    assert before.camera.K[0, 0] != 80.0


def test_an_unknown_lens_is_named_and_a_fisheye_is_one_under_every_name() -> None:
    inputs = Inputs()
    lens = info()
    lens.d = np.array([0.01, 0.02, 0.0, 0.0])
    for name in ("equidistant", "fisheye", "Kannala-Brandt4", "fisheye_model"):
        lens.distortion_model = name
        assert inputs.camera_info(CAMERA_INFO, lens, 0) == ""
        frame, _ = inputs.frame(bundle(), "/image")
        assert frame.camera is not None
        assert frame.camera.distortion_model == "equidistant"
    lens.distortion_model = "double_sphere"
    problem = inputs.camera_info(CAMERA_INFO, lens, 0)
    assert "distortion model 'double_sphere' is not supported" in problem


def test_the_right_camera_follows_its_calibration_too() -> None:
    right = image_message(np.zeros((HEIGHT, WIDTH, 3), np.uint8), "rgb8", 100 * MS, "right")
    inputs = Inputs(rectified=True)
    inputs.camera_info(CAMERA_INFO, info(), 0)
    for stamp, baseline in ((0, 0.1), (200 * MS, 0.3)):
        inputs.camera_info(RIGHT_INFO, info(tx=baseline), stamp)
    for stamp_ms, baseline in ((100, 0.1), (200, 0.3)):
        frame, _ = inputs.frame(bundle(stamp_ms, **{RIGHT: right}), "/image")
        assert frame.right_camera is not None
        assert frame.right_camera.baseline == pytest.approx(baseline)


def test_depth_that_is_not_registered_is_named() -> None:
    inputs = Inputs()
    inputs.camera_info(CAMERA_INFO, info(), 0)
    assert inputs.depth_problem("cam") == ""
    inputs.camera_info(DEPTH_INFO, info(fx=40.0), 0)
    assert inputs.depth_problem("cam") == "", "of the same frame: it is brought over"
    inputs.camera_info(DEPTH_INFO, info(frame_id="depth_cam"), 0)
    assert inputs.depth_problem("cam") == "", "another name alone is no reason"
    inputs.camera_info(DEPTH_INFO, info(frame_id="depth_cam", fx=40.0), 0)
    assert "/tf_static does not connect depth_cam to cam" in inputs.depth_problem("cam")
    inputs.transforms.add("cam", "depth_cam", poses.make_pose(np.eye(3), [0.05, 0, 0]))
    assert inputs.depth_problem("cam") == ""


def test_the_stereo_baseline_comes_from_p_or_from_the_fixed_transforms() -> None:
    right = image_message(np.zeros((HEIGHT, WIDTH, 3), np.uint8), "rgb8", 100 * MS, "right")
    inputs = Inputs(rectified=True)
    inputs.camera_info(CAMERA_INFO, info(), 0)
    inputs.camera_info(RIGHT_INFO, info(frame_id="right", tx=0.12), 0)
    frame, _ = inputs.frame(bundle(**{RIGHT: right}), "/image")
    assert frame.right_camera is not None
    assert frame.right_camera.baseline == pytest.approx(0.12)
    inputs.camera_info(RIGHT_INFO, info(frame_id="right"), 0)
    inputs.transforms.add("rig", "cam", np.eye(4))
    inputs.transforms.add("rig", "right", poses.make_pose(np.eye(3), [0.2, 0, 0]))
    frame, _ = inputs.frame(bundle(200, **{RIGHT: right}), "/image")
    assert frame.right_camera is not None
    assert frame.right_camera.baseline == pytest.approx(0.2)


def test_odometry_is_interpolated_and_carried_to_the_camera() -> None:
    inputs = Inputs()
    for stamp in (50, 150):
        assert inputs.odometry(stamp * MS, odometry(stamp / 100.0, stamp)) == ""
    # nothing says where the camera sits on base_link
    assert inputs.frame(bundle(100), "/image")[0].odometry is None
    assert "/tf_static has no transform from it to cam" in inputs.odometry_problem("cam")
    inputs.transforms.add("base_link", "cam", poses.make_pose(np.eye(3), [0, 0, 0.4]))
    frame, _ = inputs.frame(bundle(110), "/image")
    assert frame.odometry is not None
    np.testing.assert_allclose(frame.odometry[:3, 3], [1.1, 0.0, 0.4], atol=1e-9)
    assert inputs.frame(bundle(900), "/image")[0].odometry is None  # too far away in time
    bad = odometry(float("nan"), 160)
    assert "not finite" in inputs.odometry(160 * MS, bad)


def test_a_clock_that_was_set_back_begins_a_new_sequence() -> None:
    inputs = Inputs()
    inputs.frame(bundle(5000), "/image")
    assert inputs.frame(bundle(100), "/image")[0].stamp_ns == 100 * MS
