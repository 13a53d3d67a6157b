"""Runs the node in this process until it is asked to end."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence
from types import FrameType
from typing import Any

import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.lifecycle import TransitionCallbackReturn
from rclpy.signals import SignalHandlerOptions

from ros2_densematch.configuration import Configuration
from ros2_densematch.live.ros_node import MatcherNode
from ros2_densematch.processor import limit_threads, lower_priority

_WAKE_S = 0.2  # how often the loop looks whether a signal came


def run(configuration: Configuration, arguments: Sequence[str] = ()) -> int:
    """Runs the node until SIGINT or SIGTERM, then ends it in order: the image in work is finished, all is freed.

    A second signal changes nothing, a third ends the process at once. After that both signals are ignored, for the
    process is ending.

    Args:
        configuration: defaults of the parameters.
        arguments: of rclpy, beginning with --ros-args.

    Returns:
        0.

    Raises:
        ValueError: an argument or parameter is wrong, or the matcher cannot be loaded; one line.
        ModuleNotFoundError: a package is missing.
    """
    asked: list[int] = []

    def ask(number: int, _frame: FrameType | None) -> None:
        # An exception here could strike in the middle of the middleware's own ending: the process would abort.
        asked.append(number)
        if len(asked) == 2:
            print("already ending: the image in work is being finished; once more ends at once", file=sys.stderr)
        if len(asked) > 2:
            os._exit(128 + number)

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        _initialise(arguments)
        node: Any = None
        executor = SingleThreadedExecutor()
        try:
            node = MatcherNode(configuration)
            if node.settings.threads:
                limit_threads(node.settings.threads)
            lower_priority(node.settings.nice)
            executor.add_node(node)
            if node.settings.auto_activate:
                _must_succeed(node.trigger_configure(), node)
                if not asked:
                    _must_succeed(node.trigger_activate(), node)
            while not asked and rclpy.ok():
                executor.spin_once(timeout_sec=_WAKE_S)
        finally:
            if node is not None:
                node.close()
            executor.shutdown()
            if node is not None:
                node.destroy_node()
            rclpy.try_shutdown()
    finally:
        # Who was asked to end goes on ending: interpreter and libraries free much, without Python's handlers, and a
        # second signal, as launch sends it after five seconds, must not strike there.
        for number, handler in before.items():
            signal.signal(number, signal.SIG_IGN if asked else handler)
    return 0


def _initialise(arguments: Sequence[str]) -> None:
    try:
        rclpy.init(args=["densematch", *arguments], signal_handler_options=SignalHandlerOptions.NO)
    except Exception as error:
        if type(error).__module__.startswith("rclpy") or isinstance(error, RuntimeError):
            raise ValueError(f"ROS arguments {' '.join(arguments)}: {' '.join(str(error).split())}") from error
        raise


def _must_succeed(outcome: Any, node: MatcherNode) -> None:
    if outcome != TransitionCallbackReturn.SUCCESS:
        raise ValueError(node.problem or "the node could not be activated: see the messages above")
