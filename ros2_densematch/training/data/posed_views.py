"""Two views with depth and relative pose as a training pair: crops around what both see, exact points, dense truth.

Rendered scenes, MegaDepth, ScanNet and recordings with depth all end here. Views are free of lens distortion.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from ros2_densematch.arrays import Float32, Image
from ros2_densematch.training.data.crops import apply_homography, inside, kept_inside, pixel_grid, similarity, warp_crop
from ros2_densematch.training.data.sample import DenseTruth, Pair
from ros2_densematch.training.scenes.views import agrees, transfer

CANDIDATES = 6000
# Beyond this relative spread of the four depths around a point it lies on an edge: its depth is not known.
EDGE_SPREAD = 0.1

_Maps = tuple[NDArray[np.float64], NDArray[np.float64]]


class CropConfig(BaseModel):
    """How crops of two views are laid, and when a point counts as visible."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    rotation_deg: float = Field(
        12.0,
        ge=0,
        le=180,
        description="The crops are additionally turned against each other by at most this many degrees.",
    )
    min_scale: float = Field(
        1.0, gt=0, description="Crops have at least this scale, relative to the crop that fills the shorter side."
    )
    max_scale: float = Field(
        1.6, gt=0, description="Crops have at most this scale, relative to the crop that fills the shorter side."
    )
    relative_scale: float = Field(
        1.25, ge=1, description="The scale of the crops additionally differs by at most this factor."
    )
    tolerance: float = Field(0.01, gt=0, description="A point is visible when its depth differs by at most this share.")
    min_points: int = Field(60, ge=8, description="Crops with fewer points than this are laid again, elsewhere.")


@dataclass(frozen=True)
class ViewPair:
    """Two whole views.

    Attributes:
        image0, image1: uint8 RGB, of any two sizes.
        depth0, depth1: float32, of their images' sizes, along the optical axis; not finite = not known.
        K0, K1: (3, 3), pixels.
        T_1_from_0: (4, 4), in the unit of the depths.
        group: what the views show, see `training.sample`.
    """

    image0: Image
    image1: Image
    depth0: Float32
    depth1: Float32
    K0: NDArray[np.float64]
    K1: NDArray[np.float64]
    T_1_from_0: NDArray[np.float64]
    group: int = -1


def crop_pair(views: ViewPair, rng: np.random.Generator, size: int, config: CropConfig) -> Pair:
    """Two size x size crops around a place that both views see, with points and dense truth.

    Views that share nothing give a pair without points.
    """
    xy0, xy1 = _correspondences(rng, views, config.tolerance)
    shapes = (views.image0.shape, views.image1.shape)
    crop0, crop1, chosen = lay_crops(rng, size, xy0, xy1, shapes, config)
    return Pair(
        warp_crop(views.image0, crop0, size),
        warp_crop(views.image1, crop1, size),
        apply_homography(crop0, xy0[chosen]).astype(np.float32),
        apply_homography(crop1, xy1[chosen]).astype(np.float32),
        lambda: dense_from_views(views, crop0, crop1, size, config.tolerance),
        views.group,
    )


def dense_from_views(
    views: ViewPair, crop0: NDArray[np.float64], crop1: NDArray[np.float64], size: int, tolerance: float
) -> DenseTruth:
    """The dense truth between two crops, given the maps from view to crop pixels.

    A pixel is not known where view 0 has no depth, or where it would fall on a place of view 1 without depth; what lies
    beyond the border of view 0 is fill and visible nowhere.
    """
    xy0 = apply_homography(np.asarray(np.linalg.inv(crop0), np.float64), pixel_grid(size))
    height, width = views.depth0.shape
    real = inside(xy0, width, height)
    z0 = np.full(len(xy0), np.nan)
    z0[real] = _interpolated_depth(views.depth0, xy0[real])
    xy1, z1 = transfer(xy0, z0, views.K0, views.K1, views.T_1_from_0)
    found = np.isfinite(xy1).all(1)
    warp = np.full_like(xy1, np.nan)
    warp[found] = apply_homography(crop1, xy1[found])
    # behind camera 1 a point has a depth but no pixel: surely not visible
    behind = np.isfinite(z0) & ~np.isfinite(z1)
    height1, width1 = views.depth1.shape
    shown = found & inside(warp, size, size) & inside(xy1, width1, height1)
    visible = np.zeros(len(xy0), np.bool_)
    visible[shown] = agrees(xy1[shown], z1[shown], views.depth1, tolerance)
    decided = np.ones(len(xy0), np.bool_)
    decided[shown] = visible[shown] | np.isfinite(_interpolated_depth(views.depth1, xy1[shown]))
    known = ~real | behind | (found & decided)
    shape = (size, size)
    return DenseTruth(warp.astype(np.float32).reshape(*shape, 2), visible.reshape(shape), known.reshape(shape))


def _interpolated_depth(depth: Float32, xy: NDArray[np.float64]) -> NDArray[np.float64]:
    """Depth at positions (N, 2) inside the map: inverse depth is linear on a plane. NaN beside gaps and on edges."""
    height, width = depth.shape
    x0 = np.clip(np.floor(xy[:, 0]).astype(np.int64), 0, width - 2)
    y0 = np.clip(np.floor(xy[:, 1]).astype(np.int64), 0, height - 2)
    fx, fy = xy[:, 0] - x0, xy[:, 1] - y0
    corners = np.stack([depth[y0, x0], depth[y0, x0 + 1], depth[y0 + 1, x0], depth[y0 + 1, x0 + 1]], 1)
    weights = np.stack([(1 - fx) * (1 - fy), fx * (1 - fy), (1 - fx) * fy, fx * fy], 1)
    with np.errstate(divide="ignore", invalid="ignore"):
        inverse = 1 / corners.astype(np.float64)
        nearest, farthest = inverse.max(1), inverse.min(1)
        smooth = np.isfinite(nearest) & (farthest > 0) & (nearest - farthest < EDGE_SPREAD * nearest)
        return np.where(smooth, 1 / (inverse * weights).sum(1), np.nan)


def _correspondences(
    rng: np.random.Generator, views: ViewPair, tolerance: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Random pixels of view 0 that view 1 sees, and where: (N, 2) and (N, 2)."""
    height, width = views.depth0.shape
    grid = np.stack([rng.integers(width, size=CANDIDATES), rng.integers(height, size=CANDIDATES)], 1)
    z0 = views.depth0[grid[:, 1], grid[:, 0]].astype(np.float64)
    there = np.isfinite(z0)
    grid, z0 = grid[there], z0[there]
    xy1, z1 = transfer(grid.astype(np.float64), z0, views.K0, views.K1, views.T_1_from_0)
    seen = agrees(xy1, z1, views.depth1, tolerance)
    return grid[seen].astype(np.float64), xy1[seen]


def lay_crops(
    rng: np.random.Generator,
    size: int,
    xy0: NDArray[np.float64],
    xy1: NDArray[np.float64],
    shapes: tuple[tuple[int, ...], tuple[int, ...]],
    config: CropConfig,
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.bool_]]:
    """Maps from view to crop pixels around a common point, and which points lie in both crops."""
    (height0, width0), (height1, width1) = shapes[0][:2], shapes[1][:2]
    fit0, fit1 = size / min(height0, width0), size / min(height1, width1)
    centre = (size - 1) / 2
    best: tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.bool_]] | None = None
    for _ in range(4):
        scale = float(np.exp(rng.uniform(np.log(config.min_scale), np.log(config.max_scale))))
        relative = config.relative_scale ** float(rng.uniform(-0.5, 0.5))
        scale0, scale1 = fit0 * scale * relative, fit1 * scale / relative
        turn = np.radians(config.rotation_deg) * float(rng.uniform(-1, 1))
        anchor = int(rng.integers(len(xy0))) if len(xy0) else None
        jitter = rng.uniform(-0.2, 0.2, (2, 2)) * size / np.array([[fit0 * scale], [fit1 * scale]])
        at0, at1 = (np.zeros(2), np.zeros(2)) if anchor is None else (xy0[anchor], xy1[anchor])
        at0 = kept_inside(at0 + jitter[0], size, scale0, 0.0, width0, height0)
        at1 = kept_inside(at1 + jitter[1], size, scale1, turn, width1, height1)
        crop0 = similarity(scale0, 0.0, at0, centre)
        crop1 = similarity(scale1, turn, at1, centre)
        keep = inside(apply_homography(crop0, xy0), size, size) & inside(apply_homography(crop1, xy1), size, size)
        if best is None or keep.sum() > best[2].sum():
            best = (crop0, crop1, keep)
        if keep.sum() >= config.min_points * 4:
            break
    assert best is not None
    return best


def undistorted(image: Image, depth: Float32 | None, source_xy: NDArray[np.float32]) -> tuple[Image, Float32 | None]:
    """Image and depth without lens distortion, given for each pixel (H, W, 2) its place in the distorted image.

    Depth is taken from the nearest pixel: between two surfaces there is none.
    """
    x, y = np.ascontiguousarray(source_xy[..., 0]), np.ascontiguousarray(source_xy[..., 1])
    straight = cv2.remap(image, x, y, cv2.INTER_LINEAR).astype(np.uint8, copy=False)
    if depth is None:
        return straight, None
    filled = cv2.remap(depth, x, y, cv2.INTER_NEAREST, borderMode=cv2.BORDER_CONSTANT, borderValue=float("nan"))
    return straight, filled.astype(np.float32, copy=False)
