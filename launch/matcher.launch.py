"""The matcher node beside a running camera.

ros2 launch densematch matcher.launch.py camera:=/camera/color image:=image_raw
ros2 launch densematch matcher.launch.py camera:=/camera depth:=aligned_depth/image_raw publish_tf:=true rviz:=true

`ros2 launch densematch matcher.launch.py --show-args` lists the arguments: one for each topic and for each parameter of
the node without a dot in its name. An empty argument leaves the value to the parameter file. Other parameters:
params:="{tracker.min_inliers: 30}". The node configures and activates itself; with auto_activate:=false a lifecycle
manager does.
"""

import difflib
import json
from pathlib import Path

import yaml
from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument, OpaqueFunction
from launch.logging import get_logger
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import LifecycleNode, Node

CONFIG = Path(__file__).resolve().parent.parent / "config"

# argument -> (topic of the node, default, description); relative names are below `camera`
TOPICS = {
    "image": ("image", "image_raw", "The topic of the camera's images."),
    "camera_info": (
        "camera_info",
        "",
        "The topic of the camera's calibration; if empty, camera_info next to the image.",
    ),
    "depth": (
        "depth",
        "",
        "The topic of depth images registered to the image; they give metric scale. If empty, none are used.",
    ),
    "depth_camera_info": (
        "depth/camera_info",
        "",
        "The topic of the depth camera's calibration; if empty, camera_info next to the depth image.",
    ),
    "right_image": (
        "right/image",
        "",
        "The topic of the right images of a rectified stereo pair; they give metric scale. If empty, none are used.",
    ),
    "right_camera_info": (
        "right/camera_info",
        "",
        "The topic of the right camera's calibration; if empty, camera_info next to the right image.",
    ),
    "odometry": (
        "odometry",
        "",
        "The topic of the robot's metric odometry (an absolute name); it gives metric scale. If empty, none is used.",
    ),
}
CALIBRATIONS = {"image": "camera_info", "depth": "depth_camera_info", "right_image": "right_camera_info"}

# name -> {kind, description} of the node's parameters without a dot: parameters.json, which is made from the node's own
# declarations (python -m ros2_densematch.live.reference). A parameter that a topic argument sets has no argument.
PARAMETERS = json.loads((Path(__file__).resolve().parent / "parameters.json").read_text("utf-8"))
NAMED_BY = {"depth": "depth_topic", "right_image": "right_image_topic", "odometry": "odometry_topic"}
ARGUMENTS = {name: entry for name, entry in PARAMETERS.items() if name not in NAMED_BY.values()}
KINDS = {"bool": bool, "integer": int, "double": float, "string": str}

OTHERS = {
    "camera": ("", "The namespace of the camera's topics, for example /camera/color; if empty, that of the node."),
    "namespace": ("", "The namespace of the node."),
    "name": ("matcher", "The name of the node."),
    "config": (str(CONFIG / "matcher.yaml"), "The ROS parameter file to read."),
    "params": ("{}", "Additional parameters, for example {tracker.min_inliers: 30}."),
    "use_sim_time": ("false", "If true, time comes from /clock."),
    "log_level": ("info", "The lowest level that the node logs: debug, info, warn or error."),
    "rviz": ("false", "If true, rviz2 starts with the package's layout."),
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


def parameter_of(name, value):
    """The value of a parameter's argument in its type."""
    kind = ARGUMENTS[name]["kind"]
    if kind == "bool":
        return truth_of(name, value)
    try:
        return KINDS[kind](value)
    except ValueError:
        raise ValueError(f"{name}:={value}: write a number ({kind})") from None


def more_parameters(text):
    """The parameters of params:=, flat."""
    try:
        found = yaml.safe_load(text)
    except yaml.YAMLError:
        found = None
    if not isinstance(found, dict) or any(isinstance(value, (dict, list)) for value in found.values()):
        raise ValueError(f'params:={text}: write names and values, for example params:="{{tracker.min_inliers: 30}}"')
    return found


def parameters_of(values):
    """The parameters that were given as arguments, with their types."""
    given = {name: parameter_of(name, values[name]) for name in ARGUMENTS if values[name]}
    # the inputs of the node by their own names: the remappings say which topics these are
    named = {parameter: TOPICS[a][0] for a, parameter in NAMED_BY.items() if values[a]}
    common = {"use_sim_time": truth_of("use_sim_time", values["use_sim_time"])}
    return more_parameters(values["params"]) | given | named | common


def near_misses(given):
    """A warning for every argument that looks misspelt; others may belong to a file that includes this one."""
    known = [*OTHERS, *TOPICS, *ARGUMENTS]
    found = []
    for name in sorted(set(given) - set(known)):
        near = difflib.get_close_matches(name, known, 1, 0.8)
        if near:
            found.append(f"the argument {name} is unknown and has no effect: did you mean {near[0]}?")
    return found


def _start(context):
    values = {name: LaunchConfiguration(name).perform(context) for name in (*OTHERS, *TOPICS, *ARGUMENTS)}
    for warning in near_misses(context.launch_configurations):
        get_logger("densematch").warning(warning)
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
        *(
            (name, "", f"{p['description']} If the argument is empty, the parameter file decides.")
            for name, p in ARGUMENTS.items()
        ),
    ]
    return LaunchDescription(
        [
            *(DeclareLaunchArgument(name, default_value=value, description=text) for name, value, text in arguments),
            OpaqueFunction(function=_start),
        ]
    )
