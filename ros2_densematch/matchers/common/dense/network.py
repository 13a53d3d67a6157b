"""The frame of DKM's and RoMa's networks: encode, condition, match coarsely, refine, and refine again when enlarged."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from ros2_densematch.nn.gaussian_process import Conditioned, GaussianProcess
from ros2_densematch.nn.grid import resize
from ros2_densematch.nn.prepared_refiner import PreparedRefiner
from ros2_densematch.nn.refiner import Refiner, RefinerInterface

Pyramid = dict[int, Tensor]

# scales of the refiners that the upsampling pass runs again
FINE_SCALES = (8, 4, 2, 1)


@dataclass(frozen=True)
class GlobalMatch:
    """What is known before the first refiner.

    Attributes:
        flow: float32 (B, 2, h, w), normalised (x, y) in the support image.
        certainty: logits, float32 (B, 1, h, w).
        anchor_logits: float32 (B, 4096, h, w) of a classifier, or None.
        coarser: scale -> (flow, certainty) of still coarser predictions that training supervises.
    """

    flow: Tensor
    certainty: Tensor
    anchor_logits: Tensor | None = None
    coarser: dict[int, tuple[Tensor, Tensor]] | None = None


@dataclass(frozen=True)
class ScaleOutput:
    """The prediction of one scale, with what the training losses need.

    Attributes:
        flow: float32 (B, 2, h, w), normalised (x, y) in the support image, not clamped.
        certainty: logits, float32 (B, 1, h, w).
        flow_before: the flow before the refiner of this scale.
        anchor_logits: of the global match, at the coarsest refined scale only.
        certainty_before: certainty logits of the global match, at the coarsest refined scale only.
    """

    flow: Tensor
    certainty: Tensor
    flow_before: Tensor
    anchor_logits: Tensor | None = None
    certainty_before: Tensor | None = None


class Decoder(nn.Module):
    """The modules that the checkpoints keep under `decoder.`; scales are the keys of the dictionaries."""

    def __init__(
        self,
        proj: dict[int, nn.Module],
        gps: dict[int, GaussianProcess],
        embedding_decoder: nn.Module,
        conv_refiner: dict[int, Refiner],
    ) -> None:
        super().__init__()
        self.proj = nn.ModuleDict({str(s): m for s, m in proj.items()})
        self.gps = nn.ModuleDict({str(s): m for s, m in gps.items()})
        self.embedding_decoder = embedding_decoder
        self.conv_refiner = nn.ModuleDict({str(s): m for s, m in conv_refiner.items()})


class DenseNetwork(nn.Module, ABC):
    """Two images to a dense warp; the parts that depend on one image alone are methods of their own."""

    decoder: Decoder

    @abstractmethod
    def pyramid(self, image: Tensor, *, fine: bool = False) -> Pyramid:
        """Features of an image batch (B, 3, H, W), as the decoder takes them.

        Args:
            image: ImageNet-normalised.
            fine: only the scales of the upsampling pass; deeper stages of the encoder are not run.
        """

    @abstractmethod
    def global_match(self, query: Pyramid, conditioned: dict[int, Conditioned]) -> GlobalMatch:
        """Where each query cell lies in the support image, at the coarsest refined scale (16)."""

    @abstractmethod
    def displacement_gain(self, height: int, width: int) -> float:
        """The refiners' gain for a pass of this image size."""

    def condition(self, support: Pyramid) -> dict[int, Conditioned]:
        """The Gaussian processes, conditioned on the support image; any number of `match_coarse` reuse it."""
        return {int(s): cast(GaussianProcess, gp).condition(support[int(s)]) for s, gp in self.decoder.gps.items()}

    def prepare_refiners(self) -> None:
        """Puts refiners for inference in place of those of the checkpoint; batch norms must be folded."""
        for s, refiner in self.decoder.conv_refiner.items():
            self.decoder.conv_refiner[s] = PreparedRefiner(cast(Refiner, refiner))

    def shares(self, query: Pyramid) -> Pyramid:
        """What the features of a pass contribute to the refiners' first blocks: scale -> (B, hidden, h, w).

        Any number of matches from this image, `match_coarse` or `match_fine`, reuse it. None for refiners as published.
        """
        refiners = self.decoder.conv_refiner.items()
        return {
            int(s): r.share(query[int(s)]) for s, r in refiners if int(s) in query and isinstance(r, PreparedRefiner)
        }

    def match_coarse(
        self,
        query: Pyramid,
        support: Pyramid,
        conditioned: dict[int, Conditioned],
        shares: Pyramid | None = None,
    ) -> dict[int, ScaleOutput]:
        """The coarse pass: scale -> prediction, for query cells in the support image; `shares` are of the query."""
        found = self.global_match(query, conditioned)
        outputs = {s: ScaleOutput(f, c, f) for s, (f, c) in (found.coarser or {}).items()}
        flow, certainty = found.flow, found.certainty
        outputs |= self._refine((16, *FINE_SCALES), query, support, flow, certainty, shares)
        first = outputs[16]
        outputs[16] = ScaleOutput(first.flow, first.certainty, first.flow_before, found.anchor_logits, found.certainty)
        return outputs

    def match_fine(
        self, query: Pyramid, support: Pyramid, flow: Tensor, certainty: Tensor, shares: Pyramid | None = None
    ) -> dict[int, ScaleOutput]:
        """The upsampling pass, from the finest flow and certainty of the coarse pass; `shares` are of the query."""
        return self._refine(FINE_SCALES, query, support, flow, certainty, shares)

    def forward(self, query: Tensor, support: Tensor) -> dict[int, ScaleOutput]:
        """The coarse pass on two image batches, for training: one direction, all scales.

        In training mode gradients stop between the scales, as in the released recipes.

        Args:
            query: (B, 3, H, W), ImageNet-normalised.
            support: (B, 3, H, W).

        Returns:
            scale -> prediction for query cells in the support image.
        """
        both = self.pyramid(torch.cat([query, support]))
        a = {s: f[: len(query)] for s, f in both.items()}
        b = {s: f[len(query) :] for s, f in both.items()}
        return self.match_coarse(a, b, self.condition(b))

    def _refine(
        self,
        scales: tuple[int, ...],
        query: Pyramid,
        support: Pyramid,
        flow: Tensor,
        certainty: Tensor,
        shares: Pyramid | None = None,
    ) -> dict[int, ScaleOutput]:
        height, width = query[1].shape[-2:]
        gain = self.displacement_gain(height, width)
        cell = torch.tensor([1 / (4 * width), 1 / (4 * height)], device=flow.device).reshape(1, 2, 1, 1)
        outputs: dict[int, ScaleOutput] = {}
        for i, s in enumerate(scales):
            size = (query[s].shape[-2], query[s].shape[-1])
            flow, certainty = resize(flow, size), resize(certainty, size)
            if self.training and i > 0:
                flow, certainty = flow.detach(), certainty.detach()
            refiner = cast(RefinerInterface, self.decoder.conv_refiner[str(s)])
            displacement, update = refiner(query[s], support[s], flow, gain, (shares or {}).get(s))
            before = flow
            flow, certainty = flow + s * cell * displacement, certainty + update
            outputs[s] = ScaleOutput(flow, certainty, before)
        return outputs

    def compilable(self) -> list[nn.Module]:
        """The parts that `torch.compile` speeds up: no tiles, no shapes that depend on the data."""
        parts = [*self.get_submodule("encoder").children(), self.decoder.embedding_decoder]
        for refiner in self.decoder.conv_refiner.values():
            parts += cast(RefinerInterface, refiner).compilable()
        return parts

    def set_precision(self, dtype: torch.dtype) -> None:
        """Runs the heavy parts in another type; Gaussian processes and the refiners' last convolutions stay float32."""
        exact: list[nn.Module] = [self.decoder.gps]
        exact += [refiner.get_submodule("out_conv") for refiner in self.decoder.conv_refiner.values()]
        kept = {id(p) for module in exact for p in module.parameters()}
        self._apply(lambda t: t.to(dtype) if t.is_floating_point() and id(t) not in kept else t)  # type: ignore[no-untyped-call]

    @property
    def dtype(self) -> torch.dtype:
        """The type of the images that `pyramid` takes."""
        return next(self.decoder.proj.parameters()).dtype
