"""Two cameras, one matcher node each: an example to copy.

ros2 launch densematch two_cameras.launch.py first:=/front/color second:=/rear/color

The nodes are /first/matcher and /second/matcher, with topics /first/matcher/relative_pose and so on. Neither publishes
TF: odom -> base_link can have one author only, and a filter that fuses both odometries is the one.
"""

from pathlib import Path

from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument, GroupAction, IncludeLaunchDescription
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration

MATCHER = Path(__file__).resolve().parent / "matcher.launch.py"
CAMERAS = {"first": "/front", "second": "/rear"}
SHARED = {
    "image": ("image_raw", "The topic of the images below each camera's namespace."),
    "config": (
        str(MATCHER.parent.parent / "config" / "matcher.yaml"),
        "The ROS parameter file for both nodes.",
    ),
    "device": ("", "The device of both nodes: auto, cpu, cuda or cuda:N; if empty, the parameter file decides."),
    "use_sim_time": ("false", "If true, time comes from /clock."),
}


def _matcher(camera):
    arguments = {"namespace": camera, "camera": LaunchConfiguration(camera), "publish_tf": "false"}
    arguments |= {name: LaunchConfiguration(name) for name in SHARED}
    include = IncludeLaunchDescription(
        PythonLaunchDescriptionSource(str(MATCHER)), launch_arguments=list(arguments.items())
    )
    # Scoped, so that the arguments of one node do not become those of the other.
    return GroupAction([include], scoped=True, forwarding=True)


def generate_launch_description():
    return LaunchDescription(
        [
            *(
                DeclareLaunchArgument(
                    name, default_value=topics, description=f"The namespace of the {name} camera's topics."
                )
                for name, topics in CAMERAS.items()
            ),
            *(
                DeclareLaunchArgument(name, default_value=value, description=text)
                for name, (value, text) in SHARED.items()
            ),
            *(_matcher(camera) for camera in CAMERAS),
        ]
    )
