"""A paused player goes on only when the node is active and everything listens."""

from __future__ import annotations

import sys
import time
from typing import Any

import pytest


def test_what_is_missing_is_named_until_nothing_is(start_node: Any, peer: Any, camera: Any) -> None:
    import rclpy

    from ros2_densematch.live.ros_replay_gate import ReplayGate

    node = rclpy.create_node("gate_under_test")
    try:
        gate = ReplayGate(node, "/matcher", ["/image", "/camera_info"], ["/matcher/status"], time.monotonic() + 60.0)
        assert gate.missing() == "/matcher is not active"
        start_node("--matcher", "sift", "--ros-args", "-p", "image_transport:=compressed")
        peer.until(lambda: "/image is not played" in gate.missing(), "the active node")
        peer.publish("/image/compressed", camera.compressed(0))
        peer.publish("/camera_info", camera.info())
        peer.until(lambda: gate.missing() == "nobody records /matcher/status", "the inputs")
        peer.listen("/matcher/status", "densematch/msg/MatcherStatus")
        assert gate.wait() == ""
        late = ReplayGate(node, "/matcher", ["/depth"], [], time.monotonic())
        assert "/depth is not played" in late.wait()
    finally:
        node.destroy_node()


def test_it_ends_when_the_node_has_answered_for_every_image(start_node: Any, peer: Any, camera: Any) -> None:
    import rclpy

    from ros2_densematch.live.ros_replay_gate import ReplayGate

    node = rclpy.create_node("gate_under_test")
    try:
        start_node("--matcher", "sift", "--ros-args", "-p", "image_reliability:=reliable")
        peer.listen("/matcher/status", "densematch/msg/MatcherStatus")
        gate = ReplayGate(node, "/matcher", ["/image", "/camera_info"], ["/matcher/status"], time.monotonic() + 60.0)
        peer.calibrate(camera.info())
        stamp = camera.next_stamp()  # before its first message nobody can tell whether a publisher sent others
        peer.publish("/image", camera.raw(0, stamp))
        peer.status_of(stamp)
        assert gate.missing() == ""
        for index in range(1, 12):  # faster than they are matched
            peer.publish("/image", camera.raw(index))
        peer.stop_publishing("/image", "/camera_info")  # the bag ends
        assert gate.finish(60.0) == ""
        last = peer.heard["/matcher/status"][-1]
        assert last.frames_processed + last.frames_dropped == 12
        assert len(peer.heard["/matcher/status"]) == last.frames_processed
    finally:
        node.destroy_node()


def test_an_image_that_is_not_answered_is_open(ros_environment: None) -> None:
    from ros2_densematch.live.ros_replay_gate import Counts

    assert Counts(received=9, processed=6, dropped=4, lost=1).open == 0
    assert Counts(received=9, processed=5, dropped=4, lost=1).open == 1


@pytest.mark.parametrize(("arguments", "code", "word"), [(["--help"], 0, "--recorded"), ([], 2, "--node")])
def test_arguments(
    ros_environment: None,
    arguments: list[str],
    code: int,
    word: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    from ros2_densematch.live import ros_replay_gate

    monkeypatch.setattr(sys, "argv", ["replay_gate", *arguments])
    with pytest.raises(SystemExit) as ended:
        ros_replay_gate.main()
    assert ended.value.code == code
    said = capsys.readouterr()
    assert word in said.out + said.err
