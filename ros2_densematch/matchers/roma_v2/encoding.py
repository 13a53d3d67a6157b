"""What RoMa v2 keeps of one image. Nothing is computed before it is needed, and then it is kept."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from ros2_densematch.arrays import Image
from ros2_densematch.matchers.roma_v2.images import prepared
from ros2_densematch.matchers.roma_v2.network import Layers, RomaV2Network


@dataclass
class RomaV2Encoding:
    """One image.

    Attributes:
        image: uint8, as given.
        layers: of the backbone.
        tokens: input to the joint transformer; nothing behind it depends on one image alone.
        fine_levels: first levels of the dense prediction head, of an image whose cells are matched.
        low, high: projections for the refiners, at both resolutions.
    """

    image: Image
    layers: Layers | None = None
    tokens: Tensor | None = None
    fine_levels: list[Tensor] | None = None
    low: dict[int, Tensor] | None = None
    high: dict[int, Tensor] | None = None


class Encoder:
    """Fills encodings, step by step."""

    def __init__(self, network: RomaV2Network, low_size: tuple[int, int], high_size: tuple[int, int] | None) -> None:
        """
        Args:
            network: on its device.
            low_size, high_size: (height, width) of both passes; None: one pass.
        """
        self._network, self._low_size, self._high_size = network, low_size, high_size
        self._device = network.matcher.temp.device

    def layers(self, encoding: RomaV2Encoding) -> Layers:
        if encoding.layers is None:
            encoding.layers = self._network.layers(prepared(encoding.image, self._low_size, self._device))
        return encoding.layers

    def tokens(self, encoding: RomaV2Encoding) -> Tensor:
        if encoding.tokens is None:
            encoding.tokens = self._network.joint_tokens(self.layers(encoding))
        return encoding.tokens

    def fine_levels(self, encoding: RomaV2Encoding) -> list[Tensor]:
        if encoding.fine_levels is None:
            encoding.fine_levels = self._network.fine_levels(self.layers(encoding))
        return encoding.fine_levels

    def low(self, encoding: RomaV2Encoding) -> dict[int, Tensor]:
        if encoding.low is None:
            encoding.low = self._network.projections(prepared(encoding.image, self._low_size, self._device))
        return encoding.low

    def high(self, encoding: RomaV2Encoding) -> dict[int, Tensor] | None:
        """None without a second pass."""
        if encoding.high is None and self._high_size is not None:
            encoding.high = self._network.projections(prepared(encoding.image, self._high_size, self._device))
        return encoding.high
