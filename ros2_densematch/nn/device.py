"""The device that a matcher runs on."""

from __future__ import annotations

import torch


def choose_device(name: str) -> torch.device:
    """The device of a name: "auto" is CUDA where it is usable, else the CPU.

    Raises:
        ValueError: an unknown name, or CUDA where there is none.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name != "cpu" and name != "cuda" and not (name.startswith("cuda:") and name[5:].isdigit()):
        raise ValueError(f"unknown device {name!r}: choose auto, cpu, cuda or cuda:N")
    if name != "cpu" and not torch.cuda.is_available():
        raise ValueError(f"device {name!r} was asked for, but this PyTorch finds no usable GPU: use cpu or auto")
    return torch.device(name)
