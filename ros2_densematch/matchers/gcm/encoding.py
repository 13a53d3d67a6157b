"""What `gcm` keeps of one image: descriptors, key points of the saliency map, and one anchor in every cell."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import cached_property
from typing import NamedTuple

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from ros2_densematch.matchers.common.working_image import to_original
from ros2_densematch.matchers.gcm.guided_image import GuideImage
from ros2_densematch.matchers.gcm.guided_reference import GuidedReference
from ros2_densematch.matchers.gcm.network import GcmNetwork, pad_to_multiple, sample_descriptors

CELL = 8
_BORDER = 4
_MULTIPLE = 16


class Described(NamedTuple):
    """What a pass of the network says about an image, in pixels of the working image.

    Attributes:
        descriptors: (h, w, C) unit descriptors at stride 4.
        keypoints: (N, 2) pixels, most salient first.
        keypoint_descriptors: (N, C), of length 1.
        anchors: (rows, columns, 2) the best pixel of every cell, NaN where masked.
        anchor_descriptors: (rows columns, C) their unit descriptors.
    """

    descriptors: Tensor
    keypoints: Tensor
    keypoint_descriptors: Tensor
    anchors: NDArray[np.float32]
    anchor_descriptors: Tensor


class GcmEncoding:
    """One image as the network sees it (the working image), and its features: those that every match needs are there,
    the network runs when something of it is first asked for. Safe to use from several threads.

    Args:
        rgb: uint8 (H, W, 3), the working image.
        allowed: bool (H, W) or None.
        scale: (2,) working pixels per original pixel, x and y.
        device: of tensors.
        describe: runs the network on the working image.

    Attributes:
        guide: the image as a guided match reads it.
        guided: what a guided match keeps of it as its reference.
        thumbnails: view (turn, scale, tilt, axis) -> warped small version, made when a hypothesis first needs it.
    """

    def __init__(
        self,
        rgb: NDArray[np.uint8],
        allowed: NDArray[np.bool_] | None,
        scale: NDArray[np.float64],
        device: torch.device,
        describe: Callable[[], Described],
    ) -> None:
        self.rgb, self.allowed, self.scale = rgb, allowed, scale
        self.thumbnails: dict[tuple[float, ...], Thumbnail] = {}
        self.guide = GuideImage(np.asarray(cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY), np.uint8), allowed)
        self.guided = GuidedReference(self.guide)
        self._device = device
        self._describe = describe
        self._described: Described | None = None
        self._lock = threading.Lock()

    @property
    def described(self) -> bool:
        """Whether the network has run."""
        return self._described is not None

    @property
    def _features(self) -> Described:
        with self._lock:
            if self._described is None:
                self._described = self._describe()
            return self._described

    @cached_property
    def grey(self) -> Tensor:
        """Float (H, W) in 0..255."""
        return torch.from_numpy(self.guide.level(0)).to(self._device)

    @property
    def descriptors(self) -> Tensor:
        """(h, w, C), see `Described`."""
        return self._features.descriptors

    @property
    def keypoints(self) -> Tensor:
        """(N, 2), see `Described`."""
        return self._features.keypoints

    @property
    def keypoint_descriptors(self) -> Tensor:
        """(N, C), see `Described`."""
        return self._features.keypoint_descriptors

    @property
    def anchors(self) -> NDArray[np.float32]:
        """(rows, columns, 2), see `Described`."""
        return self._features.anchors

    @property
    def anchor_descriptors(self) -> Tensor:
        """(rows columns, C), see `Described`."""
        return self._features.anchor_descriptors

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) of the working image."""
        return self.guide.size

    def to_original(self, xy: NDArray[np.float64]) -> NDArray[np.float64]:
        """Working pixels to pixels of the original image (pixel centres stay centres)."""
        return to_original(xy, self.scale)


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
    """An image whose features are made when they are first asked for.

    Args:
        network: in evaluation mode, on the device that is to be used.
        rgb: uint8 (H, W, 3), not changed afterwards.
        allowed: bool (H, W), or None for everywhere.
        scale: (2,) working pixels per original pixel.
        keypoints: at most this many.
        threshold: least saliency of a key point.
        dtype: floating-point type of the network's weights.
    """
    device = next(network.parameters()).device

    def describe() -> Described:
        return _described(network, rgb, allowed, keypoints, threshold, device, dtype)

    return GcmEncoding(rgb, allowed, scale, device, describe)


@torch.inference_mode()
def _described(
    network: GcmNetwork,
    rgb: NDArray[np.uint8],
    allowed: NDArray[np.bool_] | None,
    keypoints: int,
    threshold: float,
    device: torch.device,
    dtype: torch.dtype,
) -> Described:
    """One pass of the network, key points and cell anchors."""
    height, width = rgb.shape[:2]
    tensor = torch.from_numpy(np.ascontiguousarray(rgb)).to(device).permute(2, 0, 1)[None].to(dtype) / 255
    tensor = pad_to_multiple(tensor, _MULTIPLE).contiguous(memory_format=torch.channels_last)
    features = network(tensor)
    saliency = features.saliency[0, 0, :height, :width].float()
    mask = None if allowed is None else torch.from_numpy(allowed).to(device)
    points = detect(saliency, mask, count=keypoints, threshold=threshold)
    dense = functional.normalize(features.descriptors.float(), dim=1)
    anchors = cell_anchors(np.asarray(cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY), np.float32), allowed)
    flat = torch.from_numpy(np.nan_to_num(anchors).reshape(1, -1, 2)).to(device)
    return Described(
        descriptors=dense[0].permute(1, 2, 0).contiguous(),
        keypoints=points,
        keypoint_descriptors=sample_descriptors(dense, points[None])[0],
        anchors=anchors,
        anchor_descriptors=sample_descriptors(dense, flat)[0],
    )


def detect(saliency: Tensor, allowed: Tensor | None, *, count: int, threshold: float, radius: int = 2) -> Tensor:
    """Local maxima of a saliency map.

    Args:
        saliency: (H, W) logits.
        allowed: bool (H, W), or None for everywhere.
        count: at most this many, the most salient ones.
        threshold: least logit.
        radius: a maximum must be the largest in a (2 radius + 1)^2 window.

    Returns:
        (N, 2) float pixels, most salient first.
    """
    chosen = (saliency == _largest_around(saliency, radius)) & (saliency > threshold)
    if allowed is not None:
        chosen &= allowed
    chosen[:_BORDER] = False
    chosen[-_BORDER:] = False
    chosen[:, :_BORDER] = False
    chosen[:, -_BORDER:] = False
    y, x = torch.nonzero(chosen, as_tuple=True)
    order = saliency[y, x].argsort(descending=True, stable=True)[:count]
    return torch.stack([x[order], y[order]], 1).to(saliency.dtype)


def _largest_around(saliency: Tensor, radius: int) -> Tensor:
    """(H, W): the largest value of the (2 radius + 1)^2 window around every pixel."""
    if saliency.device.type == "cpu":
        # the same maximum as the pooling below, at a hundredth of its time
        window = np.ones((2 * radius + 1, 2 * radius + 1), np.uint8)
        return torch.from_numpy(np.asarray(cv2.dilate(saliency.contiguous().numpy(), window), np.float32))
    return functional.max_pool2d(saliency[None, None], 2 * radius + 1, 1, radius)[0, 0]


def cell_anchors(grey: NDArray[np.float32], allowed: NDArray[np.bool_] | None) -> NDArray[np.float32]:
    """The pixel of every 8 x 8 cell that can be aligned best: the largest least eigenvalue of the structure tensor.

    Args:
        grey: float32 (H, W).
        allowed: bool (H, W), or None for everywhere.

    Returns:
        (rows, columns, 2) pixels; NaN where the mask leaves no pixel of the cell. Cells at the right and lower rim that
        the image fills in part are among them.
    """
    height, width = grey.shape
    rows, columns = -(-height // CELL), -(-width // CELL)
    strength = np.full((rows * CELL, columns * CELL), -1.0, np.float32)
    strength[:height, :width] = cv2.cornerMinEigenVal(grey, 5)
    if allowed is not None:
        strength[:height, :width][~allowed] = -1.0
    cells = strength.reshape(rows, CELL, columns, CELL).swapaxes(1, 2).reshape(rows, columns, CELL * CELL)
    best = cells.argmax(2)
    y, x = np.divmod(best, CELL)
    anchors = np.stack([x + CELL * np.arange(columns), y + CELL * np.arange(rows)[:, None]], 2).astype(np.float32)
    anchors[np.take_along_axis(cells, best[..., None], 2)[..., 0] < 0] = np.nan
    return anchors
