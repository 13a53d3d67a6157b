"""Matches as rays: undistorted normalised coordinates of both images with the noise of a pixel carried along."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ros2_densematch.geometry import poses
from ros2_densematch.geometry.camera import Camera
from ros2_densematch.geometry.correspondences import Correspondences

Float64 = NDArray[np.float64]

# A matcher's precision is believed within these standard deviations, in pixels.
_SIGMA_RANGE = (0.03, 10.0)


@dataclass(frozen=True, eq=False)
class Rays:
    """N matches in normalised coordinates.

    Attributes:
        x0, x1: float64 (N, 3), homogeneous undistorted normalised points of reference and query, last entry 1.
        per_pixel0, per_pixel1: float64 (N, 2, 2), derivative of the normalised point by the pixel.
        noise0, noise1: float64 (N, 2, 2), covariance of the normalised points up to one common factor: from the
            matcher's precision (all noise in the query then), or of one pixel in either image.
        focal0, focal1: mean focal lengths in pixels.
    """

    x0: Float64
    x1: Float64
    per_pixel0: Float64
    per_pixel1: Float64
    noise0: Float64
    noise1: Float64
    focal0: float
    focal1: float

    def __len__(self) -> int:
        return len(self.x0)

    def select(self, index: NDArray[np.bool_] | NDArray[np.intp]) -> Rays:
        """The rays that a boolean mask (N,) or an index array picks."""
        return Rays(
            self.x0[index],
            self.x1[index],
            self.per_pixel0[index],
            self.per_pixel1[index],
            self.noise0[index],
            self.noise1[index],
            self.focal0,
            self.focal1,
        )

    def query_pixels(self, difference: Float64) -> Float64:
        """Differences (N, 2) of normalised query points in pixels, to first order."""
        return np.asarray(np.linalg.solve(self.per_pixel1, difference[:, :, None])[:, :, 0], np.float64)


def prepare(m: Correspondences, camera0: Camera, camera1: Camera) -> tuple[Rays, NDArray[np.bool_]]:
    """Rays of the usable matches and a mask (N,) that says which these are: finite, and within both camera models."""
    n0, n1 = camera0.normalise(m.reference_xy), camera1.normalise(m.query_xy)
    usable = np.isfinite(n0).all(1) & np.isfinite(n1).all(1) & np.isfinite(m.score)
    n0, n1 = n0[usable], n1[usable]
    per_pixel0 = np.asarray(np.linalg.inv(camera0.pixel_jacobian(n0)), np.float64)
    per_pixel1 = np.asarray(np.linalg.inv(camera1.pixel_jacobian(n1)), np.float64)
    if m.precision is None:
        noise0 = np.asarray(per_pixel0 @ np.swapaxes(per_pixel0, 1, 2), np.float64)
        noise1 = np.asarray(per_pixel1 @ np.swapaxes(per_pixel1, 1, 2), np.float64)
    else:
        noise0 = np.zeros_like(per_pixel0)
        noise1 = per_pixel1 @ _covariance(m.precision[usable]) @ np.swapaxes(per_pixel1, 1, 2)
    ones = np.ones((len(n0), 1))
    rays = Rays(
        np.concatenate([n0, ones], 1),
        np.concatenate([n1, ones], 1),
        per_pixel0,
        per_pixel1,
        noise0,
        noise1,
        camera0.focal,
        camera1.focal,
    )
    return rays, usable


def _covariance(precision: NDArray[np.float32]) -> Float64:
    """Covariances (N, 2, 2) in px^2 of precisions (N, 3), clipped to the believable; a broken entry gets the median."""
    xx, xy, yy = precision.astype(np.float64).T
    broken = ~np.isfinite(precision).all(1) | (xx <= 0) | (yy <= 0) | (xx * yy <= xy * xy)
    if broken.all():
        return np.broadcast_to(np.eye(2), (len(precision), 2, 2))
    P = np.stack([xx, xy, xy, yy], 1).reshape(-1, 2, 2)
    P[broken] = np.median(P[~broken], 0)
    values, vectors = np.linalg.eigh(P)
    variance = np.clip(1.0 / np.maximum(values, 1e-12), _SIGMA_RANGE[0] ** 2, _SIGMA_RANGE[1] ** 2)
    return np.asarray((vectors * variance[:, None, :]) @ np.swapaxes(vectors, 1, 2), np.float64)


def depths(rays: Rays, R: Float64, t: Float64) -> tuple[Float64, Float64, Float64]:
    """Depths (N,) in reference and query, in units of |t|, and the angle (N,) in radians between the two rays.

    Linear triangulation: z1 x1 = z0 R x0 + t in the least-squares sense. Depths are infinite for parallel rays.
    """
    p = rays.x0 @ R.T
    pp, qq, pq = (p * p).sum(1), (rays.x1 * rays.x1).sum(1), (p * rays.x1).sum(1)
    pt, qt = p @ t, rays.x1 @ t
    cross = np.linalg.norm(np.cross(p, rays.x1), axis=1)
    determinant = np.maximum(cross * cross, 1e-300)
    z0 = (pq * qt - qq * pt) / determinant
    z1 = (pp * qt - pq * pt) / determinant
    return z0, z1, np.arctan2(cross, pq)


def epipolar_distance_px(rays: Rays, R: Float64, t: Float64) -> Float64:
    """Sampson distance (N,) in pixels of the original images (Hartley and Zisserman, 2nd ed., section 11.4.3)."""
    E = poses.skew(t) @ R
    line1, line0 = rays.x0 @ E.T, rays.x1 @ E
    # A line's coefficients per pixel: the transposed derivative of the normalised point by the pixel.
    a = np.einsum("nij,ni->nj", rays.per_pixel1, line1[:, :2])
    b = np.einsum("nij,ni->nj", rays.per_pixel0, line0[:, :2])
    norm = np.sqrt((a * a).sum(1) + (b * b).sum(1))
    return np.asarray(np.abs((rays.x1 * line1).sum(1)) / np.maximum(norm, 1e-300), np.float64)


def transfer_distance_px(rays: Rays, H: Float64) -> Float64:
    """Distance (N,) in query pixels between the query points and the reference points moved by H (3, 3), which acts on
    normalised coordinates (a rotation is such an H); infinite where a point is moved behind the query camera."""
    moved = rays.x0 @ H.T
    front = moved[:, 2] > 1e-9
    ahead = np.where(front, moved[:, 2], 1.0)
    distance = np.linalg.norm(rays.query_pixels(moved[:, :2] / ahead[:, None] - rays.x1[:, :2]), axis=1)
    return np.asarray(np.where(front, distance, np.inf), np.float64)
