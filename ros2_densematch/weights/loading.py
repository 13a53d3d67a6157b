"""Reads weights files without unpickling, with errors that say what does not fit."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor, nn


def read_state(path: Path) -> dict[str, Tensor]:
    """Tensors of a safetensors file, on the CPU.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not a safetensors file, or one with numbers that are not finite.
    """
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if not path.is_file():
        raise FileNotFoundError(f"no weights file {path}: give the path of a safetensors file")
    try:
        state = dict(load_file(str(path), device="cpu"))
    except SafetensorError as error:
        raise ValueError(
            f"{path} is not a safetensors file ({error}): give one written by `densematch train`"
        ) from error
    if bad := sorted(key for key, value in state.items() if not bool(torch.isfinite(value).all())):
        raise ValueError(f"{path} is damaged: not finite: {_names(bad)}; copy it again, or train again")
    return state


def stated_licence(path: Path) -> str:
    """The licence that a weights file names in its metadata, or that it names none."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(path), framework="np") as file:
            return str((file.metadata() or {}).get("licence", "not stated in the file"))
    except SafetensorError:
        return "not stated in the file"


def _names(keys: list[str], most: int = 5) -> str:
    """The first keys, separated by commas."""
    return ", ".join(keys[:most]) + (", ..." if len(keys) > most else "")


def check_keys(module: nn.Module, shapes: Mapping[str, tuple[int, ...]], path: Path) -> None:
    """Compares keys and shapes with the module's.

    Raises:
        ValueError: keys are missing, unknown or of another shape; the message lists them.
    """
    own = {key: tuple(value.shape) for key, value in module.state_dict().items()}
    missing = sorted(own.keys() - shapes.keys())
    unknown = sorted(shapes.keys() - own.keys())
    misshapen = sorted(k for k in own.keys() & shapes.keys() if own[k] != tuple(shapes[k]))
    if missing or unknown or misshapen:
        parts = [
            f"{len(keys)} {what} ({_names(keys)})"
            for what, keys in (("missing", missing), ("unknown", unknown), ("of another shape", misshapen))
            if keys
        ]
        raise ValueError(f"{path} does not fit {type(module).__name__}: keys {'; '.join(parts)}")


def load_exactly(module: nn.Module, state: dict[str, Tensor], path: Path) -> None:
    """Loads a state whose keys and shapes must be the module's.

    Raises:
        ValueError: keys are missing, unknown or of another shape; the message lists them.
    """
    check_keys(module, {key: tuple(value.shape) for key, value in state.items()}, path)
    # a module that was built without memory takes the tensors themselves
    module.load_state_dict(state, strict=True, assign=any(p.is_meta for p in module.parameters()))
