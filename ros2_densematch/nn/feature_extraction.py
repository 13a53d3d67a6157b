"""The stride-16 features of the neighbourhood-consensus family: a published classification network, cut.

Rocco, "Neighbourhood consensus networks for visual correspondence" (thesis), sections 3.4.1 and 5.3.1. State-dict keys
equal the published ones: `model.<i>`, numbered as the layers of the sequence.
"""

from __future__ import annotations

from collections import OrderedDict

from torch import Tensor, nn

from ros2_densematch.nn.resnet import ResNet
from ros2_densematch.nn.vgg import vgg_layers

BACKBONES = ("resnet101", "vgg16")
_CHANNELS = {"resnet101": 1024, "vgg16": 512}
_VGG_TO_POOL4 = 24


class FeatureExtraction(nn.Module):
    """ResNet-101 up to layer3 (1024 channels) or VGG-16 up to its fourth pooling (512 channels).

    Batch norms always run on their stored statistics, in training too, as published.

    Attributes:
        channels: of the features.
        stride: input pixels per cell, 16, or 8 with `double_resolution`.
    """

    def __init__(self, backbone: str = "resnet101", *, double_resolution: bool = False) -> None:
        """
        Args:
            backbone: one of `BACKBONES`.
            double_resolution: the first block of layer3 keeps the resolution (thesis, section 6.3.3); ResNet only.

        Raises:
            ValueError: unknown backbone, or double resolution of VGG.
        """
        super().__init__()
        if backbone not in BACKBONES:
            raise ValueError(f"unknown backbone {backbone!r}: choose one of {', '.join(BACKBONES)}")
        if double_resolution and backbone != "resnet101":
            raise ValueError(f"double resolution is defined for resnet101 only, got {backbone!r}")
        self.channels = _CHANNELS[backbone]
        self.stride = 8 if double_resolution else 16
        self.model: nn.Sequential
        if backbone == "vgg16":
            self.model = nn.Sequential(*vgg_layers(16, batch_norm=False, count=_VGG_TO_POOL4))
        else:
            resnet = ResNet(101, stages=3)
            layers = [
                resnet.conv1,
                resnet.bn1,
                nn.ReLU(inplace=True),
                nn.MaxPool2d(3, 2, 1),
                *(resnet.get_submodule(f"layer{i}") for i in (1, 2, 3)),
            ]
            self.model = nn.Sequential(OrderedDict((str(i), layer) for i, layer in enumerate(layers)))
            if double_resolution:
                for module in self.model.get_submodule("6.0").modules():
                    if isinstance(module, nn.Conv2d):
                        module.stride = (1, 1)
        self.train(False)

    def train(self, mode: bool = True) -> FeatureExtraction:
        """Stays in evaluation mode: batch norms keep their statistics."""
        super().train(False)
        return self

    def forward(self, image: Tensor) -> Tensor:
        """Features before L2 normalisation.

        Args:
            image: float (B, 3, H, W), ImageNet-normalised.

        Returns:
            (B, channels, H / stride, W / stride), rounded as the backbone rounds.
        """
        features: Tensor = self.model(image)
        return features
