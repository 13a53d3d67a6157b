"""The packages of the extra `onnx`, imported when something needs them."""

from __future__ import annotations

from importlib import import_module
from typing import Any

RUNTIME, FORMAT, WRITER = "onnxruntime", "onnx", "onnxscript"


class MissingPackage(ModuleNotFoundError):
    """A package of the extra is not installed; the message is one line with the command that gets it."""


def package(name: str) -> Any:
    """A module of the extra.

    Args:
        name: one of `RUNTIME`, `FORMAT` and `WRITER`.

    Raises:
        MissingPackage: it is not installed.
    """
    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        if error.name != name:
            raise
        raise MissingPackage(
            f"ONNX graphs need the Python package {name!r}: pip install {FORMAT} {RUNTIME} {WRITER} "
            '(in a clone: pip install ".[onnx]")',
            name=name,
        ) from None
