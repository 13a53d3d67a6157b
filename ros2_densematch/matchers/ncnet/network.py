"""NCNet: dense correlation, soft mutual nearest neighbours, 4-D consensus.

Rocco et al., "Neighbourhood consensus networks", NeurIPS 2018; thesis of Rocco, chapter 5. State-dict keys equal the
published ones: `FeatureExtraction.model.*` and `NeighConsensus.conv.*`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from torch import Tensor, nn

from ros2_densematch.nn.conv4d import NeighConsensus
from ros2_densematch.nn.correlation import correlation_4d, l2_normalise, mutual_matching, pooled_correlation
from ros2_densematch.nn.feature_extraction import FeatureExtraction


class Architecture(NamedTuple):
    """Filter sizes and output channels of the consensus layers."""

    kernels: tuple[int, ...]
    channels: tuple[int, ...]


# of the two published checkpoints
ARCHITECTURES = {
    "ivd": Architecture((3, 3), (16, 1)),
    "pfpascal": Architecture((5, 5, 5), (16, 16, 1)),
}


class Filtered(NamedTuple):
    """A filtered correlation.

    Attributes:
        correlation: (N, 1, hA, wA, hB, wB), not negative.
        places: int16 of the same shape, where in its box each maximum lay (see `pooled_correlation`); None without
            relocalisation.
    """

    correlation: Tensor
    places: Tensor | None


class NcnetNetwork(nn.Module):
    """Features and consensus."""

    def __init__(self, kernels: Sequence[int] = (3, 3), channels: Sequence[int] = (16, 1)) -> None:
        """Arguments as of `NeighConsensus`."""
        super().__init__()
        self.FeatureExtraction = FeatureExtraction("resnet101")
        self.NeighConsensus = NeighConsensus(kernels, channels)

    def features(self, image: Tensor) -> Tensor:
        """Unit features (N, 1024, H / 16, W / 16) of images (N, 3, H, W), ImageNet-normalised."""
        return l2_normalise(self.FeatureExtraction(image))

    def consensus(self, a: Tensor, b: Tensor, *, relocalisation: int = 1) -> Filtered:
        """Correlates two feature maps and filters the result.

        Args:
            a: (N, C, hA, wA), unit features of the source.
            b: (N, C, hB, wB), unit features of the target.
            relocalisation: side k of the boxes over which the correlation is max-pooled first; 1 leaves it as it is.
                The sides of the features must be multiples of k.

        Raises:
            ValueError: a side that k does not divide.
        """
        if relocalisation == 1:
            correlation, places = correlation_4d(a, b), None
        else:
            correlation, places = pooled_correlation(a, b, relocalisation)
        return Filtered(mutual_matching(self.NeighConsensus(mutual_matching(correlation))), places)

    def forward(self, source: Tensor, target: Tensor) -> Tensor:
        """The filtered correlation (N, 1, hA, wA, hB, wB) of images (N, 3, H, W), ImageNet-normalised."""
        return self.consensus(self.features(source), self.features(target)).correlation


def architecture_of(state: Mapping[str, Tensor]) -> Architecture:
    """Filter sizes and channels from the shapes in a state dictionary.

    Raises:
        ValueError: it holds no consensus layers.
    """
    layers = sorted(
        (int(key.split(".")[2]), value.shape)
        for key, value in state.items()
        if key.startswith("NeighConsensus.conv.") and key.endswith(".weight") and value.ndim == 6
    )
    if not layers:
        raise ValueError("not weights of ncnet: there is no NeighConsensus.conv.N.weight with six dimensions")
    return Architecture(tuple(shape[0] for _, shape in layers), tuple(shape[1] for _, shape in layers))
