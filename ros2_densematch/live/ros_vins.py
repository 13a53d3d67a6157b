"""Feature tracks for VINS-Fusion: ~/correspondences of the matcher in, /feature_tracker/feature out.

    ros2 run densematch vins_features --ros-args -r camera_info:=/camera/camera_info
    python -m ros2_densematch.live.ros_vins --ros-args -r camera_info:=/camera/camera_info

Parameters: the fields of `feature_tracks.TrackSettings`.
"""

from __future__ import annotations

import argparse
import sys
from array import array
from typing import Any

import numpy as np
import rclpy
from rclpy.node import Node
from rclpy.qos import QoSProfile, qos_profile_sensor_data
from rclpy.signals import SignalHandlerOptions
from rclpy.utilities import remove_ros_args

from ros2_densematch.geometry.camera import Camera
from ros2_densematch.live.ending import Ending
from ros2_densematch.live.feature_tracks import VINS_CHANNELS, Features, FeatureTracks, TrackSettings, vins_features
from ros2_densematch.live.parameters import parameters_of
from ros2_densematch.live.ros_graph import declare, ros_type
from ros2_densematch.messages.conversions import correspondences_from_message, inliers_from_message, time_ns

_WAKE_S = 0.2  # how often the loop looks whether a signal came


class VinsFeaturesNode(Node):  # type: ignore[misc]  # rclpy has no types
    """Follows the points of the matcher's correspondences and publishes them as VINS-Fusion reads them."""

    def __init__(self) -> None:
        super().__init__("vins_features")
        self._tracks = FeatureTracks(TrackSettings(**declare(self, parameters_of(TrackSettings()))))
        self._info: Any = None
        self._camera: Camera | None = None
        self._rectified = False
        self._previous: Features | None = None
        self._cloud, self._point = ros_type("sensor_msgs/msg/PointCloud"), ros_type("geometry_msgs/msg/Point32")
        self._channel = ros_type("sensor_msgs/msg/ChannelFloat32")
        self._out = self.create_publisher(self._cloud, "/feature_tracker/feature", QoSProfile(depth=100))
        self.create_subscription(
            ros_type("sensor_msgs/msg/CameraInfo"), "camera_info", self._calibrated, qos_profile_sensor_data
        )
        self.create_subscription(
            ros_type("densematch/msg/Correspondences"), "matcher/correspondences", self._matched, QoSProfile(depth=10)
        )

    def _calibrated(self, info: Any) -> None:
        self._info = info

    def _matched(self, message: Any) -> None:
        if self._info is None:
            topic = self.resolve_topic_name("camera_info")
            self.get_logger().warning(
                f"matches arrive, but no calibration on {topic}: remap camera_info", throttle_duration_sec=5.0
            )
            return
        if self._camera is None or self._rectified != message.rectified:
            self._rectified = bool(message.rectified)
            self._camera = Camera.from_camera_info(self._info, rectified=self._rectified)
        stamp = time_ns(message.header.stamp)
        if self._previous is not None and stamp <= self._previous.stamp_ns:  # a bag begun anew, or the simulation
            self._tracks.reset()
            self._previous = None
        matches = correspondences_from_message(message)
        features = self._tracks.update(matches, stamp, time_ns(message.reference_stamp), inliers_from_message(message))
        content = vins_features(features, self._camera, self._previous)
        self._previous = features
        cloud = self._cloud()
        cloud.header = message.header
        cloud.points = [self._point(x=float(x), y=float(y), z=1.0) for x, y, _ in content.points]
        cloud.channels = [
            self._channel(name=name, values=array("f", np.ascontiguousarray(values).tobytes()))
            for name, values in zip(VINS_CHANNELS, content.channels, strict=True)
        ]
        self._out.publish(cloud)


def _parser() -> argparse.ArgumentParser:
    rows = [f"  {p.name} ({p.kind}, {p.default}): {p.description}" for p in parameters_of(TrackSettings())]
    topics = "subscribed: matcher/correspondences, camera_info; published: /feature_tracker/feature"
    return argparse.ArgumentParser(
        prog="vins_features",
        usage="vins_features [--help] [--ros-args -r FROM:=TO -p NAME:=VALUE ...]",
        description="Feature tracks for VINS-Fusion, from the correspondences of the node matcher.",
        epilog="\n".join([topics, "", "parameters:", *rows]),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def main() -> int:
    """Runs until SIGINT or SIGTERM; --help says what it takes."""
    _parser().parse_args(remove_ros_args(args=sys.argv)[1:])
    with Ending() as ending:
        rclpy.init(args=sys.argv, signal_handler_options=SignalHandlerOptions.NO)
        node = VinsFeaturesNode()
        try:
            while not ending.asked and rclpy.ok():
                rclpy.spin_once(node, timeout_sec=_WAKE_S)
        finally:
            node.destroy_node()
            rclpy.try_shutdown()
    return 0


if __name__ == "__main__":
    sys.exit(main())
