"""`cnngeometric`: a regressed affine, homography or thin-plate-spline alignment as a matcher."""

from __future__ import annotations

import torch
from torch import Tensor

from ros2_densematch.matchers.cnngeometric.config import PRESETS, CnnGeometricConfig
from ros2_densematch.matchers.common.parametric.matcher import ParametricMatcher
from ros2_densematch.matchers.common.parametric.network import HEADS, AlignmentNetwork, network_for
from ros2_densematch.matchers.network import State, Weights, load_network, read_weights
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
    PRESETS = PRESETS
    config: CnnGeometricConfig

    def _transformation(self) -> str | None:
        chosen = self.config.transformation
        return None if chosen == "auto" else chosen

    def _backbone(self) -> str | None:
        return None if self.config.backbone == "auto" else self.config.backbone

    def _checkpoint(self) -> str:
        return _checkpoints(self._transformation(), self._backbone())[0]

    def _build(self, state: State | None) -> AlignmentNetwork:
        if state is None:
            transformation = TRANSFORMATIONS[self._transformation() or _DEFAULT]
            return AlignmentNetwork(self._backbone() or "vgg16", transformation)
        network = network_for(state)
        _check(network, self._transformation(), self._backbone())
        return network

    def _loaded(self, weights: Weights) -> AlignmentNetwork:
        """The network with its weights, which for two stages may be of two files."""
        chosen = _checkpoints(self._transformation(), self._backbone())
        second = self.config.second_weights or None
        first = read_weights(chosen[0], weights)
        if first is not None and (second is not None or (weights is None and len(chosen) == 2)):
            weights = _joined(first[0], read_checkpoint(f"{_prefix(self._backbone())}_tps", second))
        return load_network(self._build, chosen[0], weights)


def _checkpoints(transformation: str | None, backbone: str | None) -> list[str]:
    """Official checkpoints of the stages, each trained alone."""
    kinds = [kind_of(size) for size in TRANSFORMATIONS[transformation or _DEFAULT]]
    return [f"{_prefix(backbone)}_{kind}" for kind in kinds]


def _prefix(backbone: str | None) -> str:
    return "cnngeo_resnet101" if backbone == "resnet101" else "cnngeometric"


def _joined(state: State, second: State) -> dict[str, Tensor]:
    """The state of a cascade from those of its two stages."""
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
