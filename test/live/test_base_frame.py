"""Which frame is the base, and whether its transform may be sent: one parent a frame, one author a transform."""

from __future__ import annotations

import numpy as np
import pytest

from ros2_densematch.configuration import Configuration
from ros2_densematch.geometry import poses
from ros2_densematch.geometry.transform_tree import TransformTree
from ros2_densematch.io.results.odometry import T_BODY_FROM_OPTICAL
from ros2_densematch.live.base_frame import BaseFrame
from ros2_densematch.live.tf_tree import Authorship

OPTICAL = "camera_color_optical_frame"


class Clock:
    """Seconds that the test sets."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def driver() -> TransformTree:
    """What a driver publishes: camera_link -> camera_color_frame -> camera_color_optical_frame."""
    tree = TransformTree()
    tree.add("camera_link", "camera_color_frame", poses.make_pose(np.eye(3), [0.0, 0.015, 0.0]))
    tree.add("camera_color_frame", OPTICAL, T_BODY_FROM_OPTICAL)
    return tree


def settled(tree: TransformTree, clock: Clock, settings: Configuration) -> BaseFrame:
    base = BaseFrame(tree, clock)
    base.mount(OPTICAL, settings)
    clock.now += settings.tf_wait_s
    return base


def test_without_base_frame_the_base_is_the_top_of_the_cameras_own_tree(driver: TransformTree, clock: Clock) -> None:
    mount, _ = settled(driver, clock, Configuration()).mount(OPTICAL, Configuration())
    assert mount is not None
    assert mount.base == "camera_link"
    # x forward, z up: what the optical frame calls z
    np.testing.assert_allclose(mount.T[:3, :3] @ [0, 0, 1], [1, 0, 0], atol=1e-12)
    np.testing.assert_allclose(mount.T_odom_from_start, mount.T)


def test_the_decision_waits_and_then_stands(driver: TransformTree, clock: Clock) -> None:
    base, settings = BaseFrame(driver, clock), Configuration()
    mount, why = base.mount(OPTICAL, settings)
    assert mount is None
    assert "waiting for /tf_static until 2 s" in why
    clock.now += 1.9
    driver.add("base_link", "camera_link", np.eye(4))  # the robot's description comes late, but in time
    assert base.mount(OPTICAL, settings)[0] is None
    clock.now += 0.2
    decided, _ = base.mount(OPTICAL, settings)
    driver.add("base_footprint", "base_link", np.eye(4))
    later, _ = base.mount(OPTICAL, settings)
    assert decided is not None
    assert later is not None
    assert decided.base == later.base == "base_link"


def test_a_named_base_needs_no_waiting(driver: TransformTree, clock: Clock) -> None:
    settings = Configuration(base_frame="camera_color_frame")
    mount, _ = BaseFrame(driver, clock).mount(OPTICAL, settings)
    assert mount is not None
    assert mount.base == "camera_color_frame"
    _, why = BaseFrame(driver, clock).mount(OPTICAL, Configuration(base_frame="base_link"))
    assert "the pose of the camera in base_link is unknown" in why


def test_where_nobody_places_the_camera_odom_has_x_forward_all_the_same(clock: Clock) -> None:
    mount, _ = settled(TransformTree(), clock, Configuration()).mount(OPTICAL, Configuration())
    assert mount is not None
    assert mount.base == OPTICAL
    np.testing.assert_allclose(mount.T, np.eye(4))
    np.testing.assert_allclose(mount.T_odom_from_start, T_BODY_FROM_OPTICAL)


def test_a_written_pose_needs_the_name_of_its_frame(clock: Clock) -> None:
    pose = "0.2 0 0.3 -0.5 0.5 -0.5 0.5"
    mount, why = BaseFrame(TransformTree(), clock).mount(OPTICAL, Configuration(base_from_camera=pose))
    assert mount is None
    assert "base_frame is not: set base_frame" in why
    mount, _ = BaseFrame(TransformTree(), clock).mount(
        OPTICAL, Configuration(base_from_camera=pose, base_frame="base_link")
    )
    assert mount is not None
    np.testing.assert_allclose(mount.T[:3, 3], [0.2, 0.0, 0.3])


def authorship() -> Authorship:
    return Authorship("publish_tf", "leave publish_tf off")


def test_our_own_transform_that_comes_back_is_no_other_authors() -> None:
    ours = authorship()
    for stamp in range(5):
        assert ours.may_send("odom", "base_link")
        ours.sent("odom", "base_link", stamp)
        ours.heard("odom", "base_link", stamp, "/tf")
    ours.heard("base_link", "camera_link", 0, "/tf_static")  # its children are no matter
    assert ours.may_send("odom", "base_link")


@pytest.mark.parametrize("topic", ["/tf", "/tf_static"])
def test_a_frame_that_has_another_parent_is_refused(topic: str) -> None:
    ours = authorship()
    ours.heard("/base_footprint", "/base_link", 0, topic)
    assert not ours.may_send("odom", "base_link")
    assert ours.refused.startswith(f"publish_tf is refused: base_link already has the parent base_footprint on {topic}")
    assert ours.refused.endswith("leave publish_tf off")


def test_a_second_author_of_the_same_transform_is_refused_also_later() -> None:
    ours = authorship()
    assert ours.may_send("odom", "base_link")
    ours.sent("odom", "base_link", 1)
    ours.heard("odom", "base_link", 2, "/tf")  # of wheel odometry
    assert not ours.may_send("odom", "base_link")
    assert "another node already publishes odom -> base_link on /tf" in ours.refused
    assert not ours.may_send("odom", "base_link")  # it does not come back
