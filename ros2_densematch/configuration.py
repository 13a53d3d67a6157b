"""Settings of the matcher and the tracker: one model for the command line and for ROS parameter files.

A ROS parameter file looks like config/matcher.yaml::

    /**:
      ros__parameters:
        matcher: gcm
        tracker:
          min_inliers: 20
"""

from __future__ import annotations

import difflib
import textwrap
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import yaml
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError, field_validator
from pydantic.fields import FieldInfo

from ros2_densematch.files.shipped import shipped_parameters
from ros2_densematch.geometry import poses
from ros2_densematch.matchers.config import problem_of
from ros2_densematch.tracking.config import TrackerConfig

NODE_NAME = "matcher"
_OPTIONS = "options"


_FIXED: dict[str, JsonValue] = {"read_only": True}  # a ROS parameter that cannot change while the node runs


class MatchingSettings(BaseModel):
    """What live node and offline commands share."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    matcher: str = Field("gcm", description="Name of the matcher to use; `densematch doctor` lists all of them.")
    preset: str = Field(
        "base",
        description="The preset sets the balance of speed and accuracy; the page of each matcher lists its presets.",
    )
    device: str = Field(
        "auto",
        description="The network runs on this device: cpu, cuda or cuda:N; auto uses CUDA if it is available, "
        "otherwise the CPU.",
        pattern=r"^(auto|cpu|cuda(:\d+)?)$",
    )
    backend: Literal["torch", "onnx"] = Field(
        "torch",
        description="The network of the matchers gcm and condl runs in PyTorch (torch) or in ONNX Runtime with the "
        "best available execution provider (onnx); other matchers support torch only.",
    )
    weights: str = Field(
        "", description="The network's weights are read from this file; if empty, the shipped weights are used."
    )
    rectified: Literal["auto", "true", "false"] = Field(
        "auto",
        description="If true, the images are rectified: P is used and the distortion is ignored; auto decides by the "
        "name of the topic.",
    )
    tracker: TrackerConfig = Field(
        default_factory=TrackerConfig, description="These settings control keyframes and poses."
    )
    options: dict[str, dict[str, Any]] = Field(
        default_factory=dict,
        description="These options of matchers override the preset; they are written as `gcm.min_score`.",
    )

    @field_validator("rectified", mode="before")
    @classmethod
    def _yaml_bool(cls, value: Any) -> Any:
        return str(value).lower() if isinstance(value, bool) else value


class Configuration(MatchingSettings):
    """Everything that can be set; unknown names and values out of range are refused. The fields declared here are those
    of the live node alone."""

    auto_activate: bool = Field(
        True,
        description="If true, the node configures and activates itself at start; otherwise a lifecycle manager does.",
        json_schema_extra=_FIXED,
    )
    depth_topic: str = Field(
        "",
        description="Topic of depth images that are registered to the image; they give metric scale. If empty, depth "
        "is used only if `depth` is remapped.",
        json_schema_extra=_FIXED,
    )
    right_image_topic: str = Field(
        "",
        description="Topic of the right images of a rectified stereo pair; they give metric scale. If empty, they are "
        "used only if `right/image` is remapped.",
        json_schema_extra=_FIXED,
    )
    odometry_topic: str = Field(
        "",
        description="Topic of the robot's metric odometry; it gives metric scale. If empty, it is used only if "
        "`odometry` is remapped.",
        json_schema_extra=_FIXED,
    )
    threads: int = Field(
        0,
        ge=0,
        le=1024,
        description="PyTorch and OpenCV each use at most this many threads; 0 keeps their own defaults.",
        json_schema_extra=_FIXED,
    )
    nice: int = Field(
        0,
        ge=0,
        le=19,
        description="This value is added to the nice level of the node's process, which lowers its priority.",
        json_schema_extra=_FIXED,
    )
    image_transport: Literal["auto", "raw", "compressed"] = Field(
        "auto",
        description="The transport compressed uses <image>/compressed (JPEG or PNG), also for the right image; auto "
        "uses "
        "raw images if they are advertised, otherwise compressed ones.",
        json_schema_extra=_FIXED,
    )
    depth_transport: Literal["raw", "compressedDepth"] = Field(
        "raw",
        description="The transport compressedDepth uses <depth>/compressedDepth, raw the topic itself.",
        json_schema_extra=_FIXED,
    )
    image_reliability: Literal["best_effort", "reliable"] = Field(
        "best_effort",
        description="Image subscriptions use this reliability; reliable helps only on a lossy network and adds "
        "latency.",
        json_schema_extra=_FIXED,
    )
    odom_frame: str = Field(
        "odom",
        min_length=1,
        description="The messages on ~/odometry and ~/pose and the transform on /tf use this frame_id.",
        json_schema_extra=_FIXED,
    )
    base_frame: str = Field(
        "",
        description="The odometry and the transform describe this frame, for example base_link; base_from_camera or "
        "/tf_static must give the camera's pose in it. If empty, the topmost frame of the camera's own "
        "tree on /tf_static is used, or its optical frame if there is no tree.",
        json_schema_extra=_FIXED,
    )
    base_from_camera: str = Field(
        "",
        description="Pose of the camera's optical frame in base_frame, 'x y z qx qy qz qw' in metres; if empty, it is "
        "taken from /tf_static.",
    )
    tf_wait_s: float = Field(
        2.0,
        ge=0.0,
        le=60.0,
        description="After the first image, the node listens to /tf_static and /tf for this many seconds before it "
        "chooses the base and decides whether to publish its transform.",
        json_schema_extra=_FIXED,
    )
    publish_tf: bool = Field(
        False,
        description="If true, the transform from odom_frame to base_frame is published on /tf while the scale is "
        "metric.",
    )
    map_frame: str = Field(
        "map",
        min_length=1,
        description="The pose on ~/map_pose uses this frame_id; with publish_map_tf it is the parent of odom_frame.",
        json_schema_extra=_FIXED,
    )
    publish_map_tf: bool = Field(
        False,
        description="If true, the transform from map_frame to odom_frame is published on /tf; it holds the correction "
        "of the odometry by returns to known places.",
    )
    publish_unscaled_odometry: bool = Field(
        False,
        description="If true, ~/odometry, ~/pose and the transform are published even if the unit is arbitrary; use "
        "this for visual checks only.",
    )
    mask: str = Field(
        "",
        description="Image file of the frames' size; pixels that are 127 or darker (in a label image, 0) are not "
        "matched. If empty, all pixels are used.",
    )
    max_image_age_s: float = Field(
        0.0,
        ge=0.0,
        le=3600.0,
        description="Images that are older than this on arrival, in seconds, are dropped and counted; 0 keeps all.",
    )
    depth_tolerance_s: float = Field(
        0.02,
        ge=0.0,
        le=1.0,
        description="A depth image is paired with an image if their stamps differ by at most this, in seconds.",
    )
    stereo_tolerance_s: float = Field(
        0.005,
        ge=0.0,
        le=1.0,
        description="A right image is paired with a left one if their stamps differ by at most this, in seconds.",
    )
    sync_wait_s: float = Field(
        0.1,
        ge=0.0,
        le=2.0,
        description="An image waits at most this long, in seconds, for its CameraInfo, depth, right image and "
        "odometry; it is then processed without them.",
    )
    no_data_timeout_s: float = Field(
        5.0,
        ge=0.5,
        le=3600.0,
        description="An input that is silent for this long, in seconds, is reported with likely causes.",
    )
    diagnostics_period_s: float = Field(
        1.0,
        ge=0.1,
        le=60.0,
        description="Period of the messages on /diagnostics in seconds; it is independent of the image rate.",
        json_schema_extra=_FIXED,
    )

    @field_validator("base_from_camera")
    @classmethod
    def _seven_numbers(cls, value: str) -> str:
        if value.strip():
            pose_of_text(value)
        return value


def pose_of_text(text: str) -> NDArray[np.float64]:
    """The pose (4, 4) that 'x y z qx qy qz qw' (metres, unit quaternion) writes; commas are read as spaces.

    Raises:
        ValueError: not seven finite numbers, or the quaternion is not of length 1.
    """
    try:
        numbers = np.array([float(word) for word in text.replace(",", " ").split()])
    except ValueError:
        numbers = np.zeros(0)
    if numbers.shape != (7,) or not np.isfinite(numbers).all():
        raise ValueError(f"write seven numbers 'x y z qx qy qz qw', got {text!r}")
    if abs(float(np.linalg.norm(numbers[3:])) - 1.0) > 1e-2:
        raise ValueError(f"the quaternion of {text!r} does not have length 1")
    return poses.pose_from_quaternion(numbers[:3], numbers[3:])


def read_configuration(path: Path) -> Configuration:
    """Reads a ROS parameter file, or a plain YAML mapping of the same names; one that ships is found by its name.

    Sections for all nodes (``/**``) come first, those for the node `matcher` overrule them; sections of other nodes
    are left alone. Names may be nested or dotted (``tracker.min_inliers``).

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: not YAML, no parameters for this node, an unknown name or a value out of range.
    """
    path = shipped_parameters(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no configuration file {path}: check --config")
    try:
        content = yaml.safe_load(path.read_text("utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not a YAML file: {error}") from error
    if content is None:
        content = {}
    if not isinstance(content, dict):
        raise ValueError(
            f"{path} contains a {type(content).__name__} instead of a mapping of names to values: see "
            f"config/matcher.yaml"
        )
    return configuration_from(_parameters(content, path), str(path))


def configuration_from(values: Mapping[str, Any], origin: str = "the configuration") -> Configuration:
    """Checks values (nested or dotted names) and builds the configuration.

    Args:
        values: name -> value; what is absent keeps its default.
        origin: file or place that the values come from, for messages.

    Raises:
        ValueError: an unknown name (the nearest known one is suggested) or a value out of range.
    """
    flat, options = _split(dict(flatten(values)))
    known = parameter_names()
    for name in flat:
        if name not in known:
            near = difflib.get_close_matches(name, [*known, *option_names()], 1)
            remedy = f"did you mean {near[0]!r}?" if near else "see config/matcher.yaml for the names"
            raise ValueError(f"{origin}: unknown parameter {name!r}: {remedy}")
    nested: dict[str, Any] = {}
    for name, value in flat.items():
        *groups, last = name.split(".")
        level = nested
        for group in groups:
            level = level.setdefault(group, {})
        level[last] = value
    matcher, preset = str(nested.get("matcher", "gcm")), str(nested.get("preset", "base"))
    nested[_OPTIONS] = {
        name: _checked_options(name, given, preset if name == matcher else "base", origin)
        for name, given in options.items()
    }
    try:
        return Configuration(**nested)
    except ValidationError as error:
        raise ValueError(f"{origin}: {problem_of(error)}") from error


def _split(flat: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """Parameters, and the options of matchers: name -> option -> value."""
    from ros2_densematch.matchers.registry import list_matchers

    matchers = set(list_matchers())
    plain: dict[str, Any] = {}
    options: dict[str, dict[str, Any]] = {}
    for name, value in flat.items():
        matcher, _, option = name.partition(".")
        if option and matcher in matchers:
            options.setdefault(matcher, {})[option] = value
        else:
            plain[name] = value
    return plain, options


def _checked_options(matcher: str, given: Mapping[str, Any], preset: str, origin: str) -> dict[str, Any]:
    """The options that differ from the preset's; text is read as YAML where an option is no text."""
    from ros2_densematch.deprecation import current_name
    from ros2_densematch.matchers.config import chosen_config, option_fields
    from ros2_densematch.matchers.registry import presets_of

    presets = presets_of(matcher)
    usual = {name: value for name, _, value in option_fields(presets.get(preset, presets["base"]))}
    read = {
        name: yaml.safe_load(value) if isinstance(value, str) and not isinstance(usual.get(name, ""), str) else value
        for name, value in given.items()
    }
    try:
        chosen = chosen_config(matcher, presets, preset if preset in presets else "base", read)
    except ValueError as error:
        raise ValueError(f"{origin}: {error}") from error
    values = {name: value for name, _, value in option_fields(chosen)}
    asked = [current_name(name, values, f"the option of {matcher}", warn=False) for name in read]
    return {name: values[name] for name in asked if values[name] != usual[name]}


def option_names() -> list[str]:
    """The dotted names of all options of all matchers, as `gcm.min_score`."""
    from ros2_densematch.matchers.config import option_fields
    from ros2_densematch.matchers.registry import all_presets

    return [f"{m}.{name}" for m, presets in all_presets().items() for name, _, _ in option_fields(presets["base"])]


def parameter_names() -> list[str]:
    """All parameter names, dotted, in the order of the model."""
    return [name for name, _ in flatten(defaults())]


def defaults() -> dict[str, Any]:
    """The default of every parameter, nested."""
    return values_of(Configuration())


def values_of(model: BaseModel) -> dict[str, Any]:
    """Name -> value of a configuration or a group of it, nested."""
    found: dict[str, Any] = {}
    for name in type(model).model_fields:
        value = getattr(model, name)
        if name == _OPTIONS:
            found.update({matcher: dict(given) for matcher, given in value.items()})
        else:
            found[name] = values_of(value) if isinstance(value, BaseModel) else value
    return found


def declared_fields(model: BaseModel, prefix: str = "") -> Iterator[tuple[str, FieldInfo, Any]]:
    """Every parameter that is no option of a matcher: its dotted name, its declaration and its value."""
    for name, info in type(model).model_fields.items():
        value = getattr(model, name)
        if isinstance(value, BaseModel):
            yield from declared_fields(value, f"{prefix}{name}.")
        elif name != _OPTIONS:
            yield prefix + name, info, value


def parameter_file() -> str:
    """The text of config/matcher.yaml: every parameter with its description, range and default."""
    lines = [
        "# Parameters of densematch with their defaults: a ROS parameter file that the offline commands read too.",
        "# Unknown names and values out of range are refused, with the reason.",
        "# Written by: python -m ros2_densematch.configuration > config/matcher.yaml",
        "",
        "/**:",
        "  ros__parameters:",
        *_described(Configuration(), 4),
        *_described_options(Configuration().matcher, 4),
    ]
    return "\n".join(lines) + "\n"


def _described(model: BaseModel, indent: int) -> Iterator[str]:
    margin = " " * indent
    of_the_node = [name for name in type(model).model_fields if name not in MatchingSettings.model_fields]
    for name, info in type(model).model_fields.items():
        value = getattr(model, name)
        if name == _OPTIONS:
            continue
        if isinstance(model, Configuration) and name == of_the_node[0]:
            yield f"{margin}# The following parameters are for the live node only; offline commands ignore them."
        yield from _comment(info, margin, 118)
        if isinstance(value, BaseModel):
            yield f"{margin}{name}:"
            yield from _described(value, indent + 2)
        else:
            yield margin + yaml.safe_dump({name: value}, default_style=None).replace("''", '""').strip()


def _described_options(matcher: str, indent: int) -> Iterator[str]:
    """The options of a matcher as comments: a value that is written takes the place of that of every preset."""
    from ros2_densematch.matchers.config import option_fields
    from ros2_densematch.matchers.registry import presets_of

    margin = " " * indent
    yield f"{margin}# Options of the matcher, with the values of the preset base; set options override every preset."
    yield f"{margin}# Options of other matchers are written in the same way; docs/ros.md lists them."
    yield f"{margin}# {matcher}:"
    for name, info, value in option_fields(presets_of(matcher)["base"]):
        yield from _comment(info, f"{margin}#   ", 116)
        yield f"{margin}#   {yaml.safe_dump({name: value}).strip()}"


def _comment(info: FieldInfo, margin: str, width: int) -> Iterator[str]:
    """What a parameter means, and its range, in comment lines."""
    limits = limits_of(info)
    for line in textwrap.wrap(f"{info.description}{f' [{limits}]' if limits else ''}", width - len(margin)):
        yield f"{margin}# {line}"


def limits_of(info: FieldInfo) -> str:
    """The range of a number, open and closed bounds told apart, as `> 0.0, <= 10.0`; empty where there is none."""
    signs = (("ge", ">="), ("gt", ">"), ("le", "<="), ("lt", "<"))
    return ", ".join(
        f"{sign} {getattr(limit, key)}" for limit in info.metadata for key, sign in signs if hasattr(limit, key)
    )


def flatten(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from flatten(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _parameters(content: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """The parameters of this node from a ROS parameter file, flat; a file without node sections is taken as is."""
    sections = {key: value for key, value in content.items() if isinstance(value, dict) and "ros__parameters" in value}
    if not sections:
        return dict(flatten(content))
    ours = sorted((key for key in sections if _is_ours(str(key))), key=lambda key: "*" not in str(key))
    if not ours:
        raise ValueError(
            f"{path} has parameters only for {', '.join(map(str, sections))}: put those of this node under '/**' or "
            f"'{NODE_NAME}'"
        )
    merged: dict[str, Any] = {}
    for key in ours:
        merged.update(flatten(sections[key]["ros__parameters"] or {}))
    return merged


def _is_ours(section: str) -> bool:
    return section.rsplit("/", 1)[-1] in (NODE_NAME, "**", "*")


if __name__ == "__main__":
    print(parameter_file(), end="")
