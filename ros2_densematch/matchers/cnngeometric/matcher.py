"""`cnngeometric`: a regressed affine, homography or thin-plate-spline alignment as a matcher."""

from __future__ import annotations

import torch
from torch import Tensor

from ros2_densematch.matchers.common.parametric.matcher import PRESETS, ParametricMatcher
from ros2_densematch.matchers.common.parametric.network import HEADS, AlignmentNetwork, network_of
from ros2_densematch.nn.feature_extraction import BACKBONES
from ros2_densematch.nn.transformations import kind_of
from ros2_densematch.weights.store import read_checkpoint

# stages by name, as numbers of parameters; a file may hold the homography with nine instead of eight
TRANSFORMATIONS: dict[str, tuple[int, ...]] = {
    "affine": (6,),
    "homography": (8,),
    "tps": (18,),
    "affine+tps": (6, 18),
    "homography+tps": (8, 18),
}
_DEFAULT = "homography"


class CnnGeometricMatcher(ParametricMatcher):
    """CNNGeometric; see `docs/matchers/cnngeometric.md`."""

    name = "cnngeometric"

    def __init__(
        self,
        *,
        device: str = "auto",
        preset: str = "base",
        weights: str | None = None,
        second_weights: str | None = None,
        transformation: str | None = None,
        backbone: str | None = None,
    ) -> None:
        """
        Args:
            device: "auto", "cpu", "cuda" or "cuda:N".
            preset: one of `PRESETS`.
            weights: None for fetched official checkpoints, "random", or a file: a published checkpoint or a safetensors
                file with its keys, of one or two stages.
            second_weights: a file with the second stage of a cascade, where `weights` holds the first alone.
            transformation: one of `TRANSFORMATIONS`; None takes what the file holds, and a homography without one.
            backbone: "vgg16" or "resnet101"; None takes what the file holds, and VGG-16 without one.

        Raises:
            ValueError: unknown preset, device, transformation or backbone, or weights that hold something else.
            FileNotFoundError: no such weights file, or a checkpoint was not fetched yet.
        """
        if preset not in PRESETS:
            raise ValueError(f"unknown preset {preset!r} of {self.name}: choose one of {', '.join(PRESETS)}")
        if transformation is not None and transformation not in TRANSFORMATIONS:
            raise ValueError(f"unknown transformation {transformation!r}: choose one of {', '.join(TRANSFORMATIONS)}")
        if backbone is not None and backbone not in BACKBONES:
            raise ValueError(f"unknown backbone {backbone!r}: choose one of {', '.join(BACKBONES)}")
        self.preset = preset
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(0)
            if weights == "random":
                network = AlignmentNetwork(backbone or "vgg16", TRANSFORMATIONS[transformation or _DEFAULT])
            else:
                state = _state(weights, second_weights, transformation, backbone)
                network = network_of(state)
                _check(network, transformation, backbone)
        super().__init__(network, device=device, iterations=PRESETS[preset])


def _state(
    weights: str | None, second_weights: str | None, transformation: str | None, backbone: str | None
) -> dict[str, Tensor]:
    kinds = [kind_of(size) for size in TRANSFORMATIONS[transformation or _DEFAULT]]
    prefix = "cnngeo_resnet101" if backbone == "resnet101" else "cnngeometric"
    state = read_checkpoint(f"{prefix}_{kinds[0]}", weights)
    if second_weights is None and (weights is not None or len(kinds) == 1):
        return state
    second = read_checkpoint(f"{prefix}_tps", second_weights)
    # both were trained on frozen features: where these differ, the second stage would read a language it never learnt
    for key, value in state.items():
        if key.startswith("FeatureExtraction.") and (key not in second or not torch.equal(second[key], value)):
            raise ValueError(f"the two stages were trained on different features (at {key}): they do not combine")
    head = f"{HEADS[0]}."
    return {**state, **{f"{HEADS[1]}.{k.removeprefix(head)}": v for k, v in second.items() if k.startswith(head)}}


def _check(network: AlignmentNetwork, transformation: str | None, backbone: str | None) -> None:
    """Compares what a file held with what was asked for."""
    held = "+".join(kind_of(size) for size in network.parameters_of_stages)
    if transformation is not None and held != transformation:
        raise ValueError(f"the weights hold {held}, asked for was {transformation}: leave transformation out")
    found = "vgg16" if network.FeatureExtraction.channels == 512 else "resnet101"
    if backbone is not None and found != backbone:
        raise ValueError(f"the weights hold {found}, asked for was {backbone}: leave backbone out")
