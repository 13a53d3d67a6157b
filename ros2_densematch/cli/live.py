"""`densematch live`: the matcher node, where rclpy and our messages are there."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Annotated

import typer

from ros2_densematch.cli.errors import InputError
from ros2_densematch.cli.options import (
    BackendOption,
    ConfigOption,
    DeviceOption,
    MatcherOption,
    PresetOption,
    SetOption,
    WeightsOption,
    configured,
)

# the node's parameter that says which topic an optional input has
_PARAMETERS = {"depth": "depth_topic", "right/image": "right_image_topic", "odometry": "odometry_topic"}


def command(
    context: typer.Context,
    *,
    config: ConfigOption = None,
    matcher: MatcherOption = None,
    preset: PresetOption = None,
    device: DeviceOption = None,
    backend: BackendOption = None,
    weights: WeightsOption = None,
    assignments: SetOption = None,
    image_topic: Annotated[str | None, typer.Option("--image-topic", help="Topic of the images (image).")] = None,
    camera_info_topic: Annotated[
        str | None,
        typer.Option(
            "--camera-info-topic", help="Topic of the images' CameraInfo (default: camera_info next to --image-topic)."
        ),
    ] = None,
    depth_topic: Annotated[str | None, typer.Option("--depth-topic", help="Depth registered to the images.")] = None,
    right_image_topic: Annotated[
        str | None, typer.Option("--right-image-topic", help="Right images of a rectified stereo pair.")
    ] = None,
    odometry_topic: Annotated[str | None, typer.Option("--odometry-topic", help="Metric odometry.")] = None,
    mask: Annotated[
        Path | None, typer.Option("--mask", help="Image of the frames' size; black pixels are not matched.")
    ] = None,
) -> int:
    """Run the ROS 2 node `matcher` until Ctrl-C. What follows --ros-args (remaps, -p, --params-file) goes to ROS."""
    from ros2_densematch.configuration import configuration_from, values_of

    configuration = configured(config, matcher, preset, device, weights, assignments, backend=backend)
    if mask is not None:
        if not mask.is_file():
            raise InputError(f"there is no mask {mask}: check --mask")
        configuration = configuration_from({**values_of(configuration), "mask": str(mask)}, "the command line")
    topics = {
        "image": image_topic,
        "camera_info": camera_info_topic,
        "depth": depth_topic,
        "right/image": right_image_topic,
        "odometry": odometry_topic,
    }
    arguments = ros_arguments(topics, context.obj or [])
    import_module("densematch.msg")  # the node would only say so later
    from ros2_densematch.live.ros_main import run

    return run(configuration, arguments)


def ros_arguments(topics: dict[str, str | None], given: list[str]) -> list[str]:
    """The arguments for rclpy: the named topics, with the CameraInfo beside the images, after `given`.

    Optional inputs become parameters, because a remapping to the input's own name could not be told from none.

    Args:
        topics: input of the node -> topic, None where none was named.
        given: what the user wrote from --ros-args on; its remappings come first, so that they win.
    """
    named = {name: topic for name, topic in topics.items() if topic is not None}
    if "image" in named and "camera_info" not in named:
        folder = named["image"].rpartition("/")[0]
        named["camera_info"] = f"{folder}/camera_info" if folder else "camera_info"
    rules = [
        word
        for name, topic in named.items()
        for word in (("-p", f"{_PARAMETERS[name]}:={topic}") if name in _PARAMETERS else ("-r", f"{name}:={topic}"))
    ]
    return [*given, "--ros-args", *rules] if rules else list(given)
