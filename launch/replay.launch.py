"""Plays a bag next to the matcher node and records what the node publishes.

ros2 launch densematch replay.launch.py bag:=PATH out:=DIR camera:=/camera/color image:=image_raw

Time is that of the bag (/clock). The player starts when the node is active, and when it ends everything ends. Frames
that come faster than the node matches them are dropped and counted, as on the robot; `densematch replay` matches every
frame, without ROS. All other arguments are those of matcher.launch.py.
"""

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

MATCHER = Path(__file__).resolve().parent / "matcher.launch.py"
OUTPUTS = ("correspondences", "relative_pose", "odometry", "pose", "map_pose", "keyframe", "status")

ARGUMENTS = {
    "bag": (None, "This rosbag2 folder or file is played."),
    "out": (None, "The new bag is written to this folder, which must not exist."),
    "rate": ("1.0", "The player runs at this multiple of the recording's speed."),
    "storage": ("mcap", "The new bag has this storage: mcap or sqlite3."),
    "wait_s": ("120", "The node must be active within this many seconds, or all is given up."),
    "namespace": ("", "The node is in this namespace."),
    "name": ("matcher", "The node has this name."),
}


def recorded_topics(namespace, name):
    """Full names of the topics to record."""
    node = f"{'/' + namespace.strip('/') if namespace.strip('/') else ''}/{name}"
    return [*(f"{node}/{output}" for output in OUTPUTS), "/diagnostics", "/tf", "/tf_static"]


def play_command(bag, rate):
    return ["ros2", "bag", "play", bag, "--clock", "100", "--rate", rate]


def record_command(out, storage, topics):
    return ["ros2", "bag", "record", "--use-sim-time", "--storage", storage, "--output", out, *topics]


def wait_command(node, seconds):
    """Ends with 0 as soon as the node is active. A transition event may be sent before anybody can hear it; the state
    can be asked for at any time."""
    ask = 'ros2 lifecycle get --no-daemon --spin-time 1 "$0" 2>/dev/null | grep -q "^active"'
    loop = f'end=$(($(date +%s) + $1)); until {ask}; do [ "$(date +%s)" -lt "$end" ] || exit 1; sleep 0.5; done'
    return ["sh", "-c", loop, node, str(round(seconds))]


def _start(context):
    values = {name: LaunchConfiguration(name).perform(context) for name in ARGUMENTS}
    if not Path(values["bag"]).expanduser().exists():
        raise FileNotFoundError(f"there is no bag {values['bag']}: check bag:=")
    if Path(values["out"]).expanduser().exists():
        raise FileExistsError(f"{values['out']} exists: choose another folder with out:=")
    topics = recorded_topics(values["namespace"], values["name"])
    out = str(Path(values["out"]).expanduser())
    recorder = ExecuteProcess(cmd=record_command(out, values["storage"], topics), output="screen")
    # The node may still be matching the last image.
    ended = TimerAction(period=3.0, actions=[EmitEvent(event=Shutdown(reason="the bag has been played"))])
    player = ExecuteProcess(
        cmd=play_command(str(Path(values["bag"]).expanduser()), values["rate"]), output="screen", on_exit=[ended]
    )

    def waited(event, _context):
        if event.returncode == 0:
            return [player]
        return [EmitEvent(event=Shutdown(reason=f"the node did not become active within {values['wait_s']} s"))]

    node = topics[0].rpartition("/")[0]
    return [
        recorder,
        IncludeLaunchDescription(
            PythonLaunchDescriptionSource(str(MATCHER)), launch_arguments={"use_sim_time": "true"}.items()
        ),
        ExecuteProcess(cmd=wait_command(node, float(values["wait_s"])), output="log", on_exit=waited),
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
