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
        peer.until(lambda: "nobody plays /image" in gate.missing(), "the active node")
        peer.publish("/image/compressed", camera.compressed(0))
        peer.publish("/camera_info", camera.info())
        peer.until(lambda: gate.missing() == "nobody records /matcher/status", "the inputs")
        peer.listen("/matcher/status", "densematch/msg/MatcherStatus")
        assert gate.wait() == ""
        late = ReplayGate(node, "/matcher", ["/depth"], [], time.monotonic())
        assert "nobody plays /depth" in late.wait()
    finally:
        node.destroy_node()


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
