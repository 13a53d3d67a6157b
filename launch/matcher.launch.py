"""The matcher node beside a running camera.

ros2 launch densematch matcher.launch.py camera:=/camera/color image:=image_raw
ros2 launch densematch matcher.launch.py camera:=/camera depth:=aligned_depth/image_raw publish_tf:=true rviz:=true

`ros2 launch densematch matcher.launch.py --show-args` lists the arguments. An empty argument leaves the value to the
parameter file. The node configures and activates itself; with auto_activate:=false a lifecycle manager does.
"""

from pathlib import Path

from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument, OpaqueFunction
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import LifecycleNode, Node

CONFIG = Path(__file__).resolve().parent.parent / "config"

# argument -> (topic of the node, default, description); relative names are below `camera`
TOPICS = {
    "image": ("image", "image_raw", "image topic"),
    "camera_info": ("camera_info", "", "CameraInfo topic; empty: camera_info beside the image"),
    "depth": ("depth", "", "depth image registered to the image: metric scale; empty: none"),
    "depth_camera_info": ("depth/camera_info", "", "its CameraInfo; empty: camera_info beside the depth image"),
    "right_image": ("right/image", "", "right image of a rectified stereo pair: metric scale; empty: none"),
    "right_camera_info": ("right/camera_info", "", "its CameraInfo; empty: camera_info beside the right image"),
    "odometry": ("odometry", "", "metric odometry of the robot, an absolute name: metric scale; empty: none"),
}
CALIBRATIONS = {"image": "camera_info", "depth": "depth_camera_info", "right_image": "right_camera_info"}

# argument -> description; a value that is not empty goes before the parameter file
PARAMETERS = {
    "matcher": "matcher",
    "preset": "preset of the matcher: speed against accuracy",
    "device": "auto, cpu, cuda or cuda:N",
    "image_transport": "raw or compressed",
    "base_frame": "child frame of the odometry, as base_link",
    "odom_frame": "frame of the odometry",
    "publish_tf": "true: publish odom_frame -> base_frame while the scale is metric",
    "auto_activate": "false: a lifecycle manager configures and activates the node",
}
BOOLEAN = {"publish_tf", "auto_activate"}

OTHERS = {
    "camera": ("", "namespace of the camera's topics, as /camera/color; empty: that of the node"),
    "namespace": ("", "namespace of the node"),
    "name": ("matcher", "name of the node"),
    "config": (str(CONFIG / "matcher.yaml"), "ROS parameter file"),
    "use_sim_time": ("false", "true: time comes from /clock"),
    "log_level": ("info", "debug, info, warn or error"),
    "rviz": ("false", "true: start rviz2 with the package's layout"),
}


def topic_of(name, camera):
    """Full name of a camera's topic: absolute names stay, others are below the camera's namespace."""
    return name if name.startswith("/") or not camera else f"{camera.rstrip('/')}/{name}"


def truth_of(argument, value):
    """bool of a launch argument."""
    if value.lower() not in ("true", "false"):
        raise ValueError(f"{argument}:={value}: write true or false")
    return value.lower() == "true"


def remappings_of(values):
    """(topic of the node, topic of the camera) for every topic argument that is not empty."""
    given = {argument: values[argument] for argument in TOPICS}
    for image, info in CALIBRATIONS.items():
        folder, slash, _ = given[image].rpartition("/")
        if given[image] and not given[info]:
            given[info] = f"{folder}{slash}camera_info"
    return [(TOPICS[a][0], topic_of(topic, values["camera"])) for a, topic in given.items() if topic]


def parameters_of(values):
    """The parameters that were given as arguments, with their types."""
    given = {name: values[name] for name in PARAMETERS if values[name]}
    typed = {name: truth_of(name, value) if name in BOOLEAN else value for name, value in given.items()}
    return typed | {"use_sim_time": truth_of("use_sim_time", values["use_sim_time"])}


def _start(context):
    values = {name: LaunchConfiguration(name).perform(context) for name in (*OTHERS, *TOPICS, *PARAMETERS)}
    config = Path(values["config"]).expanduser()
    if not config.is_file():
        raise FileNotFoundError(f"there is no parameter file {config}: check config:=")
    parameters = parameters_of(values)
    node = LifecycleNode(
        package="densematch",
        executable="matcher",
        name=values["name"],
        namespace=values["namespace"],
        parameters=[str(config), parameters],
        remappings=remappings_of(values),
        ros_arguments=["--log-level", values["log_level"]],
        output="screen",
        emulate_tty=True,
    )
    if not truth_of("rviz", values["rviz"]):
        return [node]
    layout = ["-d", str(CONFIG / "densematch.rviz")]
    simulated = [{"use_sim_time": parameters["use_sim_time"]}]
    return [node, Node(package="rviz2", executable="rviz2", arguments=layout, parameters=simulated)]


def generate_launch_description():
    arguments = [
        *((name, default, text) for name, (default, text) in OTHERS.items()),
        *((name, default, text) for name, (_, default, text) in TOPICS.items()),
        *((name, "", f"{text}; empty: from the parameter file") for name, text in PARAMETERS.items()),
    ]
    return LaunchDescription(
        [
            *(DeclareLaunchArgument(name, default_value=value, description=text) for name, value, text in arguments),
            OpaqueFunction(function=_start),
        ]
    )
