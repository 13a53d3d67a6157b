"""Matches as rays: undistorted normalised coordinates of both images with the noise of a pixel carried along."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ros2_densematch.arrays import Float64
from ros2_densematch.geometry import poses
from ros2_densematch.geometry.camera import Camera
from ros2_densematch.geometry.correspondences import Correspondences
from ros2_densematch.geometry.intrinsics import IntrinsicUncertainty
from ros2_densematch.geometry.shared_errors import shared_derivatives

# A matcher's precision is believed within these standard deviations, in pixels.
_SIGMA_RANGE = (0.03, 10.0)
CELLS_A_ROW = 7  # `Rays.cell` counts the tiles row by row
_TILES = 6  # along the longer side: the reach of what neighbouring matches share, on rendered pairs


@dataclass(frozen=True, eq=False)
class Rays:
    """N matches in normalised coordinates. The matches are the last axis: every formula works on whole rows.

    Attributes:
        x0, x1: float64 (3, N), homogeneous undistorted normalised points of reference and query, last row 1.
        per_pixel0, per_pixel1: float64 (2, 2, N), derivative of the normalised point by the pixel.
        noise0, noise1: float64 (3, N), covariance xx, xy, yy of the normalised points up to one common factor: from the
            matcher's precision (all noise in the query then), or of one pixel in either image.
        focal0, focal1: mean focal lengths in pixels.
        shared0, shared1: float64 (Q, 2, N), derivative of the normalised points by Q parameters that all matches share
            (the calibration), each of unit variance.
        cell: intp (N,), tile of the reference image in which the match lies: matches in one tile err together.
    """

    x0: Float64
    x1: Float64
    per_pixel0: Float64
    per_pixel1: Float64
    noise0: Float64
    noise1: Float64
    focal0: float
    focal1: float
    shared0: Float64
    shared1: Float64
    cell: NDArray[np.intp]

    def __len__(self) -> int:
        return int(self.x0.shape[1])

    def select(self, index: NDArray[np.bool_] | NDArray[np.intp]) -> Rays:
        """The rays that a boolean mask (N,) or an index array picks."""
        chosen = np.flatnonzero(index) if index.dtype == np.bool_ else index
        return Rays(
            x0=np.take(self.x0, chosen, 1),
            x1=np.take(self.x1, chosen, 1),
            per_pixel0=np.take(self.per_pixel0, chosen, 2),
            per_pixel1=np.take(self.per_pixel1, chosen, 2),
            noise0=np.take(self.noise0, chosen, 1),
            noise1=np.take(self.noise1, chosen, 1),
            focal0=self.focal0,
            focal1=self.focal1,
            shared0=np.take(self.shared0, chosen, 2),
            shared1=np.take(self.shared1, chosen, 2),
            cell=self.cell[chosen],
        )


def prepare(
    m: Correspondences, camera0: Camera, camera1: Camera, uncertainty: IntrinsicUncertainty
) -> tuple[Rays, NDArray[np.bool_]]:
    """Rays of the usable matches and a mask (N,) that says which these are: finite, and within both camera models.

    `uncertainty` is that of the calibrations that do not carry one.
    """
    n0, n1 = camera0.normalise(m.reference_xy), camera1.normalise(m.query_xy)
    usable = np.isfinite(n0).all(1) & np.isfinite(n1).all(1) & np.isfinite(m.score)
    n0, n1 = n0[usable], n1[usable]
    per_pixel0, per_pixel1 = _per_pixel(camera0, n0), _per_pixel(camera1, n1)
    if m.precision is None:
        noise0, noise1 = spread(per_pixel0, None), spread(per_pixel1, None)
    else:
        noise0, noise1 = np.zeros((3, len(n0))), spread(per_pixel1, _covariance(m.precision[usable]))
    x0, x1 = np.ones((3, len(n0))), np.ones((3, len(n0)))
    x0[:2], x1[:2] = n0.T, n1.T
    xy = m.reference_xy[usable].astype(np.float64), m.query_xy[usable].astype(np.float64)
    shared = shared_derivatives(camera0, camera1, xy, (n0, n1), (per_pixel0, per_pixel1), uncertainty)
    return Rays(
        x0=x0,
        x1=x1,
        per_pixel0=per_pixel0,
        per_pixel1=per_pixel1,
        noise0=noise0,
        noise1=noise1,
        focal0=camera0.focal,
        focal1=camera1.focal,
        shared0=shared[0],
        shared1=shared[1],
        cell=_cells(xy[0], camera0),
    ), usable


def _cells(xy: Float64, camera: Camera) -> NDArray[np.intp]:
    size = max(camera.width, camera.height) / _TILES
    tile = np.floor(xy / size).astype(np.intp)
    return np.asarray(tile[:, 1] * CELLS_A_ROW + np.minimum(tile[:, 0], CELLS_A_ROW - 1), np.intp)


def with_drift(rays: Rays, drift_px: float) -> Rays:
    """The rays with more shared parameters: a slow drift of the matches over the image, linear in the pixel, with a
    standard deviation of `drift_px` for each of its six coefficients. Matches err together over whole surfaces."""
    if drift_px == 0:
        return rays
    spread_xy = rays.x0[:2] * (rays.focal0 / _half_extent(rays))
    basis = np.concatenate([np.ones((1, len(rays))), spread_xy])
    pixels = rays.per_pixel1.transpose(1, 0, 2)  # (2 pixel axes, 2, N)
    field = (drift_px * basis[:, None, None] * pixels[None]).reshape(6, 2, -1)
    return replace(
        rays,
        shared0=np.concatenate([rays.shared0, np.zeros_like(field)]),
        shared1=np.concatenate([rays.shared1, field]),
    )


def _half_extent(rays: Rays) -> float:
    """Root mean square distance in pixels of the reference points from their centre: where the drift counts fully."""
    if len(rays) == 0:
        return 1.0
    return max(float(rays.focal0 * np.sqrt(rays.x0[:2].var(1).sum())), 1.0)


def recalibrated(rays: Rays, parameters: Float64) -> Rays:
    """The rays as they are when the first of the shared parameters have the values (Q',) instead of 0."""
    x0, x1 = rays.x0.copy(), rays.x1.copy()
    x0[:2] += np.tensordot(parameters, rays.shared0[: len(parameters)], 1)
    x1[:2] += np.tensordot(parameters, rays.shared1[: len(parameters)], 1)
    return replace(rays, x0=x0, x1=x1)


def _per_pixel(camera: Camera, normalised: Float64) -> Float64:
    J = np.moveaxis(camera.pixel_jacobian(normalised), 0, 2)
    determinant = J[0, 0] * J[1, 1] - J[0, 1] * J[1, 0]
    inverse = np.stack([np.stack([J[1, 1], -J[0, 1]]), np.stack([-J[1, 0], J[0, 0]])]) / determinant
    return np.asarray(inverse, np.float64)


def spread(A: Float64, covariance: Float64 | None) -> Float64:
    """Rows xx, xy, yy of A C A^T for matrices A (2, 2, N) and covariances C given as rows (3, N), or the identity."""
    xx, xy, yy = (1.0, 0.0, 1.0) if covariance is None else covariance
    u, v = A[:, 0] * xx + A[:, 1] * xy, A[:, 0] * xy + A[:, 1] * yy
    return np.stack([u[0] * A[0, 0] + v[0] * A[0, 1], u[0] * A[1, 0] + v[0] * A[1, 1], u[1] * A[1, 0] + v[1] * A[1, 1]])


def _covariance(precision: NDArray[np.float32]) -> Float64:
    """Covariances, rows (3, N) in px^2, of precisions (N, 3), clipped to the believable; a broken entry gets the
    median."""
    xx, xy, yy = precision.astype(np.float64).T
    with np.errstate(invalid="ignore"):
        broken = ~np.isfinite(precision).all(1) | ~((xx > 0) & (yy > 0) & (xx * yy > xy * xy))
    if broken.all():
        return np.stack([np.ones(len(xx)), np.zeros(len(xx)), np.ones(len(xx))])
    P = np.stack([xx, xy, xy, yy], 1).reshape(-1, 2, 2)
    P[broken] = np.median(P[~broken], 0)
    values, vectors = np.linalg.eigh(P)
    variance = np.clip(1.0 / np.maximum(values, 1e-12), _SIGMA_RANGE[0] ** 2, _SIGMA_RANGE[1] ** 2)
    C = (vectors * variance[:, None, :]) @ np.swapaxes(vectors, 1, 2)
    return np.asarray(np.stack([C[:, 0, 0], C[:, 0, 1], C[:, 1, 1]]), np.float64)


def depths(rays: Rays, R: Float64, t: Float64) -> tuple[Float64, Float64, Float64]:
    """Depths (N,) in reference and query, in units of |t|, and the angle (N,) in radians between the two rays.

    Linear triangulation: z1 x1 = z0 R x0 + t in the least-squares sense. Depths are huge for parallel rays.
    """
    p, q = R @ rays.x0, rays.x1
    pp, qq, pq = (p * p).sum(0), (q * q).sum(0), (p * q).sum(0)
    pt, qt = t @ p, t @ q
    squared = (p[1] * q[2] - p[2] * q[1]) ** 2 + (p[2] * q[0] - p[0] * q[2]) ** 2 + (p[0] * q[1] - p[1] * q[0]) ** 2
    determinant = np.maximum(squared, 1e-300)
    z0 = (pq * qt - qq * pt) / determinant
    z1 = (pp * qt - pq * pt) / determinant
    return z0, z1, np.arctan2(np.sqrt(squared), pq)


def epipolar_distance_px(rays: Rays, R: Float64, t: Float64) -> Float64:
    """Sampson distance (N,) in pixels of the original images (Hartley and Zisserman, 2nd ed., section 11.4.3)."""
    E = poses.skew(t) @ R
    line1, line0 = E @ rays.x0, E.T @ rays.x1
    # A line's coefficients per pixel: the transposed derivative of the normalised point by the pixel.
    A, B = rays.per_pixel1, rays.per_pixel0
    squared = (A[0, 0] * line1[0] + A[1, 0] * line1[1]) ** 2 + (A[0, 1] * line1[0] + A[1, 1] * line1[1]) ** 2
    squared += (B[0, 0] * line0[0] + B[1, 0] * line0[1]) ** 2 + (B[0, 1] * line0[0] + B[1, 1] * line0[1]) ** 2
    return np.asarray(np.abs((rays.x1 * line1).sum(0)) / np.sqrt(np.maximum(squared, 1e-300)), np.float64)


def transfer_distance_px(rays: Rays, H: Float64) -> Float64:
    """Distance (N,) in query pixels between the query points and the reference points moved by H (3, 3), which acts on
    normalised coordinates (a rotation is such an H); infinite where a point is moved behind the query camera."""
    moved = H @ rays.x0
    front = moved[2] > 1e-9
    difference = moved[:2] / np.where(front, moved[2], 1.0) - rays.x1[:2]
    A = rays.per_pixel1
    # Its inverse is the derivative of the pixel by the normalised point.
    u = A[1, 1] * difference[0] - A[0, 1] * difference[1]
    v = A[0, 0] * difference[1] - A[1, 0] * difference[0]
    distance = np.hypot(u, v) / np.abs(A[0, 0] * A[1, 1] - A[0, 1] * A[1, 0])
    return np.asarray(np.where(front, distance, np.inf), np.float64)
