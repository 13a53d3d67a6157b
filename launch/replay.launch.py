"""Replays a recording: ros2 launch densematch replay.launch.py bag:=PATH out:=DIR [image_topic:=...]."""

import sys

from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument, EmitEvent, ExecuteProcess, OpaqueFunction
from launch.events import Shutdown
from launch.substitutions import LaunchConfiguration

# argument of this file -> option of `densematch replay`; an empty value leaves the option out
OPTIONS = {
    "config": ("--config", "parameter file; empty: the one of the package"),
    "matcher": ("--matcher", "matcher; empty: the one that the configuration names"),
    "device": ("--device", "auto, cpu, cuda or cuda:N"),
    "image_topic": ("--image-topic", "image topic; empty: found by type"),
    "camera_info_topic": ("--camera-info-topic", "CameraInfo topic; empty: found beside the image topic"),
    "camera": ("--camera", "calibration, ROS camera_info YAML; goes before the bag's"),
    "depth_topic": ("--depth-topic", "depth image topic, makes the scale metric"),
    "right_image_topic": ("--right-image-topic", "right image of a stereo pair, makes the scale metric"),
    "odometry_topic": ("--odometry-topic", "odometry topic, makes the scale metric"),
    "ground_truth_topic": ("--ground-truth-topic", "pose topic to compare with"),
    "mask": ("--mask", "image file, 0 where nothing may be matched"),
}


def _replay(context):
    def value(name):
        return LaunchConfiguration(name).perform(context)

    command = [sys.executable, "-m", "ros2_densematch", "replay", value("bag"), "--out", value("out")]
    for argument, (option, _) in OPTIONS.items():
        if value(argument):
            command += [option, value(argument)]
    done = [EmitEvent(event=Shutdown(reason="the replay has ended"))]
    return [ExecuteProcess(cmd=command, output="screen", on_exit=done)]


def generate_launch_description():
    return LaunchDescription(
        [
            DeclareLaunchArgument("bag", description="rosbag2 folder or file, ROS 1 bag, video or image folder"),
            DeclareLaunchArgument("out", description="folder for the results"),
            *(
                DeclareLaunchArgument(argument, default_value="", description=f"{option}: {text}")
                for argument, (option, text) in OPTIONS.items()
            ),
            OpaqueFunction(function=_replay),
        ]
    )
