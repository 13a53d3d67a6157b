"""Frozen teachers to distil from. They are used as their authors publish them and are never needed at run time.

The dense teacher is EdgePoint2 (MIT licence, trained on MegaDepth by distilling ALIKED): 64-d descriptors at stride 4
and a key point score for every pixel. It is no package: the user clones the public repository HITCSC/EdgePoint2 and
passes the folder.
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from ros2_densematch.matchers.gcm.network import GcmNetwork

# channel widths of the largest model, as its file names them
_E64 = {"c1": 16, "c2": 16, "c3": 48, "c4": 64, "cdesc": 64, "cdetect": 16}


class EdgePoint2Teacher(nn.Module):
    """EdgePoint2 E64 from a clone of its repository, frozen.

    Args:
        folder: the clone, holding `model/model.py` and `weights/E64.pth`.

    Raises:
        FileNotFoundError: the folder does not hold EdgePoint2.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__()
        weights = folder / "weights" / "E64.pth"
        if not (folder / "model" / "model.py").is_file() or not weights.is_file():
            raise FileNotFoundError(
                f"no EdgePoint2 in {folder}: clone the public repository HITCSC/EdgePoint2 and pass its folder "
                "as the recipe's teacher_folder"
            )
        sys.path.insert(0, str(folder))
        try:
            network = importlib.import_module("model.model").EdgePoint2(**_E64)
        finally:
            sys.path.remove(str(folder))
        network.load_state_dict(torch.load(weights, map_location="cpu", weights_only=True))
        self.network = network.eval().requires_grad_(False)

    def train(self, mode: bool = True) -> EdgePoint2Teacher:
        """Stays in evaluation mode whatever the module around it does."""
        super().train(False)
        return self

    @torch.no_grad()
    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Unit descriptors (B, 64, H / 4, W / 4) and key point logits (B, 1, H, W) of (B, 3, H, W) in [0, 1].

        H and W must be multiples of 32.
        """
        descriptors, score = self.network(image)
        return functional.normalize(descriptors, dim=1), score


class GcmTeacher(nn.Module):
    """A network of `gcm` as it is before fine-tuning, frozen: what it knows of other scenes is not to be forgotten."""

    def __init__(self, state: dict[str, Tensor]) -> None:
        super().__init__()
        self.network = GcmNetwork()
        self.network.load_state_dict(state)
        self.network.eval().requires_grad_(False)

    def train(self, mode: bool = True) -> GcmTeacher:
        """Stays in evaluation mode whatever the module around it does."""
        super().train(False)
        return self

    @torch.no_grad()
    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Unit descriptors (B, 64, H / 4, W / 4) and key point logits (B, 1, H, W); sides are multiples of 16."""
        features = self.network(image)
        return functional.normalize(features.descriptors, dim=1), features.saliency
