"""Names that were changed: the old one works for one more version and warns."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Container
from typing import ParamSpec, TypeVar

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")

_OLD, _NEW = "least_", "min_"


def current_name(name: str, known: Container[str], what: str, *, warn: bool = True) -> str:
    """The present name of an option or a parameter.

    Args:
        name: as the user wrote it, maybe with the former prefix `least_`.
        known: the present names.
        what: the kind of name, for the warning.
        warn: false where the user has been told already.

    Returns:
        `name` itself, unless only its present form is known.
    """
    *groups, last = name.split(".")
    present = ".".join([*groups, _NEW + last.removeprefix(_OLD)]) if last.startswith(_OLD) else name
    if name in known or present not in known:
        return name
    if warn:
        _warn(what, name, present)
    return present


def former_name(name: str) -> str | None:
    """The name that an option or a parameter had before, None where it has not changed its prefix."""
    *groups, last = name.split(".")
    return ".".join([*groups, _OLD + last.removeprefix(_NEW)]) if last.startswith(_NEW) else None


def renamed(**arguments: str) -> Callable[[Callable[Arguments, Result]], Callable[Arguments, Result]]:
    """Lets a function be called by former argument names, given as `former="present"`."""

    def decorate(function: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
        @functools.wraps(function)
        def call(*given: Arguments.args, **named: Arguments.kwargs) -> Result:
            for former, present in arguments.items():
                if former in named and present in named:
                    raise TypeError(f"{function.__name__}() got both {former!r} and {present!r}, its present name")
                if former in named:
                    _warn("argument", former, present)
                    named[present] = named.pop(former)
            return function(*given, **named)

        return call

    return decorate


def _warn(what: str, former: str, present: str) -> None:
    message = f"{what} {former!r} is now called {present!r}; the old name will stop working in the next version"
    warnings.warn(message, FutureWarning, stacklevel=4)
