"""Runs the node in this process until it is asked to end."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.lifecycle import TransitionCallbackReturn
from rclpy.signals import SignalHandlerOptions

from ros2_densematch.configuration import Configuration
from ros2_densematch.live.ending import Ending
from ros2_densematch.live.ros_node import MatcherNode
from ros2_densematch.processor import limit_threads, lower_priority

_WAKE_S = 0.2  # how often the loop looks whether a signal came


def run(configuration: Configuration, arguments: Sequence[str] = ()) -> int:
    """Runs the node until SIGINT or SIGTERM, then ends it in order: the image in work is finished, all is freed.

    A second signal changes nothing, a third ends the process at once (`Ending`).

    Args:
        configuration: defaults of the parameters.
        arguments: of rclpy, beginning with --ros-args.

    Returns:
        0.

    Raises:
        ValueError: an argument or parameter is wrong, or the matcher cannot be loaded; one line.
        ModuleNotFoundError: a package is missing.
    """
    with Ending() as ending:
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
                if not ending.asked:
                    _must_succeed(node.trigger_activate(), node)
            while not ending.asked and rclpy.ok():
                executor.spin_once(timeout_sec=_WAKE_S)
        finally:
            if node is not None:
                node.close()
            executor.shutdown()
            if node is not None:
                node.destroy_node()
            rclpy.try_shutdown()
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
