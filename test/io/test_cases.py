"""Recordings that once went wrong without a word (../shared/cases): each gives what its README calls right."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from ros2_densematch.geometry import poses
from ros2_densematch.geometry.two_view import estimate_relative_pose
from ros2_densematch.io.sources.base import FrameSource
from ros2_densematch.io.sources.opening import open_source
from ros2_densematch.io.sources.options import SourceOptions
from ros2_densematch.matchers.registry import load_matcher
from ros2_densematch.tracking.frame import Frame


def read(path: Path, **options: object) -> tuple[list[Frame], FrameSource]:
    source = open_source(path, SourceOptions(**options))  # type: ignore[arg-type]  # names are checked at run time
    return list(source), source


@pytest.mark.parametrize("bag", ["bag", "bag_fast"])
def test_from_and_to_are_seconds_of_the_images_clock(shared_cases, bag: str) -> None:
    frames, source = read(shared_cases.need(f"from_to_slow_recording/{bag}"), start_s=1.0, stop_s=6.0)
    assert [f.stamp_ns / 1e9 - 1_700_000_000 for f in frames] == [1, 2, 3, 4, 5]
    assert not source.warnings


def test_one_stamp_in_the_future_costs_one_frame_and_is_named(shared_cases) -> None:
    frames, source = read(shared_cases.need("one_future_stamp/bag"))
    assert [f.index for f in frames] == [0, 1, 3, 4, 5, 6]
    assert source.dropped == 1
    assert len(source.warnings) == 1
    assert "frame 2 at 1700003600.2" in source.warnings[0]


def test_microsecond_names_are_microseconds(shared_cases) -> None:
    frames, _ = read(shared_cases.need("microsecond_file_names"))
    assert frames[0].stamp_ns == 1_399_381_446_204_705_000
    assert set(np.diff([f.stamp_ns for f in frames])) == {62_500_000}


def test_a_zoom_gives_each_frame_its_own_camera(shared_cases) -> None:
    frames, source = read(shared_cases.need("camera_info_zoom/bag"))
    focal = [round(f.camera.focal, 1) for f in frames if f.camera is not None]
    assert focal == [308.5] * 3 + [493.5] * 4
    assert len([note for note in source.notes if "308.5 to 493.5 px" in note]) == 1


def test_empty_camera_infos_at_the_start_are_passed_over(shared_cases) -> None:
    frames, source = read(shared_cases.need("first_camera_info_empty/bag"))
    assert all(f.camera is not None and round(f.camera.focal, 1) == 308.5 for f in frames)
    assert len(source.warnings) == 1
    assert "the first 2 CameraInfo" in source.warnings[0]


def test_a_k_that_was_scaled_twice_is_doubtful(shared_cases) -> None:
    _, source = read(shared_cases.need("binning_k_already_scaled/bag"))
    assert any("principal point" in text and "424 x 240" in text for text in source.warnings)


def test_ros1_transforms_of_tf2_place_the_camera(shared_cases) -> None:
    frames, source = read(shared_cases.need("ros1_tf_static/tf.bag"), odometry_topic="/odom")
    assert all(f.odometry is not None for f in frames)
    path = sum(
        np.linalg.norm(b.odometry[:3, 3] - a.odometry[:3, 3])  # type: ignore[index]  # not None: asserted
        for a, b in pairwise(frames)
    )
    assert path == pytest.approx(1.507, rel=0.02)
    assert not source.warnings


@pytest.mark.parametrize("bag", ["mcap_protobuf_beside_ros2/mixed.mcap", "mcap_ros1/ros1.mcap"])
def test_an_intact_mcap_is_not_damaged(shared_cases, bag: str) -> None:
    frames, source = read(shared_cases.need(bag))
    assert len(frames) == 5
    assert all(f.camera is not None for f in frames)
    assert not source.warnings


def test_a_tail_behind_a_jpeg_is_no_damage(shared_cases) -> None:
    assert len(read(shared_cases.need("jpeg_with_tail"))[0]) == 2
    frames, source = read(shared_cases.need("jpeg_with_tail/mjpeg_bag"))
    assert len(frames) == 3
    assert not source.warnings


def test_grey_values_of_16_bits_are_no_picture_where_there_are_others(shared_cases) -> None:
    bag = shared_cases.need("mono16_depth_taken_as_picture/bag")
    frames, source = read(bag, depth_topic="/camera/depth/image_raw")
    assert frames[0].source == "/camera/rgb/image_raw/compressed"
    assert all(f.depth is not None and 0.3 < np.nanmedian(f.depth) < 30 for f in frames)
    assert not source.warnings


def test_a_video_that_players_turn_is_read_as_stored(shared_cases) -> None:
    video = shared_cases.need("video_rotation_180/rot180.mp4")
    frames, source = read(video, camera_yaml=shared_cases.need("video_rotation_180/cam.yaml"))
    assert not source.warnings
    assert len([note for note in source.notes if "a display rotation of 180 degrees" in note]) == 1
    truth = np.loadtxt(shared_cases.need("video_rotation_180/truth.txt")).reshape(-1, 4, 4)
    matcher = load_matcher("sift")
    last = len(frames) - 1
    matches = matcher.match(matcher.encode(frames[0].image, reference=True), matcher.encode(frames[last].image))
    pose = estimate_relative_pose(matches, frames[0].camera, frames[last].camera)
    assert poses.rotation_angle_deg(pose.T_query_from_reference, poses.inverse(truth[last])) < 0.3


def test_depth_of_another_camera_is_refused_with_the_numbers(shared_cases) -> None:
    frames, source = read(shared_cases.need("unregistered_depth/bag"), depth_topic="/camera/depth/image_rect_raw")
    assert all(f.depth is None for f in frames)
    assert len(source.warnings) == 1
    assert "is not registered to the images: its camera matrix (fx 223.4" in source.warnings[0]
