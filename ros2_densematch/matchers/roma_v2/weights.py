"""RoMa v2's network with the weights, the version and the number format that are asked for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from ros2_densematch.matchers.network import for_inference, seeded
from ros2_densematch.matchers.roma_v2.network import SIZES, VERSIONS, RomaV2Network
from ros2_densematch.nn.dinov3 import Dinov3
from ros2_densematch.weights.mapped import MappedState, held, load_mapped, open_mapped
from ros2_densematch.weights.official import OFFICIAL, official
from ros2_densematch.weights.store import checkpoint_path
from ros2_densematch.weights.versions import required_version, stated_version

NAME = "roma_v2"
Weights = str | Mapping[str, Tensor] | None

_HINT = f" (on the command line: --set {NAME}.version=...)"

# Parts that are stored in the network's number format from the start. What batch norms are folded into, or what stays
# in float32, is converted afterwards.
_CONVERTED = ("f.", "matcher.mv_vit.", "matcher.head.")


def load_network(weights: Weights, version: str | None, dtype: torch.dtype) -> RomaV2Network:
    """The network for inference: unused blocks dropped, batch norms folded, refiners prepared.

    It is built without memory, and the file is mapped: in float32 most weights are the file's own pages.

    Args:
        weights: None for the fetched checkpoint, its name, "random", a file, or tensors by key.
        version: as of `resolved`.
        dtype: of backbone, transformer, head, VGG and the refiners' blocks.

    Raises:
        ValueError: the version is not known, or weights of another network.
        FileNotFoundError: no such file, or the checkpoint was not fetched; the message says how to get it.
    """
    if isinstance(weights, str) and weights == "random":
        if version is not None:
            required_version(NAME, None, version, "random weights", "version=")
        network = _random(version or VERSIONS[0])
    else:
        state, chosen = resolved(weights, version)
        with torch.device("meta"):
            network = RomaV2Network(version=chosen, size=SIZES[_size_of(state)])

        def dtype_of(key: str) -> torch.dtype:
            return dtype if key.startswith(_CONVERTED) and not _exact(key) else torch.float32

        load_mapped(network, state, prune=network.drop_unused, dtype_of=dtype_of)
    for_inference(network)
    network.prepare_refiners()
    network.set_precision(dtype)
    return network


def resolved(weights: Weights, version: str | None) -> tuple[MappedState, str]:
    """What the weights are, not yet read, and the version that they are for.

    Args:
        weights: as of `load_network`, but "random".
        version: "2.0.1" or "2.0.0"; None where the weights say it (a stored or a published file, a name). Without
            weights, the newest.

    Raises:
        ValueError: the version is not known, or not that of the weights.
        FileNotFoundError: no such file, or the checkpoint was not fetched.
    """
    if isinstance(weights, Mapping):
        version = required_version(NAME, None, version, "the state dictionary", "version=", _HINT)
        return held(weights, Path("the state dictionary")), version
    if weights is None or (weights in OFFICIAL and not Path(weights).exists()):
        stated = None if weights is None else OFFICIAL[weights].version
        asked = VERSIONS[0] if weights is None and version is None else version
        version = required_version(NAME, stated, asked, weights or "the catalogue", "version=")
        name = f"{NAME}_{version}"
        return open_mapped(official(name), checkpoint_path(name)), version
    path = Path(weights)
    version = required_version(NAME, stated_version(NAME, path), version, str(path), "version=", _HINT)
    return open_mapped(official(f"{NAME}_{version}"), path), version


def _size_of(state: MappedState) -> str:
    """Which size the weights are for, by the width of the backbone; the published one where that says nothing."""
    width = (state.shapes.get("f.cls_token") or (0,))[-1]
    return next((name for name, size in SIZES.items() if size.width == width), "published")


def _exact(key: str) -> bool:
    """Tables of the rotary embedding, and the head's last convolutions: float32 in any precision."""
    return "rope_embed" in key or "output_conv2" in key


def _random(version: str) -> RomaV2Network:
    with seeded():
        return RomaV2Network(version=version, size=replace(SIZES["published"], depth=Dinov3.USED))
