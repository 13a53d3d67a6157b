"""True correspondences between two rendered frames."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ros2_densematch.arrays import Float32, Float64
from ros2_densematch.geometry.camera import Camera


def warp(
    depth0: Float32,
    camera0: Camera,
    T_world_from_camera0: Float64,
    depth1: Float32,
    camera1: Camera,
    T_world_from_camera1: Float64,
    *,
    tolerance: float = 0.01,
) -> tuple[Float64, NDArray[np.bool_]]:
    """Where each pixel of frame 0 lies in frame 1, and whether it is seen there.

    Args:
        depth0: float32 (H0, W0), metres along the optical axis, 0 where unknown.
        camera0: pinhole camera of frame 0.
        T_world_from_camera0: (4, 4).
        depth1: float32 (H1, W1) of frame 1, for the depth test.
        camera1: pinhole camera of frame 1.
        T_world_from_camera1: (4, 4).
        tolerance: largest relative difference between a point's depth in frame 1 and the depth seen there.

    Returns:
        xy1, float64 (H0, W0, 2), pixels in frame 1 (NaN where depth0 is unknown or the point lies behind camera 1);
        visible, bool (H0, W0). Pixels next to an outline of frame 1 count as hidden: the depth there is a mixture.
    """
    height, width = depth0.shape
    y, x = np.mgrid[0:height, 0:width].astype(np.float64)
    rays = np.stack([x, y, np.ones_like(x)], -1) @ np.linalg.inv(camera0.K).T
    motion = np.linalg.inv(T_world_from_camera1) @ T_world_from_camera0
    points = (rays * depth0[..., None].astype(np.float64)) @ motion[:3, :3].T + motion[:3, 3]
    known = (depth0 > 0) & (points[..., 2] > 1e-6)
    projected = points @ camera1.K.T
    with np.errstate(divide="ignore", invalid="ignore"):
        xy1 = np.where(known[..., None], projected[..., :2] / projected[..., 2:], np.nan)
    height1, width1 = depth1.shape
    inside = known & (xy1 >= 0).all(-1) & (xy1[..., 0] <= width1 - 1) & (xy1[..., 1] <= height1 - 1)
    seen = _inverse_depth_at(depth1, np.where(inside[..., None], xy1, 0.0))
    visible = inside & (np.abs(seen * points[..., 2] - 1.0) < tolerance)
    return xy1, visible


def _inverse_depth_at(depth: Float32, xy: Float64) -> Float64:
    """Inverse depth between pixels: on a plane it is linear in the pixel, so that interpolation is exact."""
    with np.errstate(divide="ignore"):
        inverse = np.where(depth > 0, 1.0 / depth.astype(np.float64), 0.0)
    x0 = np.clip(np.floor(xy[..., 0]).astype(np.int64), 0, max(depth.shape[1] - 2, 0))
    y0 = np.clip(np.floor(xy[..., 1]).astype(np.int64), 0, max(depth.shape[0] - 2, 0))
    fx, fy = xy[..., 0] - x0, xy[..., 1] - y0
    upper = inverse[y0, x0] * (1 - fx) + inverse[y0, x0 + 1] * fx
    lower = inverse[y0 + 1, x0] * (1 - fx) + inverse[y0 + 1, x0 + 1] * fx
    return np.asarray(upper * (1 - fy) + lower * fy)
