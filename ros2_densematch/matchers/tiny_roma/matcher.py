"""`tiny_roma`: Tiny RoMa v1 as released; see `docs/matchers/tiny_roma.md`."""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
import torch

from ros2_densematch.matchers.base import Encoding, Image, Mask
from ros2_densematch.matchers.common.dense.matcher import SampledMatcher, State, torch_type
from ros2_densematch.matchers.common.dense.result import DenseResult
from ros2_densematch.matchers.common.dense.sampling import Sampling
from ros2_densematch.matchers.common.dense.weights import load_part
from ros2_densematch.matchers.tiny_roma.network import TinyFeatures, TinyRomaNetwork
from ros2_densematch.nn.batch_norm import fold_batch_norms
from ros2_densematch.nn.device import choose_device, to_channels_last
from ros2_densematch.nn.grid import resize

# the network's input sides are multiples of this
_MULTIPLE = 32
# images with more pixels are made smaller first
PRESETS = {"turbo": 160_000, "fast": 320_000, "base": 1_000_000, "precise": 2_500_000}


@dataclass(frozen=True)
class TinyEncoding:
    """What Tiny RoMa keeps of one image.

    Attributes:
        features: of the network.
        grid: (height, width) of the warp: the image's own, unless it was made smaller first.
    """

    features: TinyFeatures
    grid: tuple[int, int]


class TinyRomaMatcher(SampledMatcher):
    """The small model published with RoMa (Edstedt et al., CVPR 2024), on the XFeat backbone; reference to query."""

    name = "tiny_roma"

    def __init__(
        self,
        *,
        device: str = "auto",
        preset: str = "base",
        weights: str | State | None = None,
        dtype: str = "float32",
        position_rule: str = "released",
        sampling: Sampling | None = None,
    ) -> None:
        """
        Args:
            device: "auto", "cpu", "cuda" or "cuda:N".
            preset: one of `PRESETS`: the pixels beyond which an image is made smaller first.
            weights: None for the fetched tiny_roma_outdoor, "random", a file, or a state dictionary.
            dtype: "float32", "float16" or "bfloat16".
            position_rule: of the coarse match; see `TinyRomaNetwork`.
            sampling: None for the released balanced sampling, with the density against every 8th point on a CPU.

        Raises:
            ValueError: unknown preset, device, dtype or rule, or weights of another network.
            FileNotFoundError: the checkpoint was not fetched; the message names it, its licence and the command.
        """
        if preset not in PRESETS:
            raise ValueError(f"unknown preset {preset!r} of tiny_roma: choose one of {', '.join(PRESETS)}")
        self._device = choose_device(device)
        self._dtype = torch_type(dtype)
        super().__init__(sampling or Sampling(density_stride=8 if self._device.type == "cpu" else 1))
        self.preset = preset
        network = load_part(lambda: TinyRomaNetwork(position_rule=position_rule), "tiny_roma_outdoor", weights)
        network.eval().requires_grad_(False)
        fold_batch_norms(network)
        self.network = to_channels_last(network.to(device=self._device, dtype=self._dtype))

    @torch.inference_mode()
    def _encode(self, image: Image, *, reference: bool, mask: Mask | None) -> TinyEncoding:
        rgb = image if image.ndim == 3 else np.repeat(image[..., None], 3, 2)
        height, width = rgb.shape[:2]
        shrink = min(1.0, math.sqrt(PRESETS[self.preset] / (height * width)))
        if shrink < 1:
            height, width = max(1, round(height * shrink)), max(1, round(width * shrink))
            rgb = np.asarray(cv2.resize(rgb, (width, height), interpolation=cv2.INTER_AREA), np.uint8)
        tensor = torch.from_numpy(np.array(rgb, order="C")).permute(2, 0, 1)[None].to(self._device).float() / 255
        # the released code rounds down; an image smaller than one multiple is enlarged to it
        sides = [max(1, side // _MULTIPLE) * _MULTIPLE for side in (height, width)]
        tensor = resize(tensor, (sides[0], sides[1])).to(self._dtype)
        return TinyEncoding(self.network.features(tensor), (height, width))

    @torch.inference_mode()
    def dense(self, reference: Encoding, query: Encoding) -> list[DenseResult]:
        """The warp from reference to query, masks not applied; as released it is neither clamped nor bounded."""
        a: TinyEncoding = reference.data
        b: TinyEncoding = query.data
        last = self.network.match(a.features, b.features)[4]
        flow, certainty = resize(last.flow, a.grid), resize(last.certainty, a.grid).sigmoid()
        return [DenseResult(flow[0].permute(1, 2, 0), certainty[0, 0])]
