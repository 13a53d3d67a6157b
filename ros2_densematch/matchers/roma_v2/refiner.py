"""RoMa v2's refiners: one step from a warp and a confidence to better ones at one scale.

Edstedt et al., "RoMa v2", arXiv 2511.15706, section 3 (refinement and predictive covariance). They differ from RoMa's
in the projection that they own, in named layers, in a displacement embedding relative to 512 pixels along each axis
apart, and in two heads: displacement, and confidence with the Cholesky factor of a 2 x 2 precision matrix.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from ros2_densematch.nn.grid import cell_centres, sample_features
from ros2_densematch.nn.local_correlation import local_correlation
from ros2_densematch.nn.prepared_refiner import PreparedRefiner
from ros2_densematch.nn.refiner import RefinerInterface, RefinerSpec

_HIDDEN_BLOCKS = 8
# least standard deviation's reciprocal of the precision's factor
_LEAST_FACTOR = 1e-6


class _Block(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv_depthwise = nn.Conv2d(channels, channels, 5, padding=2, groups=channels)
        self.norm = nn.BatchNorm2d(channels, momentum=0.01)
        self.conv_pointwise = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.conv_pointwise(functional.relu(self.norm(self.conv_depthwise(x))))
        return result


class _Inputs(RefinerInterface):
    """What both forms of the refiner share."""

    proj: nn.Linear
    _correlates_warped: bool

    def project(self, features: Tensor) -> Tensor:
        """VGG features (B, C, H, W) to float32 (B, channels, H, W), the refiner's own."""
        weight = self.proj.weight[:, :, None, None]
        return functional.conv2d(features.to(weight.dtype), weight, self.proj.bias)

    def pair_inputs(self, query: Tensor, support: Tensor, flow: Tensor, gain: float | Tensor) -> list[Tensor]:
        sampled = sample_features(support, flow)
        displacement = gain * (flow - cell_centres(*query.shape[-2:], device=query.device))
        parts = [sampled, self.disp_emb(displacement.to(query.dtype))]
        if self.spec.radius is not None:
            # 2.0.0 samples the warped map at the warp once more; its weights were trained that way
            correlated = sampled if self._correlates_warped else support
            parts.append(local_correlation(query, correlated, flow, self.spec.radius))
        return parts


class RomaV2Refiner(_Inputs):
    """As published, for training and as the standard of `PreparedRomaV2Refiner`."""

    def __init__(self, inputs: int, spec: RefinerSpec, *, correlates_warped: bool = False) -> None:
        """
        Args:
            inputs: channels of the VGG map.
            spec: channels after the projection, of the embedding, and radius.
            correlates_warped: the local correlation of version 2.0.0.
        """
        super().__init__()
        self.spec = spec
        self._correlates_warped = correlates_warped
        self._certainty_first, self._displacement_gain, self._detach_sampled = False, 1.0, False
        hidden = 2 * spec.channels + spec.embedding
        if spec.radius is not None:
            hidden += (2 * spec.radius + 1) ** 2
        self.proj = nn.Linear(inputs, spec.channels)
        self.disp_emb = nn.Conv2d(2, spec.embedding, 1)
        self.block1 = _Block(hidden)
        self.hidden_blocks = nn.Sequential(*[_Block(hidden) for _ in range(_HIDDEN_BLOCKS)])
        self.warp_head = nn.Conv2d(hidden, 2, 1)
        self.confidence_head = nn.Conv2d(hidden, 4, 1)

    def output_layer(self) -> nn.Conv2d:
        """Both heads as one convolution: displacement, then confidence."""
        one = nn.Conv2d(self.warp_head.in_channels, 6, 1)
        heads = (self.warp_head, self.confidence_head)
        one.weight = nn.Parameter(torch.cat([head.weight for head in heads]).detach(), requires_grad=False)
        biases = [head.bias for head in heads if head.bias is not None]
        one.bias = nn.Parameter(torch.cat(biases).detach(), requires_grad=False)
        return one

    def compilable(self) -> list[nn.Module]:
        return [self.block1, self.hidden_blocks]

    def forward(
        self, query: Tensor, support: Tensor, flow: Tensor, gain: float | Tensor = 1.0, share: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """
        Args:
            query, support: (B, C, H, W), projected.
            flow: float32 (B, 2, H, W), normalised (x, y) in the other image.
            gain: of the displacement before its embedding, (1, 2, 1, 1).
            share: of a prepared refiner; not used here.

        Returns:
            displacement (B, 2, H, W) in quarters of this scale's cells, and raw confidence (B, 4, H, W).
        """
        inputs = torch.cat([query, *self.pair_inputs(query, support, flow, gain)], 1)
        hidden = self.hidden_blocks(self.block1(inputs)).float()
        with torch.autocast(hidden.device.type, enabled=False):
            return self.warp_head(hidden), self.confidence_head(hidden)


class PreparedRomaV2Refiner(_Inputs, PreparedRefiner):
    """A `RomaV2Refiner` without batch norms, prepared for inference."""

    def __init__(self, refiner: RomaV2Refiner) -> None:
        """
        Args:
            refiner: batch norms folded.
        """
        super().__init__(refiner)
        self.proj = refiner.proj
        self._correlates_warped = refiner._correlates_warped

    def blocks_of_any_type(self) -> list[nn.Module]:
        """What may run in half precision: all between the inputs and the heads."""
        return [self.own, self.pair, *self.blocks, self.last]


def confidence_update(raw: Tensor) -> Tensor:
    """What a refiner adds: overlap logit, and the entries p00, p10, p11 of L L^T, L lower triangular.

    Args:
        raw: (B, 4, H, W): logit, then l00, l10, l11 before the softplus of the diagonal.
    """
    overlap, l00, l10, l11 = torch.split(raw, 1, 1)
    l00, l11 = (functional.softplus(x) + _LEAST_FACTOR for x in (l00, l11))
    return torch.cat([overlap, l00 * l00, l00 * l10, l10 * l10 + l11 * l11], 1)
