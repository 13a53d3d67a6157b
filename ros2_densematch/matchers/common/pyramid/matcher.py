"""What DFM and GCM do with the maps of two images, whichever network drew them."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from ros2_densematch.arrays import Image, Mask
from ros2_densematch.matchers.base import Encoding, RawMatches
from ros2_densematch.matchers.common.pyramid.cells import PyramidMatches, match_cells, refine_cells
from ros2_densematch.matchers.common.pyramid.config import PyramidConfig
from ros2_densematch.matchers.common.pyramid.homography import carried_back, initial_homography, inside, warped
from ros2_densematch.matchers.common.working_image import to_original, working_image
from ros2_densematch.matchers.network import NetworkMatcher
from ros2_densematch.nn.resnet import imagenet_normalise

# The map for the first homography has no stride of its own: it is one more map of the coarsest stride.
FIRST = 0
COARSEST = 16
STRIDES = (16, 8, 4, 2, 1)


@dataclass(frozen=True)
class PyramidEncoding:
    """What is kept of one image.

    Attributes:
        rgb: uint8 (H, W, 3), the working image: a query is warped before its maps are drawn once more.
        maps: stride (and `FIRST`) -> (C, ceil(H / 16) 16 / stride, ...). With two stages a query has `FIRST` alone, for
            the others are drawn of the warped image; they are added when the encoding serves as reference.
        scale: (2,) working pixels per original pixel.
    """

    rgb: Image
    maps: dict[int, Tensor]
    scale: NDArray[np.float64]

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) of the working image."""
        return self.rgb.shape[1], self.rgb.shape[0]

    def to_original(self, xy: NDArray[np.float64]) -> NDArray[np.float64]:
        """Working pixels to pixels of the original image."""
        return to_original(xy, self.scale)


class WorkingMatches(NamedTuple):
    """Matches in working pixels, before the bounds are checked.

    Attributes:
        reference: (N, 2).
        query: (N, 2).
        ratio: (N,) of the finest step.
        levels: cells of every stride, the coarsest first.
        homography: (3, 3), from the query to the reference; the identity where there was no first stage.
        first: cells that the homography was fitted to, or None.
    """

    reference: NDArray[np.float64]
    query: NDArray[np.float64]
    ratio: NDArray[np.float64]
    levels: list[PyramidMatches]
    homography: NDArray[np.float64]
    first: PyramidMatches | None


class PyramidMatcher(NetworkMatcher):
    """Base of DFM and GCM: a subclass draws the maps and names the thresholds."""

    config: PyramidConfig
    channels_last = False
    # how far from the rim of an image a match must stay, in pixels
    margin: int = 0

    @property
    @abstractmethod
    def ratios(self) -> Mapping[int, float]:
        """Threshold of the ratio test at each stride, and at `FIRST`."""

    @abstractmethod
    def draw_maps(self, image: Tensor) -> dict[int, Tensor]:
        """The maps of one image.

        Args:
            image: float (1, 3, H, W), ImageNet-normalised, zero-padded to multiples of 16.

        Returns:
            stride (16, 8, 4, 2, 1), and `FIRST` -> (1, C, H / stride, W / stride).
        """

    def draw_first(self, image: Tensor) -> Tensor:
        """The map for the first homography alone, (1, C, H / 16, W / 16); arguments as of `draw_maps`."""
        return self.draw_maps(image)[FIRST]

    @torch.inference_mode()
    def encode_working(
        self, rgb: Image, scale: NDArray[np.float64] | None = None, *, first_only: bool = False
    ) -> PyramidEncoding:
        """The maps of an image that is not resized any more."""
        scale = np.ones(2) if scale is None else scale
        if first_only:
            return PyramidEncoding(rgb, {FIRST: self.draw_first(self._prepared(rgb))[0]}, scale)
        return PyramidEncoding(rgb, self._all_maps(rgb), scale)

    def _prepared(self, rgb: Image) -> Tensor:
        tensor = torch.from_numpy(np.array(rgb, order="C")).to(self.device).permute(2, 0, 1)[None].float() / 255
        height, width = rgb.shape[:2]
        return functional.pad(imagenet_normalise(tensor), (0, -width % COARSEST, 0, -height % COARSEST))

    def _all_maps(self, rgb: Image) -> dict[int, Tensor]:
        padded = self._prepared(rgb)
        maps = {stride: found[0] for stride, found in self.draw_maps(padded).items()}
        for stride in STRIDES:
            wanted = tuple(side // stride for side in padded.shape[-2:])
            if stride not in maps or tuple(maps[stride].shape[1:]) != wanted:
                got = "nothing" if stride not in maps else str(tuple(maps[stride].shape[1:]))
                raise ValueError(
                    f"the backbone of {self.name} must give a map of {wanted} at stride {stride}, got {got}"
                )
        maps.setdefault(FIRST, maps[COARSEST])
        return maps

    def _completed(self, encoding: PyramidEncoding) -> dict[int, Tensor]:
        if COARSEST not in encoding.maps:
            encoding.maps.update(self._all_maps(encoding.rgb))
        return encoding.maps

    @torch.inference_mode()
    def match_working(self, reference: PyramidEncoding, query: PyramidEncoding) -> WorkingMatches:
        """All steps down the pyramid; `levels` holds the matches of each."""
        homography, first, own = np.eye(3), None, self._completed(reference)
        if self.config.two_stage:
            first = match_cells(own[FIRST], query.maps[FIRST], self.ratios[FIRST])
            homography = initial_homography(first)
        if np.array_equal(homography, np.eye(3)):
            maps = self._completed(query)
        else:
            maps = self._all_maps(warped(query.rgb, homography, reference.size))
        levels = [match_cells(own[COARSEST], maps[COARSEST], self.ratios[COARSEST])]
        for stride in STRIDES[1:]:
            levels.append(refine_cells(levels[-1], own[stride], maps[stride], self.ratios[stride]))
        finest = levels[-1]
        return WorkingMatches(
            finest.reference.cpu().numpy().astype(np.float64),
            carried_back(finest.query.cpu().numpy(), homography),
            finest.ratio.cpu().numpy().astype(np.float64),
            levels,
            homography,
            first,
        )

    def _encode(self, image: Image, *, reference: bool, mask: Mask | None) -> PyramidEncoding:
        rgb, _, scale = working_image(image, None, self.config.max_pixels)
        return self.encode_working(rgb, scale, first_only=self.config.two_stage and not reference)

    def _match(self, reference: Encoding, query: Encoding, *, max_matches: int | None, seed: int) -> RawMatches:
        a, b = cast(PyramidEncoding, reference.data), cast(PyramidEncoding, query.data)
        found = self.match_working(a, b)
        keep = inside(found.reference, found.query, a.size, b.size, margin=self.margin)
        return RawMatches(
            a.to_original(found.reference[keep]), b.to_original(found.query[keep]), 1.0 - found.ratio[keep]
        )
