"""The parameters of the node as data: types, ranges, descriptions, what may change; made from `Configuration`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from ros2_densematch.configuration import (
    Configuration,
    configuration_from,
    declared_fields,
    flatten,
    limits_of,
    values_of,
)
from ros2_densematch.matchers.config import chosen_config, option_fields
from ros2_densematch.matchers.registry import all_presets

Kind = Literal["bool", "integer", "double", "string"]
_KINDS: dict[type, Kind] = {bool: "bool", int: "integer", float: "double", str: "string"}


@dataclass(frozen=True)
class Parameter:
    """One ROS parameter.

    Attributes:
        name: dotted, as `tracker.min_inliers`.
        kind: its ROS type.
        default: its value where nobody sets it.
        description: one or two sentences.
        limits: the range in words, open and closed bounds told apart, as `> 0.0, <= 10.0`.
        low, high: inclusive range of a number (an open bound is given as it is; `checked` refuses the bound itself).
        choices: the words that a string may be; empty: any.
        read_only: cannot change while the node runs.
    """

    name: str
    kind: Kind
    default: bool | int | float | str
    description: str
    limits: str = ""
    low: float | None = None
    high: float | None = None
    choices: tuple[str, ...] = ()
    read_only: bool = False


def declared(configuration: Configuration | None = None) -> list[Parameter]:
    """All parameters in the order of config/matcher.yaml, then the options of all matchers.

    Args:
        configuration: its values are the defaults.
    """
    chosen = configuration if configuration is not None else Configuration()
    return plain(chosen) + options(chosen)


def plain(configuration: Configuration) -> list[Parameter]:
    """The parameters that are no options of a matcher."""
    return parameters_of(configuration)


def parameters_of(settings: BaseModel) -> list[Parameter]:
    """A parameter for every field of the settings, with their values as defaults."""
    return [_parameter(*field) for field in declared_fields(settings)]


def options(configuration: Configuration) -> list[Parameter]:
    """The options of all matchers, with the values of the chosen preset and of `configuration` as defaults.

    An option whose value is that of its preset follows the preset when that is changed.
    """
    found: list[Parameter] = []
    for matcher, presets in all_presets().items():
        preset = (
            configuration.preset if matcher == configuration.matcher and configuration.preset in presets else "base"
        )
        config = chosen_config(matcher, presets, preset, configuration.options.get(matcher))
        for name, info, value in option_fields(config):
            found.append(_parameter(f"{matcher}.{name}", info, value))
    return found


def checked(configuration: Configuration, changes: Mapping[str, Any]) -> Configuration:
    """The configuration with changed values.

    Args:
        configuration: as it is.
        changes: dotted name -> new value.

    Raises:
        ValueError: the reason in one line: an unknown name, a value out of range, or a parameter that is read-only.
    """
    known = {p.name: p for p in declared(configuration)}
    for name, value in changes.items():
        parameter = known.get(name)
        if parameter is not None and parameter.read_only and value != parameter.default:
            raise ValueError(f"{name} is read-only: set it when the node is started")
    return configuration_from({**dict(flatten(values_of(configuration))), **changes}, "parameter")


def _parameter(name: str, info: FieldInfo, value: Any) -> Parameter:
    low = high = None
    for limit in info.metadata:
        low = next((getattr(limit, k) for k in ("ge", "gt") if hasattr(limit, k)), low)
        high = next((getattr(limit, k) for k in ("le", "lt") if hasattr(limit, k)), high)
    choices = get_args(info.annotation) if get_origin(info.annotation) is Literal else ()
    extra = info.json_schema_extra
    read_only = isinstance(extra, dict) and bool(extra.get("read_only"))
    if type(value) not in _KINDS:
        # sizes, and what may be absent: as YAML in a string
        value = json.dumps(value)
    return Parameter(
        name=name,
        kind=_KINDS[type(value)],
        default=value,
        description=info.description or "",
        limits=limits_of(info),
        low=low,
        high=high,
        choices=choices,
        read_only=read_only,
    )
