"""DKM v3's network: ResNet-50, Gaussian processes at two scales, DFN decoder, refiners.

State-dict keys equal those of the released checkpoint.
"""

from __future__ import annotations

from typing import cast

from torch import Tensor, nn

from ros2_densematch.matchers.common.dense.network import Decoder, DenseNetwork, GlobalMatch, Pyramid
from ros2_densematch.nn.dfn import DfnDecoder
from ros2_densematch.nn.gaussian_process import Conditioned, GaussianProcess
from ros2_densematch.nn.refiner import Refiner, RefinerSpec
from ros2_densematch.nn.resnet import ResNet

# channels, embedding, radius and hidden channels of the refiners; only 16 is projected
_REFINERS: dict[int, RefinerSpec] = {
    16: RefinerSpec(512, 128, 7),
    8: RefinerSpec(512, 64, 3),
    4: RefinerSpec(256, 32, 2),
    2: RefinerSpec(64, 16, None),
    1: RefinerSpec(3, 6, None, hidden=24),
}


class _Encoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        # the released checkpoint carries the unused classifier
        self.net = ResNet(50, classes=1000)


class DkmNetwork(DenseNetwork):
    """Released DKM v3; without local correlation the refiners are those of the paper's text."""

    def __init__(self, *, local_correlation: bool = True) -> None:
        """
        Args:
            local_correlation: False builds the refiners as the earlier paper describes them.
        """
        super().__init__()
        specs = dict(_REFINERS)
        if not local_correlation:
            specs = {s: RefinerSpec(r.channels, r.embedding, None, r.hidden) for s, r in specs.items()}
        self.encoder = _Encoder()
        self.decoder = Decoder(
            proj={32: nn.Conv2d(2048, 512, 1), 16: nn.Conv2d(1024, 512, 1)},
            gps={32: GaussianProcess(256), 16: GaussianProcess(256)},
            embedding_decoder=DfnDecoder(),
            conv_refiner={s: Refiner(r, certainty_first=True, detach_sampled=True) for s, r in specs.items()},
        )

    def pyramid(self, image: Tensor, *, fine: bool = False) -> Pyramid:
        """The image itself at 1, ResNet stages at 2, 4, 8, and projected stages at 16 and 32 unless `fine`."""
        levels: Pyramid = {1: image, **self.encoder.net(image, deepest=8 if fine else 32)}
        for s in (16, 32):
            if s in levels:
                levels[s] = self.decoder.proj[str(s)](levels[s])
        return levels

    def global_match(self, query: Pyramid, conditioned: dict[int, Conditioned]) -> GlobalMatch:
        decoder = cast(DfnDecoder, self.decoder.embedding_decoder)
        context: Tensor | None = None
        found: dict[int, tuple[Tensor, Tensor]] = {}
        for s in (32, 16):
            posterior = self.decoder.gps[str(s)](query[s], conditioned[s])
            coordinates, certainty, context = decoder(posterior, query[s], context, s)
            found[s] = (coordinates, certainty)
        return GlobalMatch(*found[16], coarser={32: found[32]})

    def displacement_gain(self, height: int, width: int) -> float:
        return 1.0
