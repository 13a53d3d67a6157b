"""The mean of several weights files of one network."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from ros2_densematch.files.atomic import write_bytes
from ros2_densematch.weights.catalogue import digest
from ros2_densematch.weights.loading import read_state


def average(files: Sequence[Path], out: Path) -> Path:
    """Writes the mean of weights that were trained from one start, which often does better than any of them.

    Only such weights can be averaged: networks that were trained apart have their features in another order. (Wortsman
    et al., *Model soups*, 2022, section 2.)

    Args:
        files: at least two safetensors files with the same tensors and the same matcher in their metadata.
        out: the file that is written; its metadata is that of the first, with `averaged` naming the digests of all.

    Returns:
        `out`.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: fewer than two files, a damaged one, or one of another network; `out` is a folder.
    """
    from safetensors import safe_open
    from safetensors.torch import save

    if out.is_dir():
        raise ValueError(f"{out} is a folder: give the file to write")
    if len(files) < 2:
        raise ValueError(f"{len(files)} weights file given: averaging takes at least two")
    states = [read_state(file) for file in files]
    kept = []
    for file in files:
        with safe_open(str(file), framework="np") as opened:
            kept.append(dict(opened.metadata() or {}))
    for file, state, metadata in zip(files[1:], states[1:], kept[1:], strict=True):
        shapes, expected = ({k: tuple(v.shape) for k, v in s.items()} for s in (state, states[0]))
        if shapes != expected or metadata.get("matcher") != kept[0].get("matcher"):
            raise ValueError(
                f"{file} and {files[0]} belong to different networks: average weights of the same matcher and recipe"
            )
    mean = {key: _mean([state[key] for state in states]) for key in states[0]}
    metadata = {**kept[0], "averaged": " ".join(digest(file) for file in files)}
    out.parent.mkdir(parents=True, exist_ok=True)
    content = save(mean, metadata=metadata)  # save_file would make a file that only its owner can read
    write_bytes(out, content)
    return out


def _mean(tensors: Sequence[Tensor]) -> Tensor:
    """Mean in the tensors' own precision; of whole numbers (counters of batch norms) the first."""
    first = tensors[0]
    if not first.is_floating_point():
        return first
    return torch.stack([tensor.double() for tensor in tensors]).mean(0).to(first.dtype).contiguous()
