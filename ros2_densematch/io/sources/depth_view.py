"""Depth images of another camera than the images': whether they are registered, and bringing them over where not."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ros2_densematch.arrays import Depth, Float64
from ros2_densematch.geometry import poses
from ros2_densematch.geometry.camera import Camera

# Registered depth has the camera matrix of the images; drivers round it, and scale it to the depth image's size.
_SAME_K = 0.01
_SAME_PLACE_M = 0.005
_SAME_ANGLE_DEG = 0.2


@dataclass(frozen=True)
class DepthView:
    """A depth camera beside the images' camera.

    Attributes:
        camera: of the depth images.
        T_image_from_depth: (4, 4), from its optical frame to that of the images.
    """

    camera: Camera
    T_image_from_depth: Float64

    def registered(self, depth: Depth, image_camera: Camera) -> Depth:
        """The depth map (H, W) in metres as the images' camera sees it, NaN where nothing is known.

        Every depth pixel is moved and drawn over the pixels that it covers; of several, the nearest stays (z-buffer).
        """
        height, width = depth.shape
        camera = self.camera.for_image(width, height)
        v, u = np.nonzero(np.isfinite(depth) & (depth > 0))
        z = depth[v, u].astype(np.float64)
        rays = camera.normalise(np.stack([u, v], 1))
        points = np.concatenate([rays * z[:, None], z[:, None]], 1)
        points = poses.transform_points(self.T_image_from_depth, points)
        pixels = image_camera.project(points)
        good = np.isfinite(pixels).all(1) & (points[:, 2] > 0)
        pixels, z = pixels[good], points[good, 2]
        order = np.argsort(-z, kind="stable")
        pixels, z = pixels[order], z[order]
        # A depth pixel covers several pixels of a finer image.
        cover = int(np.ceil(max(image_camera.K[0, 0] / camera.K[0, 0], image_camera.K[1, 1] / camera.K[1, 1]) - 0.05))
        buffer = np.full((image_camera.height, image_camera.width), np.inf)
        corner = np.floor(pixels - 0.5 * cover + 1.0).astype(np.int64)
        for dy in range(cover):
            for dx in range(cover):
                x, y = corner[:, 0] + dx, corner[:, 1] + dy
                inside = (x >= 0) & (y >= 0) & (x < image_camera.width) & (y < image_camera.height)
                layer = np.full_like(buffer, np.inf)
                layer[y[inside], x[inside]] = z[inside]  # the last one written is the nearest
                buffer = np.minimum(buffer, layer)
        buffer[np.isinf(buffer)] = np.nan
        return buffer.astype(np.float32)


def difference(depth_camera: Camera, image_camera: Camera, T_image_from_depth: Float64 | None) -> str:
    """Why depth images of this camera are not registered to the images, with the numbers; "" where they may be."""
    scale = np.array([image_camera.width / depth_camera.width, image_camera.height / depth_camera.height])
    focal = np.array([depth_camera.K[0, 0], depth_camera.K[1, 1]]) * scale
    wanted = np.array([image_camera.K[0, 0], image_camera.K[1, 1]])
    centre = (depth_camera.K[:2, 2] + 0.5) * scale - 0.5
    shift = np.abs(centre - image_camera.K[:2, 2]) / np.array(image_camera.size)
    found = []
    if np.abs(focal / wanted - 1.0).max() > _SAME_K or shift.max() > _SAME_K:
        found.append(
            f"its camera matrix (fx {focal[0]:.1f}, cx {centre[0]:.1f} at the images' size) is not theirs "
            f"(fx {wanted[0]:.1f}, cx {image_camera.K[0, 2]:.1f})"
        )
    if T_image_from_depth is not None:
        away = float(np.linalg.norm(T_image_from_depth[:3, 3]))
        angle = poses.rotation_angle_deg(T_image_from_depth)
        if away > _SAME_PLACE_M or angle > _SAME_ANGLE_DEG:
            found.append(f"/tf_static puts it {1000 * away:.1f} mm and {angle:.2f} degrees away")
    return " and ".join(found)
