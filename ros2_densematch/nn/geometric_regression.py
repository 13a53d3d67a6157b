"""From a correlation to the parameters of a transformation.

Rocco, "Neighbourhood consensus networks for visual correspondence" (thesis), section 3.4.3. State-dict keys equal the
published ones (`conv.{0,1,3,4}`, `linear`).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ros2_densematch.nn.transformations import identity

CELLS = 15  # side of the feature grid of a 240 x 240 image
_FLAT = 64 * 5 * 5


class FeatureRegression(nn.Module):
    """Two convolutions, 7 x 7 and 5 x 5, and a linear layer; starts at the identity."""

    def __init__(self, parameters: int) -> None:
        """`parameters`: 6 affine, 8 or 9 homography, 18 thin-plate spline."""
        super().__init__()
        self.conv = nn.Sequential(
            nn.Conv2d(CELLS * CELLS, 128, 7),
            nn.BatchNorm2d(128),
            nn.ReLU(inplace=True),
            nn.Conv2d(128, 64, 5),
            nn.BatchNorm2d(64),
            nn.ReLU(inplace=True),
        )
        self.linear = nn.Linear(_FLAT, parameters)
        with torch.no_grad():
            self.linear.weight.mul_(0.1)
            self.linear.bias.copy_(identity(parameters))

    def forward(self, correlation: Tensor) -> Tensor:
        """Parameters (B, P) from a correlation (B, 225, 15, 15)."""
        theta: Tensor = self.linear(self.conv(correlation).flatten(1))
        return theta
