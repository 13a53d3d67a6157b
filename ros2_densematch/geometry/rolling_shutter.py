"""Cameras whose rows are exposed one after another (rolling shutter) while they turn.

A row at y is exposed (y / height - 1/2) * readout after the middle row. While the camera turns with a constant angular
velocity w, a ray b seen at that time is the ray Exp(w t) b of the middle row's time; so every pixel has a ray in one
common frame, that of the middle row, and everything that works with rays (two-view geometry, poses, triangulation)
works unchanged. Only rotation is modelled: at usual speeds the translation within one readout shifts the image by less
than a pixel, the rotation by tens of pixels (Ringaby and Forssen, "Efficient Video Rectification and Stabilisation for
Cell-Phones", IJCV 2012, section 3; they measure 26.1 ms for the first Kinect's colour camera).
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import ArrayLike

from ros2_densematch.arrays import Float64
from ros2_densematch.geometry.camera import Camera

_ROUNDS = 4  # of the fixed point in `project`: each shrinks the error by the share of a row that one row turns


@dataclass(frozen=True, eq=False)
class RollingCamera(Camera):
    """The camera of one image that was read out row by row while the camera turned; its frame is the middle row's.

    `pixel_jacobian` and `undistort_image` are those of the camera at rest.

    Attributes:
        angular_velocity: float64 (3,), rad/s, of the camera against the scene, in the optical frame.
        readout_s: seconds from the first row to the last; negative where the last row comes first.

    Raises:
        ValueError: one of them is not finite.
    """

    angular_velocity: Float64 | None = None
    readout_s: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        rate = np.zeros(3) if self.angular_velocity is None else np.array(self.angular_velocity, np.float64).ravel()
        if rate.shape != (3,) or not np.isfinite(rate).all() or not np.isfinite(self.readout_s):
            raise ValueError(
                f"the angular velocity must be 3 finite numbers in rad/s and the readout finite seconds, "
                f"got {rate} and {self.readout_s}"
            )
        rate.setflags(write=False)
        object.__setattr__(self, "angular_velocity", rate)

    @staticmethod
    def of(camera: Camera, angular_velocity: ArrayLike, readout_s: float) -> RollingCamera:
        """The camera at rest `camera`, turning with `angular_velocity` (3,) in rad/s."""
        own = {f.name: getattr(camera, f.name) for f in fields(Camera)}
        return RollingCamera(**own, angular_velocity=np.asarray(angular_velocity, np.float64), readout_s=readout_s)

    def at_rest(self) -> Camera:
        """The same camera without turning."""
        return Camera(**{f.name: getattr(self, f.name) for f in fields(Camera)})

    def normalise(self, xy: ArrayLike) -> Float64:
        """As `Camera.normalise`, in the frame of the middle row; a ray that turns behind the camera becomes NaN."""
        pixels = np.asarray(xy, np.float64).reshape(-1, 2)
        still = super().normalise(pixels)
        x, y, z = self._turn(np.column_stack([still, np.ones(len(still))]), self._time_s(pixels[:, 1])).T
        with np.errstate(invalid="ignore"):
            z = np.where(z > 0, z, np.nan)
        return np.stack([x / z, y / z], 1)

    def project(self, xyz: ArrayLike) -> Float64:
        """As `Camera.project`, of points (N, 3) in the frame of the middle row: the pixel whose row sees the point."""
        points = np.asarray(xyz, np.float64).reshape(-1, 3)
        pixels = super().project(points)
        for _ in range(_ROUNDS):
            pixels = super().project(self._turn(points, -self._time_s(pixels[:, 1])))
        return pixels

    def _time_s(self, y: Float64) -> Float64:
        return ((y + 0.5) / self.height - 0.5) * self.readout_s

    def _turn(self, vectors: Float64, time_s: Float64) -> Float64:
        """Vectors (N, 3), each turned by its own Exp(w t): Rodrigues' formula."""
        assert self.angular_velocity is not None
        rate = float(np.linalg.norm(self.angular_velocity))
        if rate * abs(self.readout_s) < 1e-12:
            return vectors
        axis = self.angular_velocity / rate
        angle = (rate * time_s)[:, None]
        across = np.cross(np.broadcast_to(axis, vectors.shape), vectors)
        along = np.outer(vectors @ axis, axis)
        return np.asarray(along + np.cos(angle) * (vectors - along) + np.sin(angle) * across, np.float64)


def shift_px(a: Camera, b: Camera) -> float:
    """Largest shift in pixels, at the first and last row, between the rays of two states of turning of one camera."""
    return 0.5 * a.focal * float(np.linalg.norm(_turn_within_image(a) - _turn_within_image(b)))


def _turn_within_image(camera: Camera) -> Float64:
    if not isinstance(camera, RollingCamera):
        return np.zeros(3)
    assert camera.angular_velocity is not None
    return camera.angular_velocity * camera.readout_s
