"""What `gcm` keeps of one image."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from ros2_densematch.matchers.gcm.keypoints import CELL, cell_anchors, detect
from ros2_densematch.matchers.gcm.network import GcmNetwork, pad_to_multiple, sample_descriptors

_MULTIPLE = 16


@dataclass
class GcmEncoding:
    """Features of one image, in pixels of the image that the network saw (the working image).

    Attributes:
        rgb: uint8 (H, W, 3), the working image.
        grey: float (H, W) in 0..255.
        descriptors: (h, w, C) unit descriptors at stride 4.
        keypoints: (N, 2) pixels, most salient first.
        keypoint_descriptors: (N, C), of length 1.
        anchors: (rows, columns, 2) the best pixel of every cell, NaN where masked.
        anchor_descriptors: (rows columns, C) their unit descriptors.
        allowed: bool (H, W) or None.
        scale: (2,) working pixels per original pixel, x and y.
        thumbnails: view (turn, scale, tilt, axis) -> warped small version, made when a hypothesis first needs it.
    """

    rgb: NDArray[np.uint8]
    grey: Tensor
    descriptors: Tensor
    keypoints: Tensor
    keypoint_descriptors: Tensor
    anchors: NDArray[np.float32]
    anchor_descriptors: Tensor
    allowed: NDArray[np.bool_] | None
    scale: NDArray[np.float64]
    thumbnails: dict[tuple[float, ...], Thumbnail] = field(default_factory=dict)

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) of the working image."""
        return self.grey.shape[1], self.grey.shape[0]

    def to_original(self, xy: NDArray[np.float64]) -> NDArray[np.float64]:
        """Working pixels to pixels of the original image (pixel centres stay centres)."""
        return (xy + 0.5) / self.scale - 0.5


class Thumbnail(NamedTuple):
    """What a hypothesis needs of a small, warped version of an encoded image; a keyframe keeps two dozen of them.

    Attributes:
        keypoints: (N, 2) its pixels.
        descriptors: (N, C) unit descriptors there.
        back: (2, 3) map from its pixels to the working image's.
    """

    keypoints: NDArray[np.float32]
    descriptors: Tensor
    back: NDArray[np.float64]


def working_image(
    image: NDArray[np.uint8], mask: NDArray[np.bool_] | None, max_pixels: int
) -> tuple[NDArray[np.uint8], NDArray[np.bool_] | None, NDArray[np.float64]]:
    """The image in RGB and at most `max_pixels` large, its mask, and the scale (x, y) that was applied."""
    rgb = image if image.ndim == 3 else np.asarray(cv2.cvtColor(image, cv2.COLOR_GRAY2RGB), np.uint8)
    height, width = rgb.shape[:2]
    factor = min(1.0, (max_pixels / (height * width)) ** 0.5)
    if factor == 1.0:
        # a copy, because hypotheses read it later, when the caller may have reused the memory
        return np.array(rgb, order="C") if rgb is image else rgb, mask, np.ones(2)
    size = max(16, round(width * factor)), max(16, round(height * factor))
    smaller = np.asarray(cv2.resize(rgb, size, interpolation=cv2.INTER_AREA), np.uint8)
    if mask is not None:
        mask = np.asarray(cv2.resize(mask.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST)) > 0
    return smaller, mask, np.array([size[0] / width, size[1] / height], np.float64)


@torch.inference_mode()
def encode_working_image(
    network: GcmNetwork,
    rgb: NDArray[np.uint8],
    allowed: NDArray[np.bool_] | None,
    scale: NDArray[np.float64],
    *,
    keypoints: int,
    threshold: float,
    dtype: torch.dtype = torch.float32,
) -> GcmEncoding:
    """One pass of the network, key points and cell anchors.

    Args:
        network: in evaluation mode, on the device that is to be used.
        rgb: uint8 (H, W, 3).
        allowed: bool (H, W), or None for everywhere.
        scale: (2,) working pixels per original pixel.
        keypoints: at most this many.
        threshold: least saliency of a key point.
        dtype: floating-point type of the network's weights.
    """
    device = next(network.parameters()).device
    height, width = rgb.shape[:2]
    tensor = torch.from_numpy(np.ascontiguousarray(rgb)).to(device).permute(2, 0, 1)[None].to(dtype) / 255
    tensor = pad_to_multiple(tensor, _MULTIPLE).contiguous(memory_format=torch.channels_last)
    features = network(tensor)
    saliency = features.saliency[0, 0, :height, :width].float()
    mask = None if allowed is None else torch.from_numpy(allowed).to(device)
    points = detect(saliency, mask, count=keypoints, threshold=threshold)
    dense = functional.normalize(features.descriptors.float(), dim=1)
    grey = np.asarray(cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY), np.float32)
    anchors = cell_anchors(grey, allowed)
    flat = torch.from_numpy(np.nan_to_num(anchors).reshape(1, -1, 2)).to(device)
    return GcmEncoding(
        rgb=rgb,
        grey=torch.from_numpy(grey).to(device),
        descriptors=dense[0].permute(1, 2, 0).contiguous(),
        keypoints=points,
        keypoint_descriptors=sample_descriptors(dense, points[None])[0],
        anchors=anchors,
        anchor_descriptors=sample_descriptors(dense, flat)[0],
        allowed=allowed,
        scale=scale,
    )


__all__ = ["CELL", "GcmEncoding", "encode_working_image", "working_image"]
