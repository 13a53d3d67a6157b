"""Frames out of bags: topics, companions, calibration, poses, and what goes wrong in recordings."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rosbags.rosbag2 import StoragePlugin, Writer

from ros2_densematch.geometry import poses
from ros2_densematch.io.sources.opening import open_source
from ros2_densematch.io.sources.options import SourceOptions
from ros2_densematch.io.sources.records import BagError
from ros2_densematch.messages import conversions
from ros2_densematch.messages.typestore import message_class

SECOND = 10**9
IMAGE = "sensor_msgs/msg/Image"


def image(stamp_ns: int, *, size: tuple[int, int] = (32, 24), frame_id: str = "cam", encoding: str = "mono8") -> Any:
    width, height = size
    step = width * {"mono8": 1, "16UC1": 2, "32FC1": 4}.get(encoding, 1)
    data = np.full(step * height, stamp_ns // (SECOND // 10) % 200, np.uint8)
    header = conversions.header_message(stamp_ns, frame_id)
    return message_class(IMAGE)(header, height, width, encoding, 0, step, data)


def camera_info(stamp_ns: int = 0, *, size: tuple[int, int] = (32, 24), frame_id: str = "cam", f: float = 30.0) -> Any:
    K = np.array([f, 0, 15.5, 0, f, 11.5, 0, 0, 1])
    P = np.array([f, 0, 15.5, -0.1 * f if "right" in frame_id else 0, 0, f, 11.5, 0, 0, 0, 1, 0])
    roi = message_class("sensor_msgs/msg/RegionOfInterest")(0, 0, 0, 0, False)
    return message_class("sensor_msgs/msg/CameraInfo")(
        header=conversions.header_message(stamp_ns, frame_id),
        height=size[1],
        width=size[0],
        distortion_model="plumb_bob",
        d=np.zeros(5),
        k=K,
        r=np.eye(3).ravel(),
        p=P,
        binning_x=0,
        binning_y=0,
        roi=roi,
    )


def transform(stamp_ns: int, parent: str, child: str, T: Any) -> Any:
    pose = conversions.pose_message(T)
    vector = message_class("geometry_msgs/msg/Vector3")(pose.position.x, pose.position.y, pose.position.z)
    body = message_class("geometry_msgs/msg/Transform")(vector, pose.orientation)
    header = conversions.header_message(stamp_ns, parent)
    return message_class("geometry_msgs/msg/TransformStamped")(header, child, body)


def tf(*transforms: Any) -> Any:
    return message_class("tf2_msgs/msg/TFMessage")(list(transforms))


def odometry(stamp_ns: int, T: Any, child: str) -> Any:
    return conversions.odometry_message(
        T, np.eye(6), np.zeros(6), np.eye(6), stamp_ns=stamp_ns, world_frame_id="odom", frame_id=child
    )


@pytest.fixture
def make_bag(tmp_path: Path) -> Callable[..., Path]:
    """Writes a bag of (topic, time of recording, message) and returns its folder."""

    def make(*messages: tuple[str, int, Any], name: str = "bag") -> Path:
        with Writer(tmp_path / name, version=8, storage_plugin=StoragePlugin.SQLITE3) as writer:
            connections: dict[str, Any] = {}
            for topic, log_ns, message in messages:
                if topic not in connections:
                    store = conversions.ros2_typestore()
                    connections[topic] = writer.add_connection(topic, message.__msgtype__, typestore=store)
                writer.write(connections[topic], log_ns, conversions.to_cdr(message))
        return tmp_path / name

    return make


def video(count: int = 5, *, topic: str = "/cam/image_raw", start_ns: int = SECOND) -> list[tuple[str, int, Any]]:
    """One image every 0.1 s."""
    stamps = [start_ns + i * SECOND // 10 for i in range(count)]
    return [(topic, stamp, image(stamp)) for stamp in stamps]


CALIBRATION = ("/cam/camera_info", SECOND, camera_info())

# --- real bags --------------------------------------------------------------------------------------------------------


def test_the_real_ros1_bag_gives_images_and_says_that_it_has_no_calibration(shared_data) -> None:
    source = open_source(shared_data.need("rosbag/real_t265_ros1"))
    frames = list(source)
    assert [f.image.shape for f in frames] == [(800, 848)] * 3
    assert all(f.camera is None for f in frames)
    assert any("no calibration" in text and "correspondences only" in text for text in source.warnings)
    assert "/camera/fisheye1/image_raw" in source.notes[0]
    assert "--image-topic: /camera/fisheye2/image_raw" in source.notes[0]


def test_odometry_of_another_frame_without_static_transforms_is_not_used(shared_data) -> None:
    options = SourceOptions(odometry_topic="/camera/odom/sample")
    source = open_source(shared_data.need("rosbag/real_t265_ros1"), options)
    assert all(f.odometry is None for f in source)
    assert any("camera_pose_frame" in text and "/tf_static" in text for text in source.warnings)


@pytest.mark.parametrize("topic", [None, "/ground_truth/pose", "/ground_truth/odom"])
def test_the_mcap_bag_gives_colour_calibration_and_truth(shared_data, topic: str | None) -> None:
    options = SourceOptions(ground_truth_topic=topic)
    source = open_source(shared_data.need("rosbag/tum_fr1_rpy_mcap"), options)
    frame = next(iter(source))
    assert frame.image.shape == (480, 640, 3)
    assert frame.camera is not None
    assert frame.camera.distortion_model == "plumb_bob"
    assert source.frame_id == "camera_rgb_optical_frame"
    assert source.length == 150
    assert source.ground_truth is not None
    np.testing.assert_allclose(source.ground_truth.T_world_from_camera[0, :3, 3], [1.3098418, 0.6224651, 1.5942884])
    assert not source.warnings


def test_a_part_of_the_bag_is_cut_out_by_seconds(shared_data) -> None:
    path = shared_data.need("rosbag/kitti_a_sqlite3")
    stamps = [f.stamp_ns for f in open_source(path)]
    part = open_source(path, SourceOptions(start_s=0.3, stop_s=1.0))
    assert [f.stamp_ns for f in part] == stamps[3:10]
    assert [f.index for f in part] == list(range(7))


# --- which topic ------------------------------------------------------------------------------------------------------


def test_of_several_image_topics_one_with_camera_info_comes_first_then_the_alphabet(make_bag) -> None:
    bag = make_bag(*video(topic="/a/image"), *video(topic="/c/image"), *video(topic="/b/image"))
    assert next(iter(open_source(bag))).source == "/a/image"
    info = ("/c/camera_info", SECOND, camera_info())
    bag = make_bag(*video(topic="/a/image"), *video(topic="/c/image"), *video(topic="/b/image"), info, name="second")
    source = open_source(bag)
    assert next(iter(source)).source == "/c/image"
    assert source.notes == ["images are read from /c/image (choose another with --image-topic: /a/image, /b/image)"]


def test_depth_topics_are_not_taken_for_pictures(make_bag) -> None:
    bag = make_bag(("/a/depth", SECOND, image(SECOND, encoding="16UC1")), *video(topic="/b/image"))
    assert next(iter(open_source(bag))).source == "/b/image"
    with pytest.raises(BagError, match="--depth-topic"):
        open_source(bag, SourceOptions(image_topic="/a/depth"))


def test_missing_topics_are_answered_with_what_the_bag_has(make_bag) -> None:
    bag = make_bag(*video(), CALIBRATION)
    with pytest.raises(BagError) as caught:
        open_source(bag, SourceOptions(image_topic="/front/image"))
    for part in ("/front/image", "/cam/image_raw (sensor_msgs/msg/Image)", "/cam/camera_info"):
        assert part in str(caught.value)
    with pytest.raises(
        BagError, match=r"--depth-topic /cam/camera_info: the topic's type is sensor_msgs/msg/CameraInfo"
    ):
        open_source(bag, SourceOptions(depth_topic="/cam/camera_info"))
    only_info = make_bag(CALIBRATION, name="second")
    with pytest.raises(BagError, match=r"no topic with images.*/cam/camera_info"):
        open_source(only_info)


def test_calibration_is_found_by_frame_where_its_topic_has_another_name(make_bag) -> None:
    infos = [(f"/info/{name}", SECOND, camera_info(frame_id=name)) for name in ("other", "cam")]
    source = open_source(make_bag(*video(), *infos))
    assert next(iter(source)).camera is not None
    assert any("/info/cam" in text for text in source.notes)


def test_an_uncalibrated_camera_gives_frames_without_camera_and_the_reason(make_bag) -> None:
    source = open_source(make_bag(*video(), ("/cam/camera_info", SECOND, camera_info(f=0.0))))
    assert [f.camera for f in source] == [None] * 5
    assert any("not calibrated" in text for text in source.warnings)


# --- companions -------------------------------------------------------------------------------------------------------


def test_depth_is_the_nearest_in_time_and_only_within_reach(make_bag) -> None:
    messages = [*video(5), CALIBRATION]
    for i, late_ms in enumerate((0, 8, -8, 40, None)):
        if late_ms is not None:
            stamp = SECOND + i * SECOND // 10 + late_ms * 10**6
            # Recorded later than the images: the reader has to wait for it.
            messages.append(("/depth", stamp + 150 * 10**6, image(stamp, encoding="16UC1")))
    messages.sort(key=lambda item: item[1])
    source = open_source(make_bag(*messages), SourceOptions(depth_topic="/depth"))
    frames = list(source)
    assert [f.depth is not None for f in frames] == [True, True, True, False, False]
    assert frames[0].depth is not None
    assert frames[0].depth.shape == (24, 32)
    assert [f.stamp_ns for f in frames] == [SECOND + i * SECOND // 10 for i in range(5)]


def test_depth_that_never_fits_is_said(make_bag) -> None:
    depth = ("/depth", SECOND, image(SECOND + SECOND // 20, encoding="16UC1"))
    source = open_source(make_bag(*video(5), CALIBRATION, depth), SourceOptions(depth_topic="depth"))
    assert all(f.depth is None for f in source)
    assert source.warnings == ["depth: no message on /depth is used (1 read): 1 farther than 20 ms from every image"]
    account = next(row for row in source.inputs if row["role"] == "depth")
    assert (account["messages"], account["used"]) == (1, 0)


def test_a_stereo_pair_comes_with_both_cameras(make_bag) -> None:
    right = [("/right/image", t, m) for _, t, m in video()]
    info = ("/right/camera_info", SECOND, camera_info(frame_id="right"))
    source = open_source(make_bag(*video(), *right, CALIBRATION, info), SourceOptions(right_image_topic="/right/image"))
    frames = list(source)
    assert all(f.right_image is not None for f in frames)
    assert frames[0].right_camera is not None
    assert frames[0].right_camera.baseline == pytest.approx(0.1)


# --- poses ------------------------------------------------------------------------------------------------------------

T_BASE_FROM_CAMERA = poses.make_pose([[0, 0, 1], [-1, 0, 0], [0, -1, 0]], [0.2, 0.0, 0.5])


def world_from_base(i: float) -> Any:
    return poses.make_pose(poses.exp_rotation([0, 0, 0.1 * i]), [i, 0.0, 0.0])


def test_odometry_of_the_base_is_carried_to_the_camera_by_tf_static(make_bag) -> None:
    static = tf(transform(0, "base", "mast", np.eye(4)), transform(0, "mast", "cam", T_BASE_FROM_CAMERA))
    # Odometry lies between the images: it is interpolated.
    track = [
        (
            "/odom",
            SECOND + i * SECOND // 10,
            odometry(SECOND + i * SECOND // 10 - SECOND // 20, world_from_base(i), "base"),
        )
        for i in range(7)
    ]
    bag = make_bag(*video(), CALIBRATION, ("/tf_static", SECOND, static), *track)
    frames = list(open_source(bag, SourceOptions(odometry_topic="/odom")))
    for i, frame in enumerate(frames):
        assert frame.odometry is not None
        np.testing.assert_allclose(frame.odometry, world_from_base(i + 0.5) @ T_BASE_FROM_CAMERA, atol=1e-3)


def test_ground_truth_from_tf_climbs_to_the_root(make_bag) -> None:
    static = tf(transform(0, "base", "cam", T_BASE_FROM_CAMERA))
    stamps = [SECOND + i * SECOND // 10 for i in range(5)]
    moving = [
        ("/tf", s, tf(transform(s, "map", "odom", np.eye(4)), transform(s, "odom", "base", world_from_base(i))))
        for i, s in enumerate(stamps)
    ]
    bag = make_bag(*video(), CALIBRATION, ("/tf_static", SECOND, static), *moving)
    source = open_source(bag, SourceOptions(ground_truth_topic="/tf"))
    assert source.ground_truth is not None
    np.testing.assert_array_equal(source.ground_truth.stamps_ns, stamps)
    for i in range(5):
        expected = world_from_base(i) @ T_BASE_FROM_CAMERA
        np.testing.assert_allclose(source.ground_truth.T_world_from_camera[i], expected, atol=1e-12)


def test_poses_that_are_no_poses_are_left_out_and_counted(make_bag) -> None:
    good = odometry(SECOND, np.eye(4), "cam")
    bad = odometry(2 * SECOND, np.eye(4), "cam")
    bad.pose.pose.orientation.w = 0.0
    bag = make_bag(*video(), CALIBRATION, ("/gt", SECOND, good), ("/gt", 2 * SECOND, bad))
    source = open_source(bag)
    assert source.ground_truth is not None
    assert len(source.ground_truth.stamps_ns) == 1
    assert any(text.startswith("1 poses on /gt could not be read") for text in source.warnings)


# --- what goes wrong in recordings ------------------------------------------------------------------------------------


def test_an_undecodable_frame_is_dropped_counted_and_named(make_bag) -> None:
    messages = video(6)
    messages[2][2].data = messages[2][2].data[:50]
    messages[4][2].encoding = "rgb16"
    source = open_source(make_bag(*messages, CALIBRATION))
    assert [f.index for f in source] == [0, 1, 3, 5]
    assert source.dropped == 2
    assert any(text.startswith("2 frames could not be decoded") and "frame 2" in text for text in source.warnings)


def test_a_message_that_cannot_be_parsed_is_a_dropped_frame(make_bag, monkeypatch: pytest.MonkeyPatch) -> None:
    messages = video(4)
    to_cdr = conversions.to_cdr
    monkeypatch.setattr(conversions, "to_cdr", lambda m: to_cdr(m)[:20] if m is messages[1][2] else to_cdr(m))
    source = open_source(make_bag(*messages, CALIBRATION))
    assert [f.index for f in source] == [0, 2, 3]
    assert source.dropped == 1


def test_time_that_goes_back_loses_nothing_of_what_came_before(make_bag) -> None:
    messages = video(4)
    messages.append(("/cam/image_raw", 5 * SECOND, image(SECOND + SECOND // 10)))
    messages.append(("/cam/image_raw", 6 * SECOND, image(9 * SECOND)))
    source = open_source(make_bag(*messages, CALIBRATION))
    assert [f.index for f in source] == [0, 1, 2, 3, 5]
    assert any("frame 4 at 1.100000 s, 0.200 s before its neighbour at 1.300000 s" in text for text in source.warnings)


def test_a_change_of_the_image_size_is_said_and_the_calibration_follows(make_bag) -> None:
    messages = [*video(3), ("/cam/image_raw", 2 * SECOND, image(2 * SECOND, size=(64, 48)))]
    messages.append(("/cam/image_raw", 3 * SECOND, image(3 * SECOND, size=(64, 64))))
    source = open_source(make_bag(*messages, CALIBRATION))
    cameras = [f.camera for f in source]
    assert cameras[0] is not None
    assert cameras[3] is not None
    assert cameras[3].K[0, 0] == pytest.approx(2 * cameras[0].K[0, 0])
    assert cameras[4] is None
    assert any("image size changes" in text and "from 32 x 24 to 64 x 48" in text for text in source.warnings)
    assert any("aspect ratios differ" in text for text in source.warnings)


def test_images_without_a_stamp_take_the_time_of_recording(make_bag) -> None:
    source = open_source(make_bag(*[("/cam/image_raw", t, image(0)) for t in (SECOND, 2 * SECOND)], CALIBRATION))
    assert [f.stamp_ns for f in source] == [SECOND, 2 * SECOND]


def test_a_mask_goes_with_every_frame_and_must_fit(make_bag, tmp_path: Path) -> None:
    import cv2

    mask = np.zeros((24, 32), np.uint8)
    mask[:12] = 255
    cv2.imwrite(str(tmp_path / "mask.png"), mask)
    bag = make_bag(*video(2), CALIBRATION)
    frames = list(open_source(bag, SourceOptions(mask=tmp_path / "mask.png")))
    assert frames[1].mask is not None
    np.testing.assert_array_equal(frames[1].mask, mask > 0)
    cv2.imwrite(str(tmp_path / "mask.png"), mask[:10])
    with pytest.raises(ValueError, match=r"the mask .*mask\.png is 32 x 10"):
        list(open_source(bag, SourceOptions(mask=tmp_path / "mask.png")))


def test_a_stalled_companion_does_not_make_the_images_pile_up() -> None:
    from ros2_densematch.io.sources.synchronise import MAX_WAITING, Stamped, synchronise

    read = 0

    def stream() -> Any:
        nonlocal read
        for read in range(1000):
            yield Stamped("/image", read * SECOND // 100, read, read)

    for given, (item, companions) in enumerate(synchronise(stream(), "/image", {"/depth": SECOND})):
        assert item.message == given
        assert not companions
        assert read - given <= MAX_WAITING
