"""Alignment of patches with templates that were prepared once: inverse-compositional Gauss-Newton for the translation.

Baker and Matthews, "Lucas-Kanade 20 years on", IJCV 2004, section 3.2. Everything that depends on the reference image
alone (patch, gradients, Hessian) is a `Templates`; a step samples the query once and takes three weighted sums.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from ros2_densematch.arrays import Float32, Float64

_FLAT = 1e-3  # grey values: a patch with less contrast says nothing
_CONVERGED, _SHORT = 0.03, 0.06  # pixels: steps that need no look at where they lead, at any time and at the end
_INTERPOLATED = 32  # parts of a pixel that the interpolation tells apart
_WORTH_GATHERING = 0.75  # share of the matches that still move below which the others are left out
_ROWS, _BORDER = 32000, cv2.BORDER_REPLICATE  # OpenCV takes fewer than 2^15 rows at a time
_LONGEST_STEP = 1.0  # pixels, along each axis


@dataclass(frozen=True)
class Window:
    """Where a patch is sampled.

    Attributes:
        offsets: float32 (K, 2) pixels, in rows of `side`.
        weight: float32 (K,), of sum 1.
        side: samples along a side.
    """

    offsets: Float32
    weight: Float32
    side: int

    @staticmethod
    def square(radius: int) -> Window:
        """(2 radius + 1)^2 samples with Gaussian weights, standard deviation half the radius."""
        axis = np.arange(-radius, radius + 1, dtype=np.float32)
        offsets = np.stack(np.meshgrid(axis, axis), -1).reshape(-1, 2)
        weight = np.exp(-(offsets**2).sum(1) / (2 * (0.5 * radius) ** 2))
        return Window(offsets, (weight / weight.sum()).astype(np.float32), 2 * radius + 1)


class Templates(NamedTuple):
    """Reference side of N alignments.

    Attributes:
        basis: float32 (N, 3, K): the weighted patch of zero mean and unit variance, and its weighted gradients.
        of_one: float32 (N, 2), the weighted gradients' sums.
        of_template: float32 (N, 2), the weighted gradients times the patch.
        hessian: float32 (N, 3), upper triangle of the gradients' normal matrix.
        contrast: float32 (N,), standard deviation of the patch in grey values.
    """

    basis: Float32
    of_one: Float32
    of_template: Float32
    hessian: Float32
    contrast: Float32

    def select(self, index: NDArray[np.intp] | NDArray[np.bool_]) -> Templates:
        """Those that an index array or a mask picks."""
        return Templates(*(part[index] for part in self))

    def joined(self, other: Templates) -> Templates:
        """These followed by others."""
        return Templates(*(np.concatenate(pair) for pair in zip(self, other, strict=True)))


class Aligned(NamedTuple):
    """Result of an alignment.

    Attributes:
        xy: (N, 2) pixels of the query.
        correlation: (N,) of the two patches there, in [-1, 1].
        step: (N,) length of the last step in pixels: how well it converged.
    """

    xy: Float64
    correlation: Float64
    step: Float64


def make_templates(image: Float32, xy: Float64, window: Window, linear: Float64 | None = None) -> Templates:
    """Templates of patches of an image.

    Args:
        image: float32 (H, W) grey.
        xy: (N, 2) pixels.
        window: where each patch is sampled.
        linear: (N, 2, 2) maps of the offsets, or None for the identity.
    """
    side = window.side
    # one sample more on each side, for the central differences
    axis = np.arange(side + 2, dtype=np.float32) - (side + 1) / 2
    x, y = (a.ravel() for a in np.meshgrid(axis, axis))
    dx, dy = (x[None], y[None]) if linear is None else carried(x, y, linear)
    values = sample_patches(image, xy, dx, dy).reshape(-1, side + 2, side + 2)
    inner = values[:, 1:-1, 1:-1].reshape(len(xy), side * side)
    mean = inner @ window.weight
    deviation = np.sqrt(np.maximum((inner - mean[:, None]) ** 2 @ window.weight, 0))
    scale = (1 / (deviation + 1e-6))[:, None]
    template = (inner - mean[:, None]) * scale
    half = (0.5 * scale)[:, :, None]
    gx = ((values[:, 1:-1, 2:] - values[:, 1:-1, :-2]) * half).reshape(len(xy), side * side)
    gy = ((values[:, 2:, 1:-1] - values[:, :-2, 1:-1]) * half).reshape(len(xy), side * side)
    basis = np.stack([template, gx, gy], 1) * window.weight
    wx, wy = basis[:, 1], basis[:, 2]
    hessian = np.stack([(wx * gx).sum(1), (wx * gy).sum(1), (wy * gy).sum(1)], 1)
    of_template = np.stack([(wx * template).sum(1), (wy * template).sum(1)], 1)
    return Templates(basis, basis[:, 1:].sum(2), of_template, hessian, deviation.astype(np.float32))


def align(
    image: Float32,
    templates: Templates,
    window: Window,
    xy: Float64,
    linear: Float64,
    *,
    iterations: int,
    limit: float,
) -> Aligned:
    """Moves each query position to where its patch agrees best with the template.

    Args:
        image: float32 (H, W) grey of the query.
        templates: N of them.
        window: as they were made with.
        xy: (N, 2) pixels, the start.
        linear: (N, 2, 2) maps from reference to query offsets.
        iterations: Gauss-Newton steps.
        limit: no match moves further than this many pixels from its start.
    """
    correlation = np.full(len(xy), -1.0)
    position, best, last = xy.copy(), xy.copy(), np.zeros(len(xy))
    hessian = templates.hessian.astype(np.float64) + np.array([1e-4, 0.0, 1e-4])
    determinant = hessian[:, 0] * hessian[:, 2] - hessian[:, 1] ** 2
    level = np.zeros(len(xy), np.float32)
    rows: NDArray[np.intp] = np.arange(len(xy))  # of which the arrays hold something, one after the other
    active = np.ones(len(xy), np.bool_)  # those of the rows that still move
    basis, (dx, dy) = templates.basis, carried(window.offsets[:, 0], window.offsets[:, 1], linear)
    for iteration in range(iterations + 1):
        if not active.any():
            break
        # a place that the interpolation represents exactly; the step from there is not rounded
        at = np.rint(position[rows] * _INTERPOLATED) / _INTERPOLATED
        values = sample_patches(image, at, dx, dy)
        if iteration == 0:
            level = values @ window.weight
        # the mean of the first patch is taken off the others, so that the variance does not drown in rounding
        values -= level[rows, None]
        sums = np.matmul(basis, values[..., None])[..., 0].astype(np.float64)
        mean = (values @ window.weight).astype(np.float64)
        np.multiply(values, values, out=values)
        spread = np.sqrt(np.maximum(values @ window.weight - mean * mean, 0.0))
        scale = 1 / (spread + 1e-6)
        flat = (spread < _FLAT) | (templates.contrast[rows] < _FLAT)
        # the weighted template sums to nothing, so that the mean of the patch drops out
        now = np.where(flat, 0.0, sums[:, 0] * scale)
        error = (sums[:, 1:] - templates.of_one[rows] * mean[:, None]) * scale[:, None]
        a, b = (error - templates.of_template[rows]).T
        xx, xy_, yy = hessian[rows].T
        step = np.stack([yy * a - xy_ * b, xx * b - xy_ * a], 1) / determinant[rows, None]
        # a step in reference pixels, carried into the query
        step = -np.matmul(linear[rows], step[..., None])[..., 0]
        length = np.sqrt((step**2).sum(1))
        moved = at + step.clip(-_LONGEST_STEP, _LONGEST_STEP)
        allowed = ((moved - xy[rows]) ** 2).sum(1) <= limit * limit
        better = active & (now > correlation[rows])
        # a short step needs no look at where it leads: the correlation there is the same
        short = allowed & ~flat & (length < (_CONVERGED if iteration < iterations else _SHORT))
        correlation[rows[better]] = now[better]
        best[rows[better]] = np.where(short[:, None], moved, position[rows])[better]
        last[rows[active]] = length[active]
        going = active & allowed & ~(short & better)
        position[rows[going]] = moved[going]
        active = going
        if np.count_nonzero(going) < _WORTH_GATHERING * len(rows):
            rows, basis, dx, dy = rows[going], basis[going], dx[going], dy[going]
            active = np.ones(len(rows), np.bool_)
    return Aligned(best, correlation, last)


def carried_hessian(templates: Templates, linear: Float64) -> Float64:
    """(N, 3) upper triangle of the templates' normal matrices in pixels of the query.

    Args:
        templates: N of them.
        linear: (N, 2, 2) maps from reference to query offsets; a singular one gives zeros.
    """
    a, b, c, d = linear.reshape(-1, 4).T
    determinant = a * d - b * c
    scale = np.where(np.abs(determinant) > 1e-9, 1.0 / np.where(determinant == 0, 1.0, determinant), 0.0) ** 2
    xx, xy, yy = templates.hessian.T.astype(np.float64)
    # inverse(linear)^T H inverse(linear)
    return np.stack(
        [
            (d * d * xx - 2 * c * d * xy + c * c * yy) * scale,
            (-b * d * xx + (a * d + b * c) * xy - a * c * yy) * scale,
            (b * b * xx - 2 * a * b * xy + a * a * yy) * scale,
        ],
        axis=1,
    )


def carried(x: Float32, y: Float32, linear: Float64) -> tuple[Float32, Float32]:
    """Offsets x and y (K,) under N maps (N, 2, 2): x and y apart, each (N, K)."""
    a, b, c, d = linear.reshape(-1, 4).T.astype(np.float32)[..., None]
    return a * x + b * y, c * x + d * y


def sample_patches(image: Float32, xy: Float64, dx: Float32, dy: Float32) -> Float32:
    """Bilinear values of an image; beyond its rim the rim's hold.

    OpenCV rounds each position to the 32nd of a pixel.

    Args:
        image: float32 (H, W).
        xy: (N, 2) pixels.
        dx, dy: (N, K) offsets in pixels, or (1, K).

    Returns:
        (N, K).
    """
    x, y = xy.astype(np.float32).T[..., None]
    if len(xy) == 0:
        return np.zeros((0, dx.shape[1]), np.float32)
    parts = []
    for i in range(0, len(xy), _ROWS):
        part_x, part_y = (d if len(d) == 1 else d[i : i + _ROWS] for d in (dx, dy))
        at_x, at_y = x[i : i + _ROWS] + part_x, y[i : i + _ROWS] + part_y
        parts.append(np.asarray(cv2.remap(image, at_x, at_y, cv2.INTER_LINEAR, borderMode=_BORDER), np.float32))
    return parts[0] if len(parts) == 1 else np.concatenate(parts)
