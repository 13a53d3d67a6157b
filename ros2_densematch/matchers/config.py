"""The configuration of a matcher: a frozen model with a range and a description for every option."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic.fields import FieldInfo

from ros2_densematch.deprecation import current_name

ConfigT = TypeVar("ConfigT", bound="MatcherConfig")


class MatcherConfig(BaseModel):
    """Base of the configuration of every matcher; a matcher without options uses it as it is.

    A field is an option: `load_matcher("gcm", min_score=0.2)`, `gcm.min_score` in YAML files, on the command line
    and as ROS parameter. Its range and its description (a full sentence) stand in the field and are shown everywhere.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True)


def chosen_config(
    name: str, presets: Mapping[str, ConfigT], preset: str, options: Mapping[str, Any] | None = None
) -> ConfigT:
    """A preset with single options replaced.

    Args:
        name: of the matcher, for messages.
        presets: preset -> configuration.
        preset: which one.
        options: field -> value; fields of nested models may be dotted (`sampling.threshold`). None keeps the preset's
            value, unless it is one that the field can have.

    Raises:
        ValueError: unknown preset or option, or a value out of range; the message names it, its value and the remedy.
    """
    if preset not in presets:
        raise ValueError(f"unknown preset {preset!r} of {name}: choose one of {', '.join(presets)}")
    base = presets[preset]
    values = {field: getattr(base, field) for field in type(base).model_fields}
    for option, value in (options or {}).items():
        field, _, rest = option.partition(".")
        field = current_name(field, values, f"the option of {name}")
        if field not in values or (rest and not isinstance(getattr(base, field), BaseModel)):
            near = difflib.get_close_matches(field, values, 1)
            known = f"did you mean {near[0]!r}?" if near else f"choose one of {', '.join(values) or 'none'}"
            raise ValueError(f"unknown option {option!r} of {name}: {known}")
        if value is not None or rest or type(None) in get_args(type(base).model_fields[field].annotation):
            values[field] = {**_fields(values[field]), rest: value} if rest else value
    try:
        return type(base).model_validate(values)
    except ValidationError as error:
        raise ValueError(f"{name}.{problem_of(error)}") from error


def option_fields(config: MatcherConfig) -> Iterator[tuple[str, FieldInfo, Any]]:
    """Every option of a configuration: its dotted name, its declaration and its value."""
    yield from _flat(config, "")


def _flat(model: BaseModel, prefix: str) -> Iterator[tuple[str, FieldInfo, Any]]:
    for name, info in type(model).model_fields.items():
        value = getattr(model, name)
        if isinstance(value, BaseModel):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield prefix + name, info, value


def _fields(model: Any) -> dict[str, Any]:
    return model if isinstance(model, dict) else {field: getattr(model, field) for field in type(model).model_fields}


def problem_of(error: ValidationError) -> str:
    """The first problem in one line: `name = value: what is wrong`."""
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"])
    text = first["msg"].removeprefix("Value error, ")
    given = first["input"]
    if isinstance(given, (Mapping, BaseModel)) and first["type"] == "value_error":
        return f"{where}: {text}".removeprefix(": ")  # several values together, which the text names
    return f"{where} = {given!r}: {text[:1].lower()}{text[1:]}" if where else text
