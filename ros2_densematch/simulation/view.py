"""Where a renderer looks from: shared by the demo's painter of rectangles and the ray caster of the training scenes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ros2_densematch.arrays import Float32
from ros2_densematch.geometry.camera import Camera


@dataclass(frozen=True)
class View:
    """A pinhole camera at a place: optical frame x right, y down, z forward; (0, 0) is the top-left pixel's centre.

    Attributes:
        width, height: pixels.
        K: float64 (3, 3), pixels.
        T_world_from_camera: float64 (4, 4), metres.
    """

    width: int
    height: int
    K: NDArray[np.float64]
    T_world_from_camera: NDArray[np.float64]

    @staticmethod
    def of(camera: Camera, T_world_from_camera: NDArray[np.float64]) -> View:
        """What a camera sees from a place.

        Args:
            camera: pinhole camera without distortion.
            T_world_from_camera: (4, 4) pose of the camera, metres.

        Raises:
            ValueError: the camera has lens distortion, or the pose is not a finite rigid 4 x 4 matrix.
        """
        if camera.distortion_model != "none" and np.any(camera.D):
            raise ValueError(
                f"the renderer draws pinhole cameras only, got {camera.distortion_model}: drop the distortion"
            )
        pose = np.asarray(T_world_from_camera, np.float64)
        if pose.shape != (4, 4) or not np.isfinite(pose).all() or abs(np.linalg.det(pose[:3, :3]) - 1) > 1e-6:
            raise ValueError(f"T_world_from_camera must be a finite rigid (4, 4) matrix, got {pose.tolist()}")
        return View(camera.width, camera.height, camera.K, pose)

    def resized(self, width: int, height: int) -> View:
        """The same camera with another number of pixels (half-pixel rule)."""
        sx, sy = width / self.width, height / self.height
        k = self.K.copy()
        k[0, 0], k[1, 1] = k[0, 0] * sx, k[1, 1] * sy
        k[0, 2], k[1, 2] = (k[0, 2] + 0.5) * sx - 0.5, (k[1, 2] + 0.5) * sy - 0.5
        return View(width, height, k, self.T_world_from_camera)

    def rays(self, offset_x: float = 0.0, offset_y: float = 0.0) -> tuple[Float32, Float32]:
        """Origins and directions (H * W, 3) in the world; directions have unit z in the camera: t is the depth."""
        x = (np.arange(self.width) + offset_x - self.K[0, 2]) / self.K[0, 0]
        y = (np.arange(self.height) + offset_y - self.K[1, 2]) / self.K[1, 1]
        right, down, forward = self.T_world_from_camera[:3, :3].T.astype(np.float32)
        rows = y.astype(np.float32)[:, None, None] * down + forward
        directions = (rows + x.astype(np.float32)[None, :, None] * right).reshape(-1, 3)
        origins = np.tile(self.T_world_from_camera[:3, 3].astype(np.float32), (len(directions), 1))
        return origins, directions
