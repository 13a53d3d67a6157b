"""The parameters of the node as data: types, ranges, descriptions, what may change; made from `Configuration`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, is_dataclass
from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel

from ros2_densematch.configuration import Configuration, configuration_from, descriptions, flatten, values_of

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
        low, high: inclusive range of a number (an open bound is given as it is; `checked` refuses the bound itself).
        choices: the words that a string may be; empty: any.
        read_only: cannot change while the node runs.
    """

    name: str
    kind: Kind
    default: bool | int | float | str
    description: str
    low: float | None = None
    high: float | None = None
    choices: tuple[str, ...] = ()
    read_only: bool = False


def declared(configuration: Configuration | None = None) -> list[Parameter]:
    """All parameters in the order of config/matcher.yaml, with the values of `configuration` as defaults."""
    return _of(configuration if configuration is not None else Configuration(), "")


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


def _of(model: Any, prefix: str) -> list[Parameter]:
    found: list[Parameter] = []
    for name, (text, value) in descriptions(model).items():
        if is_dataclass(value) or isinstance(value, BaseModel):
            found += _of(value, f"{prefix}{name}.")
            continue
        low = high = None
        choices: tuple[str, ...] = ()
        read_only = False
        if isinstance(model, BaseModel):
            info = type(model).model_fields[name]
            for limit in info.metadata:
                low = next((getattr(limit, k) for k in ("ge", "gt") if hasattr(limit, k)), low)
                high = next((getattr(limit, k) for k in ("le", "lt") if hasattr(limit, k)), high)
            if get_origin(info.annotation) is Literal:
                choices = get_args(info.annotation)
            extra = info.json_schema_extra
            read_only = isinstance(extra, dict) and bool(extra.get("read_only"))
        found.append(
            Parameter(
                name=prefix + name,
                kind=_KINDS[type(value)],
                default=value,
                description=text,
                low=low,
                high=high,
                choices=choices,
                read_only=read_only,
            )
        )
    return found
