"""A network that runs in ONNX Runtime, in the place of the one that runs in PyTorch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from ros2_densematch.graphs.runtime import Session


class OnnxNetwork(nn.Module):
    """Takes and gives what the original does.

    Args:
        original: the network in PyTorch; its parameters are still those of this module.
        session: its graph, of open size.
        wrap: makes of the graph's outputs what the original returns.
    """

    def __init__(self, original: nn.Module, session: Session, wrap: Callable[..., Any]) -> None:
        super().__init__()
        self.original = original
        self.session = session
        self._wrap = wrap

    def forward(self, image: Tensor) -> Any:
        """One pass over (B, 3, H, W); the results lie where the image does."""
        return self._wrap(*(found.to(image.device) for found in self.session(image)))
