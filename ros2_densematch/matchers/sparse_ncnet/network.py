"""Sparse-NCNet: the k best neighbours of every cell, filtered by a sparse 4-D consensus network.

Rocco et al., "Efficient neighbourhood consensus networks via submanifold sparse convolutions", ECCV 2020; thesis of
Rocco, chapter 6. State-dict keys equal the published ones: `FeatureExtraction.model.*`, `NeighConsensus.conv.{1,3}.*`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor, nn
from torch.nn import functional

from ros2_densematch.nn.correlation import l2_normalise
from ros2_densematch.nn.feature_extraction import FeatureExtraction
from ros2_densematch.nn.sparse_conv4d import SparseCorrelation, SparseNeighConsensus
from ros2_densematch.nn.sparse_correlation import sparse_correlation

NEIGHBOURS = 10


class SparseNcnetNetwork(nn.Module):
    """Features and sparse consensus."""

    def __init__(self, channels: Sequence[int] = (16, 1), *, double_resolution: bool = True) -> None:
        """
        Args:
            channels: outputs of the consensus layers.
            double_resolution: features at stride 8, pooled to 16 for the correlation, so that matches can be
                relocalised; else at stride 16, as in training.
        """
        super().__init__()
        self.FeatureExtraction = FeatureExtraction("resnet101", double_resolution=double_resolution)
        self.NeighConsensus = SparseNeighConsensus(channels)
        self._double = double_resolution

    def features(self, image: Tensor) -> tuple[Tensor, Tensor | None]:
        """Unit features of images (N, 3, H, W), ImageNet-normalised.

        Returns:
            (N, 1024, H / 16, W / 16) and, with double resolution, (N, 1024, H / 8, W / 8), else None. The coarse ones
            are pooled before either is normalised.
        """
        raw = self.FeatureExtraction(image)
        if not self._double:
            return l2_normalise(raw), None
        return l2_normalise(functional.max_pool2d(raw, 2)), l2_normalise(raw)

    def consensus(self, a: Tensor, b: Tensor, *, neighbours: int = NEIGHBOURS) -> SparseCorrelation:
        """The filtered sparse correlation of unit features (C, hA, wA) and (C, hB, wB)."""
        filtered: SparseCorrelation = self.NeighConsensus(sparse_correlation(a, b, neighbours))
        return filtered

    def forward(self, source: Tensor, target: Tensor, *, neighbours: int = NEIGHBOURS) -> SparseCorrelation:
        """The filtered correlation of one pair of images (1, 3, H, W), ImageNet-normalised."""
        return self.consensus(self.features(source)[0][0], self.features(target)[0][0], neighbours=neighbours)


def channels_of(state: Mapping[str, Tensor]) -> tuple[int, ...]:
    """Outputs of the consensus layers from the shapes in a state dictionary.

    Raises:
        ValueError: it holds no sparse consensus layers.
    """
    layers = sorted(
        (int(key.split(".")[2]), value.shape[2])
        for key, value in state.items()
        if key.startswith("NeighConsensus.conv.") and key.endswith(".kernel") and value.ndim == 3
    )
    if not layers:
        raise ValueError("not weights of sparse_ncnet: there is no NeighConsensus.conv.N.kernel with three dimensions")
    return tuple(outputs for _, outputs in layers)
