"""Matches between the samples: the place near a query sample that looks like the reference's.

ConDL stops at the samples, so that a match is as exact as the grid is fine. Here the descriptor map itself is aligned:
the best place of a search around the sample, one pixel apart, then Gauss-Newton steps on the difference of the
descriptors (Lucas and Kanade's alignment with 128 channels). Then the grey values are, as in `gcm`, where the patches
agree. Where the images are equal the differences are zero, and the result exact.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from ros2_densematch.matchers.common.local_affine import estimate_local_affine
from ros2_densematch.matchers.common.patch_alignment import inverse_2x2, refine
from ros2_densematch.matchers.common.precision import patch_information
from ros2_densematch.nn.condl import STRIDE

_ROWS = 65_536  # descriptors in memory at once: 32 MiB
_STEPS = 3
_REACH = 1.5  # Gauss-Newton may move so many pixels from the best searched place
_LEAST_CORRELATION = 0.7  # of patches that are believed
_VOTING = 250
_NEIGHBOURS = 16
_PULL = 5.0
_SPAN = 1.0  # derivatives are differences over twice so many pixels: half a cell


class Aligned(NamedTuple):
    """Places of the query, in working pixels.

    Attributes:
        xy: (M, 2).
        information: (M, 2, 2), inverse covariance in 1 / px^2, from slope and remaining difference of the descriptors.
    """

    xy: Tensor
    information: Tensor


def align(feature_map: Tensor, descriptors: Tensor, xy: Tensor, radius: float) -> Aligned:
    """Moves query samples to where their partner's descriptor is.

    Args:
        feature_map: (h, w, C) unit descriptors of the query at stride 2.
        descriptors: (M, C) unit descriptors of the reference samples.
        xy: (M, 2) query samples in working pixels.
        radius: of the search, pixels in x and in y.
    """
    reach = max(1, round(radius))
    offsets = torch.arange(-reach, reach + 1, dtype=xy.dtype, device=xy.device)
    window = torch.stack(torch.meshgrid(offsets, offsets, indexing="xy"), -1).view(-1, 2)
    # the sample itself first: among equal places it stays
    window = window[window.abs().sum(1).argsort(stable=True)]
    parts = max(1, _ROWS // len(window))
    starts = range(0, len(xy), parts)
    found = [_align(feature_map, descriptors[k : k + parts], xy[k : k + parts], window) for k in starts]
    if not found:
        return Aligned(xy, xy.new_zeros(0, 2, 2))
    return Aligned(torch.cat([f.xy for f in found]), torch.cat([f.information for f in found]))


def align_grey(reference: Tensor, query: Tensor, reference_xy: Tensor, aligned: Aligned) -> Aligned:
    """Aligns patches of grey values where they agree; other matches stay as they are.

    Args:
        reference: (H0, W0) grey values in 0..255.
        query: (H1, W1).
        reference_xy: (M, 2) working pixels.
        aligned: where the descriptors agree.
    """
    x0, x1 = (xy.double().cpu().numpy() for xy in (reference_xy, aligned.xy))
    # some hundred matches, far enough from each other to tell a scale from noise, say how patches are turned and scaled
    voters = slice(None, None, max(1, len(x0) // _VOTING))
    linear = torch.from_numpy(
        estimate_local_affine(x0[voters], x1[voters], at=x0, neighbours=_NEIGHBOURS, pull=_PULL).linear
    ).to(aligned.xy)
    parts = 4096  # of 225 samples: some 15 MB
    found = [
        refine(reference, query, reference_xy[k : k + parts], aligned.xy[k : k + parts], linear[k : k + parts])
        for k in range(0, len(reference_xy), parts)
    ]
    correlation = torch.cat([f.correlation for f in found])
    agrees = correlation > _LEAST_CORRELATION
    xx, xy, yy = patch_information(torch.cat([f.information for f in found]), correlation).T
    information = torch.stack([torch.stack([xx, xy], -1), torch.stack([xy, yy], -1)], -2)
    information = information + 1e-2 * torch.eye(2, dtype=xx.dtype, device=xx.device)
    return Aligned(
        torch.where(agrees[:, None], torch.cat([f.query_xy for f in found]), aligned.xy),
        torch.where(agrees[:, None, None], information, aligned.information),
    )


def _align(feature_map: Tensor, descriptors: Tensor, xy: Tensor, window: Tensor) -> Aligned:
    places = xy[:, None] + window
    similarity = (interpolate(feature_map, places.view(-1, 2)).view(*places.shape[:2], -1) @ descriptors[..., None])[
        ..., 0
    ]
    index = similarity.argmax(1)
    start = places[torch.arange(len(places)), index]
    at, difference, slope = start, *_difference(feature_map, descriptors, start)
    normal = _normal(slope)
    for _ in range(_STEPS):
        move = (inverse_2x2(normal) @ (slope @ difference[..., None]))[..., 0]
        moved = start + (at - move - start).clamp(-_REACH, _REACH)
        difference_there, slope_there = _difference(feature_map, descriptors, moved)
        # half the squared difference of unit vectors is one less their cosine
        closer = difference_there.square().sum(1) < difference.square().sum(1)
        at = torch.where(closer[:, None], moved, at)
        difference = torch.where(closer[:, None], difference_there, difference)
        slope = torch.where(closer[:, None, None], slope_there, slope)
        normal = _normal(slope)
    channels = difference.shape[1]
    noise = difference.square().sum(1) / (channels - 2)
    return Aligned(at, normal / (noise + 1e-6)[:, None, None])


def _difference(feature_map: Tensor, descriptors: Tensor, xy: Tensor) -> tuple[Tensor, Tensor]:
    """Descriptors at (M, 2) places less the wanted ones, (M, C), and their derivatives by x and y, (M, 2, C)."""
    steps = xy.new_tensor([[0, 0], [1, 0], [-1, 0], [0, 1], [0, -1]]) * _SPAN
    there = interpolate(feature_map, (xy[:, None] + steps).view(-1, 2)).view(len(xy), 5, -1)
    slope = torch.stack([there[:, 1] - there[:, 2], there[:, 3] - there[:, 4]], 1) / (2 * _SPAN)
    return there[:, 0] - descriptors, slope


def _normal(slope: Tensor) -> Tensor:
    """The matrix of the normal equations (M, 2, 2), a little damped where the descriptors do not change."""
    return slope @ slope.transpose(1, 2) + 1e-4 * torch.eye(2, dtype=slope.dtype, device=slope.device)


def interpolate(feature_map: Tensor, xy: Tensor) -> Tensor:
    """Bilinear descriptors at pixels, of unit length.

    Args:
        feature_map: (h, w, C) descriptors at stride 2; beyond the rim its outermost cells go on.
        xy: (N, 2) pixels of the image.

    Returns:
        (N, C) float32.
    """
    height, width, channels = feature_map.shape
    at = (xy + 0.5) / STRIDE - 0.5
    x = at[:, 0].clamp(0, width - 1)
    y = at[:, 1].clamp(0, height - 1)
    left, top = x.floor().clamp(max=max(0, width - 2)), y.floor().clamp(max=max(0, height - 2))
    across, down = (x - left)[:, None], (y - top)[:, None]
    cells = feature_map.reshape(-1, channels)
    corner = (top * width + left).long()
    right = 1 if width > 1 else 0
    below = width if height > 1 else 0
    upper = torch.lerp(cells[corner].float(), cells[corner + right].float(), across)
    lower = torch.lerp(cells[corner + below].float(), cells[corner + below + right].float(), across)
    return functional.normalize(torch.lerp(upper, lower, down), dim=1)
