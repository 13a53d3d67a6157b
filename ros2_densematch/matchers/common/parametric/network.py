"""The network of CNNGeometric and of weak alignment: features, correlation, regression, in one or two stages.

Rocco, "Neighbourhood consensus networks for visual correspondence" (thesis), chapters 3 and 4. State-dict keys equal
the published ones: `FeatureExtraction.model.*`, `FeatureRegression.*` and, with two stages, `FeatureRegression2.*`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from torch import Tensor, nn

from ros2_densematch.nn.correlation import correlation_3d, l2_normalise
from ros2_densematch.nn.feature_extraction import FeatureExtraction
from ros2_densematch.nn.geometric_regression import CELLS, FeatureRegression
from ros2_densematch.nn.transformations import chain_points, regular_grid, sample_image

INPUT_SIZE = 16 * CELLS  # pixels, both sides
# names of the regressions of the stages in a state dictionary
HEADS = ("FeatureRegression", "FeatureRegression2")


class Alignment(NamedTuple):
    """What the network found for a batch of pairs.

    Attributes:
        thetas: parameters (B, P) of the passes in the order in which they ran; a target point goes through the last one
            first.
        correlation: (B, 225, 15, 15) of the first pass, on the source as it came.
        refined_correlation: of the last pass, on the source as the stages before it had warped it.
    """

    thetas: list[Tensor]
    correlation: Tensor
    refined_correlation: Tensor


class AlignmentNetwork(nn.Module):
    """Estimates how a target image looks into a source image."""

    def __init__(self, backbone: str, parameters: Sequence[int]) -> None:
        """
        Args:
            backbone: "resnet101" or "vgg16".
            parameters: of the stages, one or two of 6 (affine), 8 or 9 (homography), 18 (thin-plate spline).

        Raises:
            ValueError: neither one nor two stages, an unknown backbone or number of parameters.
        """
        super().__init__()
        if len(parameters) not in (1, 2):
            raise ValueError(f"one or two stages are possible, got {len(parameters)}")
        self.parameters_of_stages = tuple(parameters)
        self.FeatureExtraction = FeatureExtraction(backbone)
        self.FeatureRegression = FeatureRegression(parameters[0])
        if len(parameters) == 2:
            self.FeatureRegression2 = FeatureRegression(parameters[1])

    def features(self, image: Tensor) -> Tensor:
        """Unit features (B, C, 15, 15) of images (B, 3, 240, 240), ImageNet-normalised."""
        return l2_normalise(self.FeatureExtraction(image))

    def regress(self, correlation: Tensor, stage: int) -> Tensor:
        """Parameters (B, P) of stage 0 or 1 from a correlation (B, 225, 15, 15)."""
        theta: Tensor = (self.FeatureRegression if stage == 0 else self.FeatureRegression2)(correlation)
        return theta

    def forward(self, source: Tensor, target: Tensor, *, iterations: int = 1) -> Alignment:
        """Arguments as of `align`, with images (B, 3, 240, 240), ImageNet-normalised, for both."""
        return self.align(source, self.features(source), self.features(target), iterations=iterations)

    def align(
        self, source: Tensor, source_features: Tensor, target_features: Tensor, *, iterations: int = 1
    ) -> Alignment:
        """Estimates the transformation of a pair whose features are known.

        Args:
            source: (B, 3, 240, 240), ImageNet-normalised; warped for every pass after the first, and then zero, the
                mean colour, where the target sees beyond its rim.
            source_features: of `features(source)`.
            target_features: of the target.
            iterations: passes of the first stage (thesis, section 3.4.5); the second stage runs once, after them.
        """
        correlation = first = correlation_3d(source_features, target_features)
        thetas = [self.regress(correlation, 0)]
        passes = [0] * (iterations - 1) + [1] * (len(self.parameters_of_stages) - 1)
        for stage in passes:
            # always from the source as it came: repeated resampling would blur it
            grid = chain_points(thetas, regular_grid(*source.shape[2:], like=source))
            correlation = correlation_3d(self.features(sample_image(source, grid)), target_features)
            thetas.append(self.regress(correlation, stage))
        return Alignment(thetas, first, correlation)


def network_for(state: Mapping[str, Tensor]) -> AlignmentNetwork:
    """The network that a state dictionary describes, untrained.

    Raises:
        ValueError: no regression head in it.
    """
    sizes = [len(state[f"{head}.linear.bias"]) for head in HEADS if f"{head}.linear.bias" in state]
    if not sizes:
        raise ValueError("not weights of an alignment network: there is no FeatureRegression.linear.bias")
    # VGG's first layer has a bias, ResNet's has not
    return AlignmentNetwork("vgg16" if "FeatureExtraction.model.0.bias" in state else "resnet101", sizes)
