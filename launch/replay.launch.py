"""Plays a bag next to the matcher node and records what the node publishes.

ros2 launch densematch replay.launch.py bag:=PATH out:=DIR camera:=/camera/color image:=image_raw

Time is that of the bag (/clock). The player starts paused and goes on when the node is active and everything listens,
so that the bag is played whole; when the node has answered for the last image everything ends. Frames that come faster
than the node matches them are dropped and counted, as on the robot; `densematch replay` matches every frame, without
ROS. All other arguments are those of matcher.launch.py.
"""

import importlib.util
from pathlib import Path

from launch import LaunchDescription
from launch.actions import (
    DeclareLaunchArgument,
    EmitEvent,
    ExecuteProcess,
    IncludeLaunchDescription,
    OpaqueFunction,
    TimerAction,
)
from launch.events import Shutdown
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node

MATCHER = Path(__file__).resolve().parent / "matcher.launch.py"
OUTPUTS = ("correspondences", "relative_pose", "odometry", "pose", "map_pose", "keyframe", "status")

ARGUMENTS = {
    "bag": (None, "The rosbag2 folder or file to play."),
    "out": (None, "The folder for the new bag; it must not exist."),
    "rate": ("1.0", "The playback speed as a multiple of the recording's speed."),
    "storage": ("mcap", "The storage format of the new bag: mcap or sqlite3."),
    "patience_s": (
        "120",
        "The seconds within which the node must be active and subscribed; otherwise the launch ends.",
    ),
    "settle_s": ("60", "The seconds that the node has after the end of the bag to process its remaining images."),
    "namespace": ("", "The namespace of the node."),
    "name": ("matcher", "The name of the node."),
}


def full_name(name, namespace):
    """Full name of a topic or node in a namespace."""
    return name if name.startswith("/") else f"{'/' + namespace.strip('/') if namespace.strip('/') else ''}/{name}"


def matcher_module():
    """The launch file of the node: its arguments say which topics it listens to."""
    spec = importlib.util.spec_from_file_location("matcher_launch", MATCHER)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def played_topics(given, namespace):
    """Full names of the topics that the node listens to, by the arguments that were given for it."""
    matcher = matcher_module()
    defaults = {name: default for name, (default, _) in matcher.OTHERS.items()}
    defaults |= {name: default for name, (_, default, _) in matcher.TOPICS.items()}
    remappings = matcher.remappings_of(defaults | {name: given[name] for name in defaults if name in given})
    return [full_name(topic, namespace) for _, topic in remappings]


def recorded_topics(namespace, name):
    """Full names of the topics to record."""
    node = full_name(name, namespace)
    return [*(f"{node}/{output}" for output in OUTPUTS), "/diagnostics", "/tf", "/tf_static"]


def play_command(bag, rate):
    return ["ros2", "bag", "play", bag, "--clock", "100", "--rate", rate, "--start-paused"]


def record_command(out, storage, topics):
    return ["ros2", "bag", "record", "--use-sim-time", "--storage", storage, "--output", out, *topics]


def gate_arguments(node, played, patience_s, settle_s):
    """Of the executable that resumes the player when everything listens, and ends when every image is answered."""
    topics = [word for topic in played for word in ("--topic", topic)]
    recorded = [word for output in OUTPUTS for word in ("--recorded", f"{node}/{output}")]
    return ["--node", node, *topics, *recorded, "--wait-s", patience_s, "--settle-s", settle_s]


def _start(context):
    values = {name: LaunchConfiguration(name).perform(context) for name in ARGUMENTS}
    if not Path(values["bag"]).expanduser().exists():
        raise FileNotFoundError(f"there is no bag {values['bag']}: check bag:=")
    if Path(values["out"]).expanduser().exists():
        raise FileExistsError(f"{values['out']} exists: choose another folder with out:=")
    topics = recorded_topics(values["namespace"], values["name"])
    out = str(Path(values["out"]).expanduser())
    recorder = ExecuteProcess(cmd=record_command(out, values["storage"], topics), output="screen")
    command = play_command(str(Path(values["bag"]).expanduser()), values["rate"])

    def failed(event, _context):
        if event.returncode == 0:
            return []
        # what has been played is still answered; the gate ends all before that
        reason = f"the player ended with code {event.returncode}"
        return [TimerAction(period=float(values["settle_s"]), actions=[EmitEvent(event=Shutdown(reason=reason))])]

    player = ExecuteProcess(cmd=command, output="screen", on_exit=failed)

    def ended(event, _context):
        reason = "the bag has been played" if event.returncode == 0 else "it was given up: see replay_gate above"
        return [EmitEvent(event=Shutdown(reason=reason))]

    node = full_name(values["name"], values["namespace"])
    played = played_topics(context.launch_configurations, values["namespace"])
    gate = Node(
        package="densematch",
        executable="replay_gate",
        arguments=gate_arguments(node, played, values["patience_s"], values["settle_s"]),
        output="screen",
        on_exit=ended,
    )
    return [
        recorder,
        player,
        IncludeLaunchDescription(
            PythonLaunchDescriptionSource(str(MATCHER)), launch_arguments={"use_sim_time": "true"}.items()
        ),
        gate,
    ]


def generate_launch_description():
    return LaunchDescription(
        [
            *(
                DeclareLaunchArgument(name, description=text)
                if value is None
                else DeclareLaunchArgument(name, default_value=value, description=text)
                for name, (value, text) in ARGUMENTS.items()
            ),
            OpaqueFunction(function=_start),
        ]
    )
