"""A smooth camera flight with known poses, made to exercise a tracker: every stretch has a name."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ros2_densematch.arrays import Float64
from ros2_densematch.geometry.camera import Camera
from ros2_densematch.simulation.renderer import Rendering, render
from ros2_densematch.simulation.scene import Scene
from ros2_densematch.simulation.sensor import Sensor

DEFAULT_FRAMES = 200
DEMO_SIZE = 512, 384  # pixels: two slow cores fly it in less than two minutes

# name of the stretch that ends here, share of the flight, position x y z in metres, yaw, pitch, roll in degrees
# (yaw about z, to the left; pitch downwards). Equal neighbours stand still: the interpolation does not overshoot.
_KEY_POSES: tuple[tuple[str, float, tuple[float, float, float], tuple[float, float, float]], ...] = (
    ("start", 0.00, (1.00, -1.00, 1.35), (0.0, 6.0, 0.0)),
    ("lateral", 0.17, (1.05, 0.55, 1.45), (-6.0, 6.0, 1.5)),
    ("forward", 0.33, (2.60, 0.95, 1.40), (-12.0, 5.0, -1.0)),
    ("rotation", 0.41, (2.60, 0.95, 1.40), (-38.0, 4.0, 0.0)),
    ("rotation", 0.49, (2.60, 0.95, 1.40), (-12.0, 5.0, -1.0)),
    ("turn to the blank wall", 0.62, (2.75, 0.81, 1.45), (70.0, 1.0, 0.0)),
    ("blank wall", 0.655, (2.85, 0.75, 1.48), (92.0, 0.0, 0.0)),
    ("blank wall", 0.69, (2.80, 0.72, 1.50), (72.0, 1.0, 0.0)),
    ("return", 0.80, (2.45, 0.60, 1.45), (-10.0, 5.0, 0.5)),
    ("forward again", 0.90, (3.05, 1.00, 1.30), (-22.0, 7.0, -1.5)),
    ("climb", 1.00, (2.70, 0.10, 1.75), (-10.0, 12.0, 0.0)),
)


@dataclass(frozen=True)
class Flight:
    """Camera poses at a fixed rate.

    Attributes:
        stamps_ns: int64 (N,), first one at `start_ns`.
        T_world_from_camera: float64 (N, 4, 4); world x forward, y left, z up; camera x right, y down, z forward.
        stretch: name of the stretch that each frame belongs to.
        rate_hz: frames per second.
    """

    stamps_ns: NDArray[np.int64]
    T_world_from_camera: Float64
    stretch: tuple[str, ...]
    rate_hz: float

    def __len__(self) -> int:
        return len(self.stamps_ns)

    @property
    def path_length(self) -> float:
        """Metres travelled by the camera."""
        return float(np.linalg.norm(np.diff(self.T_world_from_camera[:, :3, 3], axis=0), axis=1).sum())


def demo_flight(
    frames: int = DEFAULT_FRAMES, *, rate_hz: float = 20.0, start_ns: int = 1_700_000_000_000_000_000
) -> Flight:
    """The flight of the demo through `worlds.workshop`.

    Sideways past foreground objects, forward between them, a pure rotation there and back, a turn to a wall without
    texture, where nothing can be tracked, back to a view seen before, and on.

    Args:
        frames: number of frames; the path stays the same, so that fewer frames move faster.
        rate_hz: frames per second.
        start_ns: stamp of the first frame in nanoseconds.

    Raises:
        ValueError: fewer than 2 frames, or a rate that is not positive.
    """
    if frames < 2:
        raise ValueError(f"a flight needs at least 2 frames, got {frames}")
    if not rate_hz > 0:
        raise ValueError(f"rate_hz must be positive, got {rate_hz}")
    time = np.linspace(0.0, 1.0, frames)
    knots = np.array([k[1] for k in _KEY_POSES])
    values = np.array([(*k[2], *k[3]) for k in _KEY_POSES])
    path = np.stack([_monotone_cubic(knots, values[:, i], time) for i in range(6)], 1)
    poses = np.stack([look(path[i, :3], *np.deg2rad(path[i, 3:])) for i in range(frames)])
    names = tuple(_KEY_POSES[max(int(np.searchsorted(knots, t)), 1)][0] for t in time)
    stamps = start_ns + np.rint(np.arange(frames) * 1e9 / rate_hz).astype(np.int64)
    return Flight(stamps, poses, names, rate_hz)


def look(position: Float64, yaw: float, pitch: float, roll: float) -> Float64:
    """Pose (4, 4) of a camera at `position` that looks along world x, turned by three angles in radians.

    Args:
        position: (3,) metres.
        yaw: about the world's z, positive to the left.
        pitch: positive downwards.
        roll: about the optical axis, positive clockwise as seen by the camera.
    """
    cy, sy, cp, sp, cr, sr = (f(a) for a in (yaw, pitch, roll) for f in (np.cos, np.sin))
    turn = np.array([[cy, -sy, 0], [sy, cy, 0], [0, 0, 1]])
    tilt = np.array([[cp, 0, sp], [0, 1, 0], [-sp, 0, cp]])
    bank = np.array([[1, 0, 0], [0, cr, -sr], [0, sr, cr]])
    body_from_camera = np.array([[0.0, 0, 1], [-1, 0, 0], [0, -1, 0]])
    pose = np.eye(4)
    pose[:3, :3] = turn @ tilt @ bank @ body_from_camera
    pose[:3, 3] = position
    return pose


def demo_camera(width: int = 640, height: int = 480) -> Camera:
    """A pinhole camera of 65 degrees horizontal field of view, without distortion."""
    focal = 0.5 * width / np.tan(np.deg2rad(65.0) / 2)
    K = np.array([[focal, 0, (width - 1) / 2], [0, focal, (height - 1) / 2], [0, 0, 1]])
    return Camera.from_matrix(K, width, height)


def fly(scene: Scene, camera: Camera, flight: Flight, sensor: Sensor | None = None) -> Iterator[Rendering]:
    """Renders the frames of a flight one after the other; images are as `sensor` sees them, depth stays exact."""
    for i in range(len(flight)):
        frame = render(scene, camera, flight.T_world_from_camera[i])
        image = frame.image if sensor is None else sensor.expose(frame.image, i)
        yield Rendering(image, frame.depth, frame.surface)


def _monotone_cubic(x: Float64, y: Float64, at: Float64) -> Float64:
    """Cubic Hermite interpolation with the slopes of Fritsch and Butland (1984): smooth, and never past a key value."""
    h, delta = np.diff(x), np.diff(y) / np.diff(x)
    slope = np.zeros_like(y)
    left, right = 2 * h[1:] + h[:-1], h[1:] + 2 * h[:-1]
    same = delta[:-1] * delta[1:] > 0
    with np.errstate(divide="ignore", invalid="ignore"):
        harmonic = (left + right) / (left / delta[:-1] + right / delta[1:])
    slope[1:-1] = np.where(same, harmonic, 0.0)
    i = np.clip(np.searchsorted(x, at, side="right") - 1, 0, len(h) - 1)
    t = (at - x[i]) / h[i]
    return (
        (1 + 2 * t) * (1 - t) ** 2 * y[i]
        + t * (1 - t) ** 2 * h[i] * slope[i]
        + t**2 * (3 - 2 * t) * y[i + 1]
        + t**2 * (t - 1) * h[i] * slope[i + 1]
    )
