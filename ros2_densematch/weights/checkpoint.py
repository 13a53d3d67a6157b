"""Reads the authors' checkpoint files: nothing is unpickled without a restriction, nothing is believed unchecked."""

from __future__ import annotations

import argparse
import pickle
import re
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

from ros2_densematch.weights.key_tables import Expected, key_table
from ros2_densematch.weights.official import Official

_LISTED = 5

Global: TypeAlias = "Callable[..., Any] | tuple[Callable[..., Any], str]"


def read_official(official: Official, path: Path) -> dict[str, Tensor]:
    """The tensors of an official checkpoint under its official key names, checked against the key table.

    Keys lose a leading "module." and Lua-era "vgg" becomes "model", as the authors' loaders do. Counters of batches may
    be missing (files of PyTorch 0.3) and are then zero. Floating-point tensors come out in float32.

    Args:
        official: what the file should be.
        path: the published file, or a safetensors file with the same keys.

    Raises:
        FileNotFoundError: no such file.
        ValueError: damaged, of another network, or asking for code; the message lists what does not fit.
    """
    found = official_tensors(official, path)
    table = next(table for table in map(key_table, official.key_tables) if not _complaint(found, table))
    state = {key: _value(found.get(key), expected) for key, expected in table.items()}
    bad = sorted(key for key, value in state.items() if not bool(torch.isfinite(value).all()))
    if bad:
        raise ValueError(f"{path} is damaged: not finite: {_list(bad)}")
    return state


def official_tensors(official: Official, path: Path, *, mapped: bool = False) -> dict[str, Tensor]:
    """The tensors of an official checkpoint under its official keys and in the file's own types, keys checked.

    Args:
        official: what the file should be.
        path: as for `read_official`.
        mapped: leave the numbers in the file until they are used.

    Raises:
        FileNotFoundError: no such file.
        ValueError: damaged, of another network, or asking for code; the message lists what does not fit.
    """
    found = _renamed(_tensors(read_container(path, inert=official.inert, mapped=mapped), official, path))
    found = {key: value for key, value in found.items() if not key.startswith(official.unused)}
    complaints = [_complaint(found, key_table(name)) for name in official.key_tables]
    if "" not in complaints:
        raise ValueError(f"{path} is not {official.name}: keys {complaints[0]}")
    return found


def _stand_in(*_: object) -> dict[Any, Any]:
    """Takes the place of a type that a checkpoint uses for its bookkeeping: keeps items, calls nothing."""
    return {}


def read_container(path: Path, *, inert: tuple[str, ...] = (), mapped: bool = False) -> Any:
    """What a checkpoint file holds: tensors, numbers, text, dictionaries, lists; no code is run.

    Pickles are read by PyTorch's restricted unpickler (`weights_only=True`), which knows tensors and plain containers.
    In addition argparse.Namespace and NumPy's array reconstruction are let through: old checkpoints keep their command
    line and their losses in them.

    Args:
        path: the file.
        inert: dotted names that get an empty stand-in instead of a refusal.
        mapped: leave the numbers in the file until they are used, where its format allows that.

    Raises:
        FileNotFoundError: no such file.
        ValueError: damaged, no checkpoint, or asking for anything else.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no weights file {path}: give the path of a checkpoint")
    if path.suffix == ".safetensors":
        from ros2_densematch.weights.loading import read_state

        return read_state(path)
    _refuse_compressed(path)
    try:
        allowed = [*_allowed(), *((_stand_in, name) for name in inert)]
        with torch.serialization.safe_globals(allowed):
            # files of PyTorch 1.5 and before are no archives, and cannot be mapped
            mapped = mapped and zipfile.is_zipfile(path)
            return torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except pickle.UnpicklingError as error:
        raise ValueError(
            f"{path} is refused: it contains more than tensors and plain values, or is damaged; nothing was executed "
            f"({_first_sentence(error)})"
        ) from error
    except Exception as error:  # damaged files fail anywhere inside the reader, with any type
        raise ValueError(
            f"{path} is not a checkpoint, or is damaged: fetch it again ({_first_sentence(error)})"
        ) from error


def _refuse_compressed(path: Path) -> None:
    """PyTorch stores its records as they are; compressed ones would unpack to any size before anything is checked."""
    with path.open("rb") as file:
        if file.read(2) != b"PK":
            return
    try:
        with zipfile.ZipFile(path) as archive:
            compressed = [entry.filename for entry in archive.infolist() if entry.compress_type != zipfile.ZIP_STORED]
    except (zipfile.BadZipFile, OSError, ValueError):
        return  # damaged: the reader says so
    if compressed:
        raise ValueError(
            f"{path} is refused: it contains compressed records ({_list(compressed)}), which checkpoints do not have"
        )


def _allowed() -> list[Global]:
    """argparse.Namespace and what NumPy's arrays and numbers are rebuilt with, under old and new module names."""
    reconstruct = np.zeros(1).__reduce__()[0]
    scalar = np.float64(0).__reduce__()[0]
    assert callable(reconstruct)
    assert callable(scalar)
    allowed: list[Global] = [argparse.Namespace, np.ndarray, np.dtype]
    for module in ("numpy.core.multiarray", "numpy._core.multiarray"):
        allowed += [(reconstruct, f"{module}._reconstruct"), (scalar, f"{module}.scalar")]
    # NumPy 2 has a class of its own for every kind of number
    kinds = (np.float32, np.float64, np.int32, np.int64, np.uint8, np.bool_)
    return allowed + sorted({type(np.dtype(kind)) for kind in kinds} - {np.dtype}, key=lambda cls: cls.__name__)


def _tensors(container: Any, official: Official, path: Path) -> dict[str, Tensor]:
    """The state dictionary inside what the file holds."""
    if isinstance(container, Mapping):
        # a training script wraps its model; a file that was imported before is plain
        for entry in (official.entry, "state_dict", "model"):
            if entry and isinstance(container.get(entry), Mapping):
                container = container[entry]
                break
    if not isinstance(container, Mapping):
        raise ValueError(f"{path} is not {official.name}: it holds a {type(container).__name__}, no state dictionary")
    wrong = [str(key) for key, value in container.items() if not _is_plain(key, value)]
    if wrong:
        raise ValueError(f"{path} is not {official.name}: not tensors: {_list(sorted(wrong))}")
    return dict(container)


def _is_plain(key: object, value: object) -> bool:
    return (
        isinstance(key, str)
        and isinstance(value, Tensor)
        and value.layout == torch.strided
        and not value.is_quantized
        and not value.is_complex()
        and value.device.type == "cpu"
    )


def _renamed(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {key.removeprefix("module.").replace("vgg", "model"): value for key, value in tensors.items()}


def _complaint(found: Mapping[str, Tensor], table: Mapping[str, Expected]) -> str:
    """What does not fit, in words; empty when all does."""
    counters = {key for key in found.keys() | table.keys() if key.endswith("num_batches_tracked")}
    missing = sorted(table.keys() - found.keys() - counters)
    unknown = sorted(found.keys() - table.keys() - counters)
    shapes = sorted(
        f"{key} {tuple(found[key].shape)} instead of {table[key].shape}"
        for key in found.keys() & table.keys()
        if tuple(found[key].shape) != table[key].shape or found[key].is_floating_point() != table[key].floating
    )
    return "; ".join(
        f"{len(keys)} {what} ({_list(keys)})"
        for what, keys in (("missing", missing), ("unknown", unknown), ("with another shape or type", shapes))
        if keys
    )


def _value(tensor: Tensor | None, expected: Expected) -> Tensor:
    if tensor is None:
        return torch.zeros(expected.shape, dtype=torch.int64)
    # a copy: an expanded or shared tensor of the file must not reach the caller
    kind = torch.float32 if expected.floating else torch.int64
    return tensor.detach().to(kind).clone(memory_format=torch.contiguous_format)


def _list(names: list[str]) -> str:
    return ", ".join(name[:120] for name in names[:_LISTED]) + (", ..." if len(names) > _LISTED else "")


def _first_sentence(error: BaseException) -> str:
    text = " ".join(str(error).split())
    # PyTorch also advises how to switch the restriction off: that is no remedy, so only the cause is quoted
    cause = re.search(r"(?:WeightsUnpickler error:|(?=Trying to load unsupported|Unsupported global)) ?(.*)", text)
    quoted = re.split(r"\. | Please use| whose module| Check the doc", cause.group(1) if cause else text)[0]
    return quoted[:200] or type(error).__name__
