"""The convolutional refiner of DKM and RoMa: one step from a warp to a better warp at one scale.

Edstedt et al., "DKM", CVPR 2023, section 3.3, and "RoMa", CVPR 2024, section 3.5.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ros2_densematch.nn.grid import cell_centres, sample_features
from ros2_densematch.nn.local_correlation import local_correlation

_HIDDEN_BLOCKS = 8


@dataclass(frozen=True)
class RefinerSpec:
    """One refiner.

    Attributes:
        channels: of the features of one image.
        embedding: channels of the displacement embedding.
        radius: of the local correlation, or None without one.
        hidden: channels inside; None takes as many as enter.
    """

    channels: int
    embedding: int
    radius: int | None
    hidden: int | None = None


def _block(inputs: int, outputs: int, momentum: float) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 5, padding=2, groups=inputs),
        nn.BatchNorm2d(outputs, momentum=momentum),
        nn.ReLU(inplace=True),
        nn.Conv2d(outputs, outputs, 1),
    )


class RefinerInterface(nn.Module):
    """What a refiner takes and gives, whichever way it is computed."""

    spec: RefinerSpec
    disp_emb: nn.Conv2d
    _certainty_first: bool
    _displacement_gain: float
    _detach_sampled: bool

    def output_layer(self) -> nn.Conv2d:
        """The last convolution, as one."""
        raise NotImplementedError

    def pair_inputs(self, query: Tensor, support: Tensor, flow: Tensor, gain: float | Tensor) -> list[Tensor]:
        """All inputs but the query features: warped support features, displacement embedding, local correlation.

        Arguments as of `Refiner.forward`.
        """
        # gradients reach the sampled features in training, unless the released model cut them
        sampled = sample_features(support, flow)
        if self._detach_sampled:
            sampled = sampled.detach()
        centres = cell_centres(*query.shape[-2:], device=query.device)
        displacement = (self._displacement_gain * gain) * (flow - centres)
        parts = [sampled, self.disp_emb(displacement.to(query.dtype))]
        if self.spec.radius is not None:
            parts.append(local_correlation(query, support, flow, self.spec.radius))
        return parts

    def displacement_and_certainty(self, out: Tensor) -> tuple[Tensor, Tensor]:
        """The output channels in one order, whatever the model's."""
        if self._certainty_first:
            return out[:, 1:], out[:, :1]
        return out[:, :2], out[:, 2:]

    def compilable(self) -> list[nn.Module]:
        """The parts that `torch.compile` speeds up."""
        raise NotImplementedError


class Refiner(RefinerInterface):
    """Displacement and certainty update from query features, warped support features and local correlation.

    As published, for training and as the standard of `PreparedRefiner`, which computes the same for inference.
    """

    def __init__(
        self,
        spec: RefinerSpec,
        *,
        certainty_first: bool,
        displacement_gain: float = 1.0,
        momentum: float = 0.1,
        detach_sampled: bool = False,
    ) -> None:
        """
        Args:
            spec: channels and radius.
            certainty_first: DKM's order of the outputs (certainty, dx, dy); RoMa's is (dx, dy, certainty).
            displacement_gain: factor on the displacement before its embedding.
            momentum: of the batch norms, in training.
            detach_sampled: in training, no gradient through the warped support features (DKM).
        """
        super().__init__()
        self.spec = spec
        self._certainty_first = certainty_first
        self._displacement_gain = displacement_gain
        self._detach_sampled = detach_sampled
        inputs = 2 * spec.channels + spec.embedding
        if spec.radius is not None:
            inputs += (2 * spec.radius + 1) ** 2
        hidden = inputs if spec.hidden is None else spec.hidden
        self.disp_emb = nn.Conv2d(2, spec.embedding, 1)
        self.block1 = _block(inputs, hidden, momentum)
        self.hidden_blocks = nn.Sequential(*[_block(hidden, hidden, momentum) for _ in range(_HIDDEN_BLOCKS)])
        self.out_conv = nn.Conv2d(hidden, 3, 1)

    def output_layer(self) -> nn.Conv2d:
        return self.out_conv

    def compilable(self) -> list[nn.Module]:
        return [self.block1, self.hidden_blocks]

    def forward(
        self, query: Tensor, support: Tensor, flow: Tensor, gain: float | Tensor = 1.0, share: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """
        Args:
            query: (B, C, H, W) features.
            support: (B, C, H, W) features of the other image.
            flow: float32 (B, 2, H, W), normalised (x, y) in the other image.
            gain: further factor on the displacement before its embedding (RoMa: size of the image against 560), one
                number or one per axis (1, 2, 1, 1).
            share: of a `PreparedRefiner`; not used here.

        Returns:
            displacement float32 (B, 2, H, W), in the units of the caller, and certainty update float32 (B, 1, H, W).
        """
        inputs = torch.cat([query, *self.pair_inputs(query, support, flow, gain)], 1)
        hidden = self.hidden_blocks(self.block1(inputs)).float()
        # as released: in float32 under mixed precision too
        with torch.autocast(hidden.device.type, enabled=False):
            return self.displacement_and_certainty(self.out_conv(hidden))
