"""Patch descriptors of `gcm_paper`: a vector for every pixel, the finest level of the pyramid."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

import torch
from torch import Tensor
from torch.nn import functional

from ros2_densematch.nn.condl import CondlNetwork
from ros2_densematch.nn.r2d2 import R2d2Network, Variant
from ros2_densematch.weights.catalogue import path_of
from ros2_densematch.weights.loading import load_exactly, read_state
from ros2_densematch.weights.store import read_checkpoint

DescriptorFunction: TypeAlias = Callable[[Tensor], Tensor]

# name -> (network, its official weights)
_R2D2: dict[str, tuple[Variant, str]] = {
    "student": ("student", "gcm_student"),
    "r2d2": ("quad", "r2d2_WASF_N16"),
    "r2d2_big": ("big", "r2d2_WASF_N8_big"),
    "r2d2_fast": ("fast", "faster2d2_WASF_N16"),
}
BUILT_IN = (*_R2D2, "condl")


def build_descriptor(descriptor: str | DescriptorFunction, weights: str | None) -> DescriptorFunction:
    """The descriptor function of a name, or the given function itself.

    A function takes a float image (1, 3, H, W), ImageNet-normalised, with sides that are multiples of 16, and returns
    (1, C, H, W). "student" is the network that the paper distils; a student of another teacher has the same keys, and
    its file is given as `weights`.

    Raises:
        ValueError: unknown name, or weights of another network.
        FileNotFoundError: the weights were not fetched; the message names licence and command.
    """
    if not isinstance(descriptor, str):
        return descriptor
    if descriptor not in BUILT_IN:
        raise ValueError(f"unknown descriptor {descriptor!r}: choose one of {', '.join(BUILT_IN)}, or give a function")
    if descriptor == "condl":
        return _condl(weights)
    variant, checkpoint = _R2D2[descriptor]
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        network = R2d2Network(variant)
    if weights != "random":
        load_exactly(network, read_checkpoint(checkpoint, weights), Path(weights or checkpoint))
    network.eval().requires_grad_(False)

    def describe(image: Tensor) -> Tensor:
        return network.to(image.device).features(image)

    return describe


def official_descriptor(descriptor: str | DescriptorFunction) -> list[str]:
    """The official checkpoint of a descriptor, where the catalogue has one."""
    return [_R2D2[descriptor][1]] if isinstance(descriptor, str) and descriptor in _R2D2 else []


def _condl(weights: str | None) -> DescriptorFunction:
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        network = CondlNetwork()
    if weights != "random":
        path = path_of("condl") if weights is None else Path(weights)
        load_exactly(network, read_state(path), path)
    network.eval().requires_grad_(False)

    def describe(image: Tensor) -> Tensor:
        drawn = network.to(image.device)(image)
        return functional.interpolate(drawn, image.shape[-2:], mode="bilinear", align_corners=False)

    return describe
