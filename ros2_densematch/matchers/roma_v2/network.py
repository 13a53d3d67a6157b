"""RoMa v2's network: DINOv3, coarse matcher, VGG-19 and refiners; state-dict keys equal the released checkpoint's.

Edstedt et al., "RoMa v2: harder, better, faster, denser feature matching", arXiv 2511.15706, as released (2.0.0 and
2.0.1). The parts that depend on one image alone are methods of their own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from ros2_densematch.matchers.roma_v2.coarse import CoarseMatch, CoarseMatcher
from ros2_densematch.matchers.roma_v2.dpt_head import DptHead
from ros2_densematch.matchers.roma_v2.refiner import PreparedRomaV2Refiner, RomaV2Refiner, confidence_update
from ros2_densematch.nn.dinov3 import PATCH, Dinov3
from ros2_densematch.nn.grid import resize
from ros2_densematch.nn.refiner import RefinerSpec
from ros2_densematch.nn.vgg import VggPyramid

# published versions: their weights fit each other's operation, and then only match worse
VERSIONS = ("2.0.1", "2.0.0")

# scale -> channels of VGG, and the refiner
_REFINERS = {
    4: (256, RefinerSpec(192, 79, 3)),
    2: (128, RefinerSpec(48, 23, 1)),
    1: (64, RefinerSpec(12, 8, None)),
}
SCALES = tuple(_REFINERS)
# modules of VGG-19 with batch norm, up to the third max-pooling
_VGG_MODULES = 27
# side of an image, to which displacements are relative
_ANCHOR = 512


@dataclass(frozen=True)
class NetworkSize:
    """Widths and depths; VGG and the refiners are always the published ones.

    Attributes:
        width, depth, heads: of the backbone; at least 18 blocks.
        joint_width, joint_depth, joint_heads: of the joint transformer.
        levels, head_width: channels of the prediction head's levels and of its fusion.
    """

    width: int = 1024
    depth: int = 24
    heads: int = 16
    joint_width: int = 768
    joint_depth: int = 12
    joint_heads: int = 12
    levels: tuple[int, ...] = (256, 512, 1024, 1024)
    head_width: int = 256


# "small" is ours, for trying the training; weights say by their shapes which they are for
SIZES = {
    "published": NetworkSize(),
    "small": NetworkSize(
        width=64,
        depth=18,
        heads=2,
        joint_width=64,
        joint_depth=4,
        joint_heads=2,
        levels=(32, 32, 64, 64),
        head_width=32,
    ),
}


@dataclass(frozen=True)
class Layers:
    """What the backbone gives of one image: tokens (B, N, C) after blocks 11 and 17, and the grid of the patches."""

    first: Tensor
    second: Tensor
    grid: tuple[int, int]


@dataclass(frozen=True)
class Refined:
    """After a refiner.

    Attributes:
        warp: float32 (B, 2, h, w), normalised (x, y) in the other image, unbounded.
        confidence: float32 (B, 4, h, w): overlap logit, p00, p10, p11 of the precision in pixels of this map.
        warp_before: the warp that entered.
    """

    warp: Tensor
    confidence: Tensor
    warp_before: Tensor


@dataclass(frozen=True)
class Prediction:
    """Of the training forward: the coarse match, and scale -> refiner."""

    coarse: CoarseMatch
    refined: dict[int, Refined]


class RomaV2Network(nn.Module):
    """Released RoMa v2."""

    def __init__(self, *, version: str = VERSIONS[0], size: NetworkSize = SIZES["published"]) -> None:
        """
        Args:
            version: "2.0.1" or "2.0.0": which local correlation.
            size: the published one, or another.

        Raises:
            ValueError: another version.
        """
        super().__init__()
        if version not in VERSIONS:
            raise ValueError(f"unknown version {version!r} of roma_v2: choose one of {', '.join(VERSIONS)}")
        self.version = version
        self.f = Dinov3(width=size.width, depth=size.depth, heads=size.heads)
        head = DptHead(size.width, levels=size.levels, width=size.head_width)
        self.matcher = CoarseMatcher(
            size.width, head, joint_width=size.joint_width, depth=size.joint_depth, heads=size.joint_heads
        )
        self.refiners = nn.ModuleDict(
            {
                str(s): RomaV2Refiner(channels, spec, correlates_warped=version == "2.0.0")
                for s, (channels, spec) in _REFINERS.items()
            }
        )
        self.refiner_features = VggPyramid(19, batch_norm=True, count=_VGG_MODULES)

    def forward(self, query: Tensor, support: Tensor, *, refines: bool = True) -> Prediction:
        """One direction at one resolution, for training. The backbone gets no gradient.

        Args:
            query, support: (B, 3, H, W), ImageNet-normalised, sides multiples of 16.
            refines: run the refiners, which then alone get gradients: the published training is in two stages.
        """
        with torch.no_grad():
            layers = [self.layers(image) for image in (query, support)]
        with torch.set_grad_enabled(torch.is_grad_enabled() and not refines):
            tokens = [self.joint_tokens(of_image) for of_image in layers]
            own, other = self.matcher.mv_vit(*tokens, layers[0].grid)
            coarse = self.match_coarse(layers[0], self.fine_levels(layers[0]), own, other, with_attention=True)
        if not refines:
            return Prediction(coarse, {})
        maps = [self.projections(image) for image in (query, support)]
        return Prediction(coarse, self.refine(maps[0], maps[1], coarse.warp, coarse.overlap))

    def layers(self, image: Tensor) -> Layers:
        """Backbone of an image batch (B, 3, H, W), ImageNet-normalised, sides multiples of 16."""
        first, second = self.f(image.to(self.f.cls_token.dtype))
        return Layers(first, second, (image.shape[-2] // PATCH, image.shape[-1] // PATCH))

    def joint_tokens(self, layers: Layers) -> Tensor:
        """One image's input to the joint transformer: nothing behind it can be kept."""
        return self.matcher.mv_vit.project([layers.first, layers.second])

    def fine_levels(self, layers: Layers) -> list[Tensor]:
        """One image's first levels of the dense prediction head."""
        return self.matcher.head.fine_levels(layers.first, layers.grid)

    def projections(self, image: Tensor) -> dict[int, Tensor]:
        """VGG features of an image batch (B, 3, H, W), projected for the refiners: scale -> float32 (B, C, h, w)."""
        kind = next(self.refiner_features.parameters()).dtype
        return {s: self._refiner(s).project(features) for s, features in self.refiner_features.levels(image.to(kind))}

    def match_coarse(
        self,
        own: Layers,
        fine: list[Tensor],
        own_joint: Tensor,
        other_joint: Tensor,
        *,
        with_attention: bool = False,
    ) -> CoarseMatch:
        """One direction, from both results of the joint transformer."""
        match: CoarseMatch = self.matcher(
            fine, own.second, own_joint, other_joint, own.grid, with_attention=with_attention
        )
        return match

    def refine(
        self,
        own: dict[int, Tensor],
        other: dict[int, Tensor],
        warp: Tensor,
        confidence: Tensor,
        shares: dict[int, Tensor] | None = None,
    ) -> dict[int, Refined]:
        """One pass of the refiners, from the coarsest scale.

        Args:
            own, other: projections of both images at the size of this pass.
            warp: (B, 2, h, w), normalised.
            confidence: overlap logits (B, 1, h, w), or those and a precision (B, 4, h, w), which starts anew.
            shares: of `shares(own)`.
        """
        height, width = own[1].shape[-2:]
        gain = warp.new_tensor([width / _ANCHOR, height / _ANCHOR]).reshape(1, 2, 1, 1)
        outputs: dict[int, Refined] = {}
        overlap = confidence[:, :1]
        confidence = torch.cat([overlap, torch.zeros_like(overlap).expand(-1, 3, -1, -1)], 1)
        for s in SCALES:
            size = (own[s].shape[-2], own[s].shape[-1])
            warp, confidence = resize(warp.detach(), size), resize(confidence.detach(), size)
            displacement, raw = self._refiner(s)(own[s], other[s], warp, gain, (shares or {}).get(s))
            before = warp
            warp = warp + displacement / warp.new_tensor([4 * size[1], 4 * size[0]]).reshape(1, 2, 1, 1)
            confidence = confidence + confidence_update(raw)
            outputs[s] = Refined(warp, confidence, before)
        return outputs

    def shares(self, own: dict[int, Tensor]) -> dict[int, Tensor]:
        """What an image's projections contribute to the prepared refiners' first blocks; empty for unprepared ones."""
        refiners = {s: self._refiner(s) for s in own}
        return {s: r.share(own[s]) for s, r in refiners.items() if isinstance(r, PreparedRomaV2Refiner)}

    def drop_unused(self) -> None:
        """Takes out what the forward pass never reads: six blocks of the backbone."""
        self.f.drop_unused()

    def prepare_refiners(self) -> None:
        """Puts refiners for inference in place of those of the checkpoint; batch norms must be folded."""
        for s, refiner in self.refiners.items():
            self.refiners[s] = PreparedRomaV2Refiner(cast(RomaV2Refiner, refiner))

    def set_precision(self, dtype: torch.dtype) -> None:
        """Runs the heavy parts in another type.

        As in the released model the attention match, the head's last convolutions, the refiners' projections, sampling
        and heads, warps and confidences stay in float32. Batch norms must be folded, refiners prepared.
        """
        exact: list[nn.Module] = [
            self.f.rope_embed,
            self.matcher.mv_vit.rope_embed,
            self.matcher.head.scratch.output_conv2,
        ]
        kept = {id(t) for module in exact for t in [*module.parameters(), *module.buffers()]}
        parts: list[nn.Module] = [self.f, self.matcher.mv_vit, self.matcher.head, self.refiner_features]
        for refiner in self.refiners.values():
            parts += cast(PreparedRomaV2Refiner, refiner).blocks_of_any_type()
        for part in parts:
            part._apply(lambda t: t if id(t) in kept else t.to(dtype))  # type: ignore[no-untyped-call]

    def compilable(self) -> list[nn.Module]:
        """The parts that `torch.compile` speeds up."""
        parts: list[nn.Module] = [self.f, self.matcher.mv_vit, self.matcher.head, self.refiner_features]
        for s in SCALES:
            parts += self._refiner(s).compilable()
        return parts

    def _refiner(self, s: int) -> RomaV2Refiner | PreparedRomaV2Refiner:
        return cast(RomaV2Refiner, self.refiners[str(s)])
