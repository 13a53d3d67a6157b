"""Maps of VGG-19 at chosen modules, as DFM and GCM take them: some before their ReLU, some after."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn
from torch.nn import functional

from ros2_densematch.nn.vgg import vgg_layers


class VggMaps(nn.Module):
    """VGG-19 up to the last module that is wanted; keys `features.<i>` as published.

    A map is what the module of that number puts out, never changed by the ReLU after it.
    """

    def __init__(self, taps: Mapping[int, int], *, batch_norm: bool = False) -> None:
        """
        Args:
            taps: name of a map (its stride, or 0) -> number of the module in the published list.
            batch_norm: whether this is VGG-19-BN.
        """
        super().__init__()
        self._taps = dict(taps)
        self.features = nn.ModuleList(vgg_layers(19, batch_norm=batch_norm, count=max(taps.values()) + 1))

    def forward(self, image: Tensor) -> dict[int, Tensor]:
        """Args: image: float (B, 3, H, W), ImageNet-normalised. Returns: name -> (B, C, H / stride, W / stride)."""
        maps: dict[int, Tensor] = {}
        x = image
        for i, layer in enumerate(self.features):
            # the published list has ReLUs that work in place, which would change the map before
            x = functional.relu(x) if isinstance(layer, nn.ReLU) else layer(x)
            maps[i] = x
            if i not in self._taps.values():
                del maps[i]
        return {name: maps[i] for name, i in self._taps.items()}
