"""Patch descriptors of `gcm_paper`: a vector for every pixel, the finest level of the pyramid."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from torch import Tensor
from torch.nn import functional

from ros2_densematch.matchers.network import load_network
from ros2_densematch.nn.condl import CondlNetwork
from ros2_densematch.nn.r2d2 import R2d2Network, Variant

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
    network = load_network(lambda _: R2d2Network(variant), checkpoint, weights)
    network.eval().requires_grad_(False)

    def describe(image: Tensor) -> Tensor:
        return network.to(image.device).features(image)

    return describe


def official_descriptor(descriptor: str | DescriptorFunction) -> list[str]:
    """The official checkpoint of a descriptor, where the catalogue has one."""
    return [_R2D2[descriptor][1]] if isinstance(descriptor, str) and descriptor in _R2D2 else []


def _condl(weights: str | None) -> DescriptorFunction:
    network = load_network(lambda _: CondlNetwork(), "condl", weights)
    network.eval().requires_grad_(False)

    def describe(image: Tensor) -> Tensor:
        drawn = network.to(image.device)(image)
        return functional.interpolate(drawn, image.shape[-2:], mode="bilinear", align_corners=False)

    return describe
