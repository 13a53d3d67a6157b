"""The encoder of DKM and RoMa as a pure function of fixed shape.

What follows it stays with PyTorch: the Gaussian processes are conditioned by a Cholesky decomposition, which ONNX has
not.
"""

from __future__ import annotations

from torch import Tensor, nn

from ros2_densematch.graphs.graph import Graph
from ros2_densematch.matchers.common.dense.network import DenseNetwork


class _Encoder(nn.Module):
    def __init__(self, network: DenseNetwork, scales: tuple[int, ...]) -> None:
        super().__init__()
        self.network, self._scales = network, scales

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        levels = self.network.pyramid(image)
        return tuple(levels[s] for s in self._scales)


def encoder_graph(matcher: str, network: DenseNetwork, image: Tensor) -> Graph:
    """The features of the coarse pass.

    Args:
        matcher: its name.
        network: ready for inference, on the CPU.
        image: (1, 3, H, W), ImageNet-normalised.
    """
    scales = tuple(sorted({1, 2, 4, 8} | {int(s) for s in network.decoder.gps}))
    outputs = {f"scale{s}": f"features that the decoder calls scale {s}" for s in scales}
    how = "RGB, divided by 255, ImageNet's mean and deviation, planes (1, 3, H, W), resized by Pillow's BICUBIC"
    return Graph(f"{matcher} encoder", _Encoder(network, scales).eval(), {"image": image}, outputs, {"image": how})
