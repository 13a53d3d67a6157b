"""ConDL (arXiv 2408.02766): descriptors on a grid of any step or at key points, and mutual nearest neighbours."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from ros2_densematch.arrays import Image, Mask
from ros2_densematch.graphs.graph import Graph
from ros2_densematch.matchers.base import Encoding, RawMatches
from ros2_densematch.matchers.common.encoder_graph import encoder_graph, network_graph
from ros2_densematch.matchers.common.nearest_neighbours import mutual_nearest_neighbours
from ros2_densematch.matchers.common.precision import original_precision
from ros2_densematch.matchers.common.working_image import to_original, working_image
from ros2_densematch.matchers.condl.alignment import align, align_grey, interpolate
from ros2_densematch.matchers.condl.config import PRESETS, CondlConfig
from ros2_densematch.matchers.condl.graph import OUTPUTS, CondlEncoder
from ros2_densematch.matchers.network import NetworkMatcher, State
from ros2_densematch.matchers.result import best_first, usable
from ros2_densematch.nn.condl import MULTIPLE, CondlNetwork
from ros2_densematch.nn.resnet import imagenet_normalise

_KEYPOINTS = 4096
# Where all grey values within so many working pixels lie so close together there is nothing to tell places apart. They
# are averages over so many pixels squared, or the noise of a camera would do.
_NEIGHBOURHOOD = 16
_LEAST_CONTRAST = 6
_AVERAGED = 5


@dataclass(frozen=True)
class CondlEncoding:
    """Sampled descriptors of one image.

    Attributes:
        xy: (N, 2) working pixels.
        descriptors: (N, 128), of length 1.
        feature_map: (h, w, 128) all descriptors at stride 2, half precision; None where matches stay on the samples.
        grey: float (H, W) in 0..255; the same.
        scale: (2,) working pixels per original pixel.
        step: distance of neighbouring samples in working pixels.
    """

    xy: Tensor
    descriptors: Tensor
    feature_map: Tensor | None
    grey: Tensor | None
    scale: NDArray[np.float64]
    step: float

    def to_original(self, xy: Tensor) -> NDArray[np.float64]:
        """Original pixels (M, 2) of working pixels."""
        return to_original(xy.double().cpu().numpy(), self.scale)


class CondlMatcher(NetworkMatcher):
    """Dense descriptors and exact mutual nearest neighbours; see `docs/matchers/condl.md`."""

    name = "condl"
    PRESETS = PRESETS
    PARTS = ("encoder",)
    BACKENDS = ("torch", "onnx")
    channels_last = False
    config: CondlConfig
    network: CondlNetwork

    def _checkpoint(self) -> str:
        return "condl"

    def _build(self, state: State | None) -> CondlNetwork:
        return CondlNetwork()

    def _graph(self, part: str, network: CondlNetwork, reference: Image, query: Image) -> Graph:
        rgb, _, _ = working_image(reference, None, self.config.max_pixels)
        return encoder_graph(self.name, CondlEncoder(network).eval(), rgb, OUTPUTS, multiple=MULTIPLE)

    def _network_graph(self, network: CondlNetwork) -> Graph:
        return network_graph(self.name, network, OUTPUTS, multiple=MULTIPLE)

    @torch.inference_mode()
    def _encode(self, image: Image, *, reference: bool, mask: Mask | None) -> CondlEncoding:
        rgb, allowed, scale = working_image(image, mask, self.config.max_pixels)
        height, width = rgb.shape[:2]
        if self.config.detector == "grid":
            xy = grid_points(width, height, self.config.step)
        else:
            points = cv2.SIFT.create(_KEYPOINTS).detect(cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY), None)
            xy = torch.tensor([p.pt for p in points], dtype=torch.float32).view(-1, 2)
        usable = textured(rgb)
        if allowed is not None:
            usable &= allowed
        x, y = (xy + 0.5).floor().long().T
        xy = xy[torch.from_numpy(usable)[y.clamp(0, height - 1), x.clamp(0, width - 1)]].to(self.device)
        tensor = torch.from_numpy(np.ascontiguousarray(rgb)).to(self.device).permute(2, 0, 1)[None].float() / 255
        padded = functional.pad(imagenet_normalise(tensor), (0, -width % MULTIPLE, 0, -height % MULTIPLE))
        feature_map = self.draw(padded)[0].permute(1, 2, 0)
        descriptors = interpolate(feature_map, xy)
        if not self.config.subpixel:
            return CondlEncoding(xy, descriptors, None, None, scale, self.config.step)
        grey = torch.from_numpy(np.asarray(cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY), np.float32)).to(self.device)
        return CondlEncoding(xy, descriptors, feature_map.half(), grey, scale, self.config.step)

    def draw(self, image: Tensor) -> Tensor:
        """Unit descriptors (1, 128, H / 2, W / 2) of a float image (1, 3, H, W), ImageNet-normalised, even sides."""
        descriptors: Tensor = self.network(image)
        return descriptors

    @torch.inference_mode()
    def _match(self, reference: Encoding, query: Encoding, *, max_matches: int | None, seed: int) -> RawMatches:
        a, b = cast(CondlEncoding, reference.data), cast(CondlEncoding, query.data)
        mutual = mutual_nearest_neighbours(a.descriptors, b.descriptors)
        xy0, xy1 = a.to_original(a.xy[mutual.first]), b.to_original(b.xy[mutual.second])
        similarity = mutual.similarity.cpu().numpy()
        # a mask that was resized may differ from the original one at its rim
        kept = np.flatnonzero(usable(reference, query, xy0, xy1) & (similarity > self.config.min_similarity))
        # placing a match costs: only those that are wanted
        chosen = kept[best_first(similarity[kept], max_matches)]
        placed, precision = self._place(a, b, query, mutual.first[chosen], mutual.second[chosen])
        return RawMatches(xy0[chosen], placed, similarity[chosen], precision, seen=(xy0[kept], xy1[kept]))

    def _place(
        self, a: CondlEncoding, b: CondlEncoding, query: Encoding, first: Tensor, second: Tensor
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Query places (M, 2) of matches, original pixels, and their precision (M, 3)."""
        xy = b.to_original(b.xy[second])
        # a sample stands for its cell: a uniform error of the step's width on either side
        variance = (b.step**2 + a.step**2) / 12 / b.scale**2
        precision = np.tile([1 / variance[0], 0.0, 1 / variance[1]], (len(xy), 1))
        if a.grey is None or b.feature_map is None or b.grey is None or len(xy) == 0:
            return xy, precision
        aligned = align(b.feature_map, a.descriptors[first], b.xy[second], b.step / 2)
        aligned = align_grey(a.grey, b.grey, a.xy[first], aligned)
        moved = b.to_original(aligned.xy)
        upper = aligned.information.flatten(1)[:, [0, 1, 3]].double().cpu().numpy()
        width, height = query.size
        inside = ((moved >= -0.5) & (moved <= np.array([width, height]) - 0.5)).all(1) & query.allows(moved)
        xy[inside] = moved[inside]
        precision[inside] = original_precision(upper, b.scale)[inside]
        return xy, precision


def textured(rgb: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """bool (H, W): pixels in whose neighbourhood the grey values differ by more than noise."""
    grey = cv2.blur(cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY), (_AVERAGED, _AVERAGED))
    kernel = np.ones((2 * _NEIGHBOURHOOD + 1, 2 * _NEIGHBOURHOOD + 1), np.uint8)
    return np.asarray(cv2.subtract(cv2.dilate(grey, kernel), cv2.erode(grey, kernel)) >= _LEAST_CONTRAST)


def grid_points(width: int, height: int, step: float) -> Tensor:
    """Equidistant points (N, 2), row by row, each in the middle of its cell of `step` x `step` pixels."""
    x, y = (torch.arange(max(1, int(side / step)), dtype=torch.float32) * step for side in (width, height))
    # centred, so that both rims are equally far
    x, y = x + (width - 1 - float(x[-1])) / 2, y + (height - 1 - float(y[-1])) / 2
    rows, columns = torch.meshgrid(y, x, indexing="ij")
    return torch.stack([columns.reshape(-1), rows.reshape(-1)], 1)
