"""Large checkpoints tensor by tensor: mapped into memory, checked by key first, and only what is used is read."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ros2_densematch.weights.checkpoint import official_tensors
from ros2_densematch.weights.loading import check_keys
from ros2_densematch.weights.official import Official


@dataclass(frozen=True)
class MappedState:
    """A state dictionary that is read when asked.

    Attributes:
        shapes: of every key.
        read: the tensor of a key; as long as nothing changes its type, it is the file's own memory.
        where: the file, for messages.
    """

    shapes: Mapping[str, tuple[int, ...]]
    read: Callable[[str], Tensor]
    where: Path


def open_mapped(official: Official, path: Path) -> MappedState:
    """A safetensors file, or the published file of an entry of the catalogue.

    Raises:
        FileNotFoundError: no such file.
        ValueError: damaged, or not what the entry says.
    """
    if path.suffix != ".safetensors":
        return held(official_tensors(official, path, mapped=True), path)
    import safetensors

    if not path.is_file():
        raise FileNotFoundError(f"no weights file {path}: give the path of a safetensors file")
    try:
        file: Any = safetensors.safe_open(str(path), framework="pt", device="cpu")
        shapes = {key: tuple(file.get_slice(key).get_shape()) for key in file.keys()}  # noqa: SIM118
    except safetensors.SafetensorError as error:
        raise ValueError(
            f"{path} is not a safetensors file ({error}): give one written by `densematch train`"
        ) from error
    return MappedState(shapes, file.get_tensor, path)


def held(tensors: Mapping[str, Tensor], where: Path) -> MappedState:
    """Tensors that are there already."""
    return MappedState({key: tuple(value.shape) for key, value in tensors.items()}, tensors.__getitem__, where)


def load_mapped(
    module: nn.Module,
    state: MappedState,
    *,
    prune: Callable[[], None] = lambda: None,
    dtype_of: Callable[[str], torch.dtype] = lambda key: torch.float32,
) -> None:
    """Loads a module that was built without memory.

    Args:
        module: on the meta device.
        state: its keys and shapes must be the module's.
        prune: takes parts out of the module that are never run, after the check of the keys: they are not read.
        dtype_of: the type of a floating-point tensor, by its key.

    Raises:
        ValueError: keys are missing, unknown or of another shape, or numbers are not finite; the message lists them.
    """
    check_keys(module, state.shapes, state.where)
    prune()
    values: dict[str, Tensor] = {}
    damaged = []
    for key in module.state_dict():
        value = state.read(key)
        if value.is_floating_point():
            if not bool(torch.isfinite(value).all()):
                damaged.append(key)
            value = value.to(dtype_of(key))
        values[key] = value
    if damaged:
        raise ValueError(f"{state.where} is damaged: not finite: {', '.join(sorted(damaged)[:5])}; fetch it again")
    module.load_state_dict(values, strict=True, assign=True)
