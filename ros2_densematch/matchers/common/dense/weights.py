"""Builds a network with the weights that a matcher's argument names."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import torch
from torch import nn

from ros2_densematch.matchers.common.dense.matcher import State
from ros2_densematch.weights.loading import load_exactly

ModuleT = TypeVar("ModuleT", bound=nn.Module)


def require(*parts: tuple[str, str | State | None]) -> None:
    """One error for all checkpoints of a matcher that were not fetched.

    Args:
        parts: name of an official checkpoint, and the argument that may ask for another; as of `load_part`.

    Raises:
        FileNotFoundError: the message names every missing checkpoint, its licence and its command.
    """
    from ros2_densematch.weights.official import OFFICIAL
    from ros2_densematch.weights.store import MissingCheckpoint, checkpoint_path

    missing = []
    for checkpoint, weights in parts:
        name = checkpoint if weights is None else weights
        if isinstance(name, str) and name in OFFICIAL and not Path(name).exists():
            try:
                checkpoint_path(name)
            except MissingCheckpoint as error:
                missing.append(str(error))
    if missing:
        raise MissingCheckpoint("; ".join(missing))


def load_part(build: Callable[[], ModuleT], checkpoint: str, weights: str | State | None) -> ModuleT:
    """A network with its weights.

    Args:
        build: makes the network.
        checkpoint: name of its official checkpoint in the catalogue.
        weights: None for the fetched checkpoint, another name of the catalogue, "random", a file, or tensors by key.

    Raises:
        ValueError: the weights belong to another network.
        FileNotFoundError: no such file, or the checkpoint was not fetched; the message says how to get it.
    """
    from ros2_densematch.weights.official import OFFICIAL
    from ros2_densematch.weights.store import read_checkpoint

    if isinstance(weights, str) and weights == "random":
        # a generator of its own: building a matcher must not disturb the caller's random numbers
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(0)
            return build()
    if weights is None or isinstance(weights, str):
        named = weights is None or (weights in OFFICIAL and not Path(weights).exists())
        where = Path(weights or checkpoint)
        state = read_checkpoint(weights or checkpoint) if named else read_checkpoint(checkpoint, weights)
    else:
        state, where = dict(weights), Path("the state dictionary")
    # without memory or time for initial values that would be overwritten
    with torch.device("meta"):
        network = build()
    load_exactly(network, state, where)
    return network
