"""Lifecycle, parameters and services of the node, called as a robot's other programs call them."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ros2_densematch.live.parameters import declared
from ros2_densematch.messages.conversions import correspondences_from_message
from ros2_densematch.messages.typestore import message_class
from ros2_densematch.tracking.config import TrackerConfig
from ros2_densematch.tracking.tracked_frame import Status

CONFIGURE, CLEANUP, ACTIVATE, DEACTIVATE = 1, 2, 3, 4


def change(peer: Any, transition: int) -> bool:
    from lifecycle_msgs.msg import Transition

    answer = peer.call("/matcher/change_state", "lifecycle_msgs/srv/ChangeState", transition=Transition(id=transition))
    return bool(answer.success)


def state(peer: Any) -> str:
    return str(peer.call("/matcher/get_state", "lifecycle_msgs/srv/GetState").current_state.label)


def set_parameters(peer: Any, **values: Any) -> Any:
    """Sets them together; `__` in a name stands for the dot."""
    from rclpy.parameter import Parameter

    messages = [Parameter(name.replace("__", "."), value=value).to_parameter_msg() for name, value in values.items()]
    kind = "rcl_interfaces/srv/SetParametersAtomically"
    return peer.call("/matcher/set_parameters_atomically", kind, parameters=messages).result


def test_lifecycle(start_node: Any, peer: Any, camera: Any) -> None:
    node = start_node(
        "--matcher",
        "sift",
        "--ros-args",
        "-p",
        "auto_activate:=false",
        "-p",
        "image_reliability:=reliable",
        wait_for="",
    )
    assert state(peer) == "unconfigured"
    refused = peer.call("/matcher/set_keyframe", "std_srvs/srv/Trigger")
    assert not refused.success
    assert "activate" in refused.message
    assert change(peer, CONFIGURE)
    assert state(peer) == "inactive"
    for _ in range(2):
        assert change(peer, ACTIVATE)
        assert state(peer) == "active"
        peer.heard.clear()
        peer.listen_to_node()
        peer.calibrate(camera.info())
        stamp = camera.next_stamp()
        peer.publish("/image", camera.raw(0, stamp))
        assert peer.status_of(stamp).state == 1  # INITIALISED: nothing is known from before
        assert change(peer, DEACTIVATE)
        assert state(peer) == "inactive"
        assert not peer.node.get_subscriptions_info_by_topic("/image")
    assert change(peer, CLEANUP)
    assert state(peer) == "unconfigured"
    assert node.process.poll() is None


def test_a_matcher_that_cannot_be_loaded_fails_to_configure_with_the_reason(start_node: Any, peer: Any) -> None:
    node = start_node("--ros-args", "-p", "auto_activate:=false", "-p", "preset:=warp9", wait_for="")
    assert not change(peer, CONFIGURE)
    assert state(peer) == "unconfigured"
    node.wait_for("unknown preset 'warp9' of gcm: choose one of")
    assert set_parameters(peer, preset="turbo").successful
    assert change(peer, CONFIGURE)


def test_parameters_and_services_while_running(start_node: Any, peer: Any, camera: Any) -> None:
    start_node("--matcher", "sift", "--ros-args", "-p", "image_reliability:=reliable", "-p", "tracker.min_inliers:=12")
    peer.listen_to_node()
    keyframes = peer.listen("/matcher/keyframe", "densematch/msg/KeyframeInfo", latched=True)
    pictures: list[Any] = []
    peer.calibrate(camera.info())

    def send(index: int) -> Any:
        stamp = camera.next_stamp()
        peer.publish("/image", camera.raw(index, stamp))
        return peer.status_of(stamp)

    # every parameter is there, described, with its range
    names = peer.call("/matcher/list_parameters", "rcl_interfaces/srv/ListParameters").result.names
    ours = {p.name: p for p in declared()}
    assert set(ours) <= set(names)
    described = peer.call("/matcher/describe_parameters", "rcl_interfaces/srv/DescribeParameters", names=list(ours))
    for d in described.descriptors:
        assert d.description == ours[d.name].description
        assert d.read_only == ours[d.name].read_only
        assert len(d.integer_range) + len(d.floating_point_range) == (
            ours[d.name].low is not None or ours[d.name].high is not None
        ), d.name
    values = peer.call("/matcher/get_parameters", "rcl_interfaces/srv/GetParameters", names=["tracker.min_inliers"])
    assert values.values[0].integer_value == 12

    # a bad update is refused with the reason and changes nothing
    for changes, word in (
        ({"matcher": "superduper"}, "unknown matcher 'superduper': choose one of"),
        ({"preset": "turbo"}, "unknown preset 'turbo' of sift"),
        ({"tracker__keyframe_overlap": 1.0}, "less than 1"),
        ({"tracker__min_inliers": 3}, ""),
        ({"mask": "/nowhere.png"}, "/nowhere.png"),
        ({"base_from_camera": "1 2 3"}, "seven numbers"),
        ({"odom_frame": "map"}, "read"),
    ):
        result = set_parameters(peer, **changes)
        assert not result.successful
        assert word in result.reason

    # keyframe policy changes and what is known stays; a new keyframe comes when it is asked for
    assert send(0).state == 1
    assert send(1).keyframe_id == 0
    assert set_parameters(peer, tracker__max_matches=50).successful
    assert send(2).num_matches <= 50
    assert set_parameters(peer, tracker__max_matches=2000).successful
    assert peer.call("/matcher/set_keyframe", "std_srvs/srv/Trigger").success
    before = len(keyframes)
    status = send(3)
    peer.until(lambda: len(keyframes) > before, "a keyframe")
    assert "it was asked for" in status.reason
    newest = keyframes[-1].keyframe_id
    assert keyframes[-1].frame_index == status.frame_index

    # reset: the next image is the first keyframe, with a new number
    assert peer.call("/matcher/reset", "std_srvs/srv/Trigger").success
    assert send(4).state == 1
    peer.until(lambda: keyframes[-1].keyframe_id > newest, "the first keyframe after the reset")

    # another matcher, together with its preset
    assert set_parameters(peer, matcher="gcm", preset="turbo", device="cpu").successful
    status = send(5)
    assert status.state == 1
    assert status.matcher.startswith("gcm@sha256")
    assert status.preset == "turbo"
    pictures = peer.listen("/matcher/matches_image", "sensor_msgs/msg/Image")
    warps = peer.listen("/matcher/warp", "sensor_msgs/msg/Image")
    send(6)
    peer.until(lambda: bool(pictures) and bool(warps), "a picture and a warp")
    assert pictures[-1].encoding == "rgb8"
    assert len(pictures[-1].data) == pictures[-1].step * pictures[-1].height
    assert warps[-1].encoding == "32FC3"
    certainty = np.frombuffer(warps[-1].data, np.float32).reshape(warps[-1].height, warps[-1].width, 3)[:, :, 2]
    assert 0.0 <= certainty.min() <= certainty.max() <= 1.0
    assert set_parameters(peer, matcher="sift", preset="base", device="auto").successful

    # switched off, images are counted and not matched
    assert peer.call("/matcher/enable", "std_srvs/srv/SetBool", data=False).success
    # one after the other: of two at once a busy node may see the newer one only
    for index, counted in ((7, "1"), (8, "2")):
        peer.publish("/image", camera.raw(index))
        peer.until(lambda c=counted: peer.diagnostics()["dropped.disabled"] == c, f"{counted} counted images")
    assert peer.call("/matcher/enable", "std_srvs/srv/SetBool", data=True).success
    assert send(9).state == 1


def test_match_pair(start_node: Any, peer: Any, camera: Any) -> None:
    from rclpy.serialization import deserialize_message
    from sensor_msgs.msg import CameraInfo, Image

    from ros2_densematch.matchers.registry import load_matcher
    from ros2_densematch.messages.conversions import to_cdr

    start_node("--matcher", "sift")
    images = [deserialize_message(to_cdr(camera.raw(i)), Image) for i in (0, 1)]
    info = deserialize_message(to_cdr(camera.info()), CameraInfo)

    def ask(**changes: Any) -> Any:
        fields = {"reference": images[0], "query": images[1], "reference_camera_info": info, "query_camera_info": info}
        return peer.call("/matcher/match_pair", "densematch/srv/MatchPair", **{**fields, **changes})

    answer = ask()
    assert answer.success, answer.message
    matcher = load_matcher("sift")
    expected = matcher.match(
        matcher.encode(camera.image(0)),
        matcher.encode(camera.image(1)),
        max_matches=TrackerConfig().max_matches,
        seed=0,
    )
    got = correspondences_from_message(answer.correspondences)
    np.testing.assert_array_equal(got.query_xy, expected.query_xy)
    assert answer.relative_pose.num_matches == len(expected)
    assert len(ask(max_matches=20).correspondences.score) == 20
    without = ask(query_camera_info=CameraInfo())
    assert without.success
    assert without.relative_pose.geometry == 0
    refused = ask(reference=Image(encoding="rgb8", width=10, height=10, step=30))
    assert not refused.success
    assert "data has 0 bytes" in refused.message


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_process_in_order(start_node: Any, peer: Any, camera: Any, number: int) -> None:
    node = start_node("--matcher", "sift", "--ros-args", "-p", "image_reliability:=reliable")
    peer.listen("/matcher/status", "densematch/msg/MatcherStatus")
    for index in range(5):
        peer.publish("/image", camera.raw(index))
    assert node.stop(number) == 0
    with pytest.raises(ProcessLookupError):
        os.kill(node.process.pid, 0)


def test_a_second_signal_does_not_disturb_the_end(start_node: Any, peer: Any, camera: Any) -> None:
    node = start_node("--matcher", "sift", "--ros-args", "-p", "image_reliability:=reliable")
    peer.listen("/matcher/status", "densematch/msg/MatcherStatus")
    for index in range(3):
        peer.publish("/image", camera.raw(index))
    node.process.send_signal(signal.SIGINT)
    assert node.stop(signal.SIGINT) == 0
    assert "terminate called" not in node.log


ENDING = """
import atexit, sys, time
atexit.register(lambda: (print("the interpreter ends", flush=True), time.sleep(2.0)))
from ros2_densematch.__main__ import main
sys.exit(main(["live", "--matcher", "sift"]))
"""


def test_a_second_signal_does_not_disturb_the_end_of_the_interpreter(start_node: Any) -> None:
    """launch sends SIGTERM five seconds after SIGINT, and a busy machine takes longer than that to end."""
    node = start_node(program=("-c", ENDING))
    node.process.send_signal(signal.SIGINT)
    node.wait_for("the interpreter ends")
    # not by a handler of Python's, which is gone before the libraries have ended
    status = Path(f"/proc/{node.process.pid}/status").read_text()
    ignored = int(next(line for line in status.splitlines() if line.startswith("SigIgn")).split()[1], 16)
    assert all(ignored & 1 << (number - 1) for number in (signal.SIGINT, signal.SIGTERM))
    assert node.stop(signal.SIGTERM) == 0, node.log


def test_states_in_messages_are_those_of_the_tracker(ros_environment: None) -> None:
    from densematch.msg import MatcherStatus

    assert {s.value for s in Status} <= set(dir(MatcherStatus))


def test_simulated_time_and_a_namespace(start_node: Any, peer: Any, camera: Any) -> None:
    start_node("--matcher", "sift", "--ros-args", "-p", "image_reliability:=reliable", "-p", "use_sim_time:=true",
               "-r", "__ns:=/front")  # fmt: skip
    statuses = peer.listen("/front/matcher/status", "densematch/msg/MatcherStatus")
    clock = message_class("rosgraph_msgs/msg/Clock")
    time_class = message_class("builtin_interfaces/msg/Time")

    def at_clock_of_100_s() -> bool:
        """The clock is sent with every image: rclpy subscribes to it on its own, later than it says `active`."""
        peer.publish("/clock", clock(clock=time_class(sec=100, nanosec=0)))
        peer.publish("/front/image", camera.raw(0, 99_950_000_000))
        time.sleep(0.2)
        return any(s.latency_ms > 0.0 for s in statuses)

    peer.until(at_clock_of_100_s, "a status in the namespace, by the simulated clock")
    # the clock stands still, so the latency is what it says, however long the matcher took
    assert {round(s.latency_ms, 1) for s in statuses if s.latency_ms > 0.0} == {50.0}
