"""The path of keyframes: bounded, whole for those who begin to listen, silent for nobody."""

from __future__ import annotations

import numpy as np

from ros2_densematch.geometry import poses
from ros2_densematch.live.keyframe_path import MAX_POSES, KeyframePath
from ros2_densematch.messages.conversions import time_ns, to_cdr
from ros2_densematch.messages.typestore import ros2_typestore


def at(x: float) -> np.ndarray:
    return poses.make_pose(np.eye(3), [x, 0.0, 0.0])


def test_it_is_sent_once_for_every_keyframe_and_whole_to_who_begins_to_listen() -> None:
    path = KeyframePath()
    assert path.message("odom", wanted=True) is None  # nothing is known
    path.add(100, at(0.0), "base_link")
    assert path.message("odom", wanted=False) is None  # nobody listens
    path.add(200, at(1.0), "base_link")
    first = path.message("odom", wanted=True)
    assert first is not None
    assert [time_ns(p.header.stamp) for p in first.poses] == [100, 200]
    assert path.message("odom", wanted=True) is None  # nothing is new
    path.add(300, at(2.0), "base_link")
    second = path.message("odom", wanted=True)
    assert second is not None
    assert [p.pose.position.x for p in second.poses] == [0.0, 1.0, 2.0]
    assert time_ns(second.header.stamp) == 300
    assert {second.header.frame_id, *(p.header.frame_id for p in second.poses)} == {"odom"}
    # the listener leaves, and another comes
    assert path.message("odom", wanted=False) is None
    again = path.message("odom", wanted=True)
    assert again is not None
    assert len(again.poses) == 3
    read = ros2_typestore().deserialize_cdr(to_cdr(again), "nav_msgs/msg/Path")
    assert read.poses[2].pose.position.x == 2.0


def test_it_is_bounded_and_belongs_to_one_base() -> None:
    path = KeyframePath()
    for number in range(MAX_POSES + 7):
        path.add(number, at(float(number)), "base_link")
    found = path.message("odom", wanted=True)
    assert found is not None
    assert len(found.poses) == MAX_POSES
    assert found.poses[0].pose.position.x == 7.0
    path.add(5000, at(1.0), "camera_link")
    other = path.message("odom", wanted=True)
    assert other is not None
    assert [time_ns(p.header.stamp) for p in other.poses] == [5000]
