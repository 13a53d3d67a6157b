"""Holds a paused player of bags until the node listens, and waits until the node has answered for what was played.

    replay_gate --node /matcher --topic /camera/color/image_raw --recorded /matcher/status

replay.launch.py starts it beside a player that was started paused, and ends when it ends: so nothing is lost at the
bag's beginning, and nothing at its end. It ends with 0 when every image that was played is processed or dropped.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import rclpy
from rclpy.executors import ExternalShutdownException
from rclpy.utilities import remove_ros_args

from ros2_densematch.live.ros_graph import ros_type
from ros2_densematch.live.topics import DIAGNOSTICS

_ACTIVE = "active"
_TRANSPORTS = ("", "/compressed", "/compressedDepth")  # under which a topic of images may be played
_LOOK_S = 0.1
_ANSWER_S = 5.0
_COUNTS = ("images_received", "images_processed", "images_dropped", "dropped.lost_before_the_node")


@dataclass(frozen=True)
class Counts:
    """What became of the node's images so far; `dropped` includes `lost`, `received` does not."""

    received: int
    processed: int
    dropped: int
    lost: int

    @property
    def open(self) -> int:
        """Images that are neither processed nor dropped yet."""
        return self.received + self.lost - self.processed - self.dropped


class ReplayGate:
    """What is waited for.

    Args:
        node: an rclpy node.
        matcher: full name of the node that is to be active.
        topics: full names of what is played for it: each needs a publisher and a subscription, whatever its transport.
        recorded: full names of what is recorded: each needs a subscription.
        stop_at: `time.monotonic` at which it is given up.
    """

    def __init__(self, node: Any, matcher: str, topics: list[str], recorded: list[str], stop_at: float) -> None:
        self._node, self._matcher, self._stop_at = node, matcher, stop_at
        self._topics, self._recorded = topics, recorded
        self._counts: list[Counts] = []  # of every message on /diagnostics, the last two
        node.create_subscription(ros_type(DIAGNOSTICS.type), DIAGNOSTICS.name, self._diagnosed, 10)

    def missing(self) -> str:
        """What is not there yet, in words; "" when all is."""
        if self._state() != _ACTIVE:
            return f"{self._matcher} is not active"
        for topic in self._topics:
            if not any(self._node.count_subscribers(name) for name in self._played(topic)):
                return f"{topic} is not played, or {self._matcher} is not subscribed to it"
        for topic in self._recorded:
            if not self._node.count_subscribers(topic):
                return f"nobody records {topic}"
        return ""

    def wait(self) -> str:
        """Until nothing is missing; otherwise what still is, when it is given up."""
        while missing := self.missing():
            if time.monotonic() > self._stop_at:
                return missing
            time.sleep(_LOOK_S)
        return ""

    def resume(self, player: str) -> str:
        """Lets the player go on; "" or why that failed."""
        done = self._call(f"{player}/resume", "rosbag2_interfaces/srv/Resume", lambda kind: kind.Request())
        return "" if done is not None else f"{player}/resume does not answer: is the player of this bag running?"

    def finish(self, settle_s: float) -> str:
        """Until the bag has been played and the node has answered for every image; "" or what is still open.

        Args:
            settle_s: it is given up this many seconds after the end of the bag.
        """
        while any(self._played(topic) for topic in self._topics):
            self._listen()
        self._counts.clear()  # what was counted before says nothing about the last images
        stop_at = time.monotonic() + settle_s
        # two alike: the last status is sent a moment after its image is counted
        while len(self._counts) < 2 or self._counts[-1] != self._counts[-2] or self._counts[-1].open:
            if time.monotonic() > stop_at:
                counts = self._counts[-1] if self._counts else None
                return (
                    f"{counts.open} images have no status yet" if counts else f"{self._matcher} sends no /diagnostics"
                )
            self._listen()
        return ""

    def _played(self, topic: str) -> list[str]:
        """The names under which a topic has a publisher now."""
        return [name for t in _TRANSPORTS if self._node.count_publishers(name := topic + t)]

    def _listen(self) -> None:
        rclpy.spin_once(self._node, timeout_sec=_LOOK_S)

    def _diagnosed(self, message: Any) -> None:
        for status in message.status:
            values = {item.key: item.value for item in status.values}
            if status.name == f"{self._matcher}: matching" and all(name in values for name in _COUNTS):
                self._counts = [*self._counts, Counts(*(int(values[name]) for name in _COUNTS))][-2:]

    def _state(self) -> str:
        name, kind = f"{self._matcher}/get_state", "lifecycle_msgs/srv/GetState"
        answer = self._call(name, kind, lambda found: found.Request())
        return "" if answer is None else str(answer.current_state.label)

    def _call(self, service: str, kind: str, request: Callable[[Any], Any]) -> Any | None:
        found = ros_type(kind)
        client = self._node.create_client(found, service)
        try:
            if not client.wait_for_service(timeout_sec=1.0):
                return None
            future = client.call_async(request(found))
            rclpy.spin_until_future_complete(self._node, future, timeout_sec=_ANSWER_S)
            return future.result() if future.done() else None
        finally:
            self._node.destroy_client(client)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="replay_gate",
        description="Resumes a paused bag player when the node and the recorder are subscribed, and ends when the "
        "node has reported on every image.",
    )
    parser.add_argument("--node", required=True, help="full name of the node")
    parser.add_argument("--topic", action="append", default=[], help="full name of a topic that is played for the node")
    parser.add_argument("--recorded", action="append", default=[], help="full name of a topic that is recorded")
    parser.add_argument("--player", default="/rosbag2_player", help="full name of the player's node")
    parser.add_argument("--wait-s", type=float, default=120.0, help="seconds to wait for the node before giving up")
    parser.add_argument(
        "--settle-s", type=float, default=60.0, help="seconds to wait for the node after the end of the bag"
    )
    return parser


def main() -> int:
    """0 when the bag has been played and answered, 1 when it was given up, with the reason on stderr."""
    given = _parser().parse_args(remove_ros_args(args=sys.argv)[1:])
    rclpy.init(args=sys.argv)
    node = rclpy.create_node("replay_gate")
    try:
        gate = ReplayGate(node, given.node, given.topic, given.recorded, time.monotonic() + given.wait_s)
        problem = gate.wait() or gate.resume(given.player)
        if problem:
            problem = f"gave up after {given.wait_s:g} s: {problem}"
        else:
            problem = gate.finish(given.settle_s)
    except (KeyboardInterrupt, ExternalShutdownException):
        problem = "interrupted"
    finally:
        node.destroy_node()
        rclpy.try_shutdown()
    if problem:
        print(f"replay_gate: {problem}", file=sys.stderr)
    return 1 if problem else 0


if __name__ == "__main__":
    sys.exit(main())
