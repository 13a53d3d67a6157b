"""RoMa's network: VGG-19 and a frozen DINOv2, Gaussian process, transformer match decoder, refiners.

State-dict keys equal those of the released checkpoint; as there, DINOv2 is not part of the state dictionary.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor, nn

from ros2_densematch.matchers.common.dense.network import Decoder, DenseNetwork, GlobalMatch, Pyramid
from ros2_densematch.nn.dinov2 import Dinov2
from ros2_densematch.nn.gaussian_process import Conditioned, GaussianProcess
from ros2_densematch.nn.match_decoder import TransformerMatchDecoder, anchors_to_coordinates
from ros2_densematch.nn.refiner import Refiner, RefinerSpec
from ros2_densematch.nn.vgg import VggPyramid

# scale -> channels of the encoder and of its projection
_PROJECTIONS = {16: (1024, 512), 8: (512, 512), 4: (256, 256), 2: (128, 64), 1: (64, 9)}
_EMBEDDINGS = {16: 128, 8: 64, 4: 32, 2: 16, 1: 6}
_RADII = {16: 7, 8: 3, 4: 2, 2: None, 1: None}
# side of the training images, to which displacements are relative
_TRAINED_SIDE = 560


class _Encoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.cnn = VggPyramid(19, batch_norm=True, count=40)


class RomaNetwork(DenseNetwork):
    """Released RoMa, outdoor or indoor."""

    def __init__(self, *, dinov2: Dinov2 | None = None) -> None:
        """
        Args:
            dinov2: the frozen encoder of the coarsest scale; None builds an untrained ViT-L/14.
        """
        super().__init__()
        self.encoder = _Encoder()
        # in a tuple: not a sub-module, so that the state dictionary is the released one and training leaves it alone
        self._frozen = (dinov2 if dinov2 is not None else Dinov2(),)
        self._frozen[0].eval().requires_grad_(False)
        self.decoder = Decoder(
            proj={s: nn.Sequential(nn.Conv2d(i, o, 1), nn.BatchNorm2d(o)) for s, (i, o) in _PROJECTIONS.items()},
            gps={16: GaussianProcess(512)},
            embedding_decoder=TransformerMatchDecoder(),
            conv_refiner={
                s: Refiner(
                    RefinerSpec(channels, _EMBEDDINGS[s], _RADII[s]),
                    certainty_first=False,
                    displacement_gain=40 / 32,
                    momentum=0.01,
                )
                for s, (_, channels) in _PROJECTIONS.items()
            },
        )

    @property
    def dinov2(self) -> Dinov2:
        """The frozen encoder of the coarsest scale."""
        return self._frozen[0]

    def _apply(self, fn: Callable[[Any], Any], recurse: bool = True) -> RomaNetwork:
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        self._frozen[0]._apply(fn, recurse)  # type: ignore[no-untyped-call]
        return self

    def compilable(self) -> list[nn.Module]:
        return [*super().compilable(), self.dinov2]

    def pyramid(self, image: Tensor, *, fine: bool = False) -> Pyramid:
        """Projected features at 1, 2, 4, 8, and 16 (which is stride 14) unless `fine`."""
        levels = self.encoder.cnn(image)
        if not fine:
            with torch.no_grad():
                levels[16] = self.dinov2(image)
        return {s: self.decoder.proj[str(s)](f) for s, f in levels.items()}

    def global_match(self, query: Pyramid, conditioned: dict[int, Conditioned]) -> GlobalMatch:
        posterior = self.decoder.gps["16"](query[16], conditioned[16])
        decoder = cast(TransformerMatchDecoder, self.decoder.embedding_decoder)
        logits, certainty = decoder(posterior, query[16])
        return GlobalMatch(anchors_to_coordinates(logits), certainty, logits)

    def displacement_gain(self, height: int, width: int) -> float:
        return math.sqrt(height * width) / _TRAINED_SIDE
