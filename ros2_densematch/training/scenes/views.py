"""Where cameras stand in a scene: groups of views with real viewpoint change and enough in common."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ros2_densematch.arrays import Float32
from ros2_densematch.simulation.view import View
from ros2_densematch.training.scenes.model import SceneModel
from ros2_densematch.training.scenes.ray_casting import FAR, World, depth_of

COARSE = (48, 36)
CLEARANCE_M = 0.35


@dataclass(frozen=True)
class Region:
    """Where a camera can stand: ranges of x and z, the floor's y, in metres; `weight` is how often it is used."""

    floor: float
    x: tuple[float, float]
    z: tuple[float, float]
    weight: float = 1.0
    street: bool = False
    roof: bool = True


# From the README of the open training scenes. Streets and furnished houses show most kinds of surface.
REGIONS = {
    "small_house": Region(0.0, (-9.0, 8.9), (-5.0, 5.5), 2.5),
    "hospital": Region(0.0, (-12, 12), (-19, 34), 2.0),
    "bookstore": Region(0.0, (-7.5, 7.5), (-7.0, 7.0), 2.0, roof=False),
    "warehouse": Region(0.0, (-6.5, 6.5), (-10, 10), 1.5),
    "racetrack": Region(0.0, (-38, 31), (-20, 25), 1.0, roof=False),
    "town_street": Region(0.0, (-44, 44), (-6, 6), 4.5, street=True, roof=False),
    "suburb": Region(0.0, (-44, 44), (-6, 6), 4.5, street=True, roof=False),
    "furnished_room": Region(0.0, (-2.8, 2.8), (-2.8, 2.8)),
    "bathroom": Region(0.0, (-2.3, 2.4), (-2.4, -0.2)),
    "bathroom2": Region(0.0, (-1.9, 1.7), (-2.0, 5.1)),
    "dining_room": Region(-0.57, (-2.4, 1.9), (-1.7, 3.8)),
    "kitchen": Region(0.0, (-2.4, 3.5), (-2.4, 5.3), 1.5),
    "grey_white_room": Region(0.0, (-0.2, 5.0), (-3.5, 0.0)),
    "white_room": Region(0.03, (-2.3, 3.0), (0.9, 8.0)),
    "wooden_staircase": Region(0.03, (-2.0, 2.0), (0.0, 4.8)),
    "classroom": Region(0.0, (-4.2, 4.0), (-5.8, 5.8), 1.5),
}


def region_of(model: SceneModel) -> Region:
    """The known region of a scene, or one guessed from the bounding box of a scene that is not in the table."""
    if model.name in REGIONS:
        return REGIONS[model.name]
    low, high = model.bounds
    return Region(float(low[1]), (float(low[0]), float(high[0])), (float(low[2]), float(high[2])), roof=False)


def camera_pose(position: NDArray[np.floating], forward: NDArray[np.floating], roll: float) -> NDArray[np.float64]:
    """T_world_from_camera of a camera in a y-up world that looks along `forward`, rolled (radians)."""
    z = np.asarray(forward, np.float64) / np.linalg.norm(forward)
    x = np.cross(z, [0.0, 1.0, 0.0])
    x = x / np.linalg.norm(x) if np.linalg.norm(x) > 1e-3 else np.array([1.0, 0, 0])
    y = np.cross(z, x)
    c, s = np.cos(roll), np.sin(roll)
    pose = np.eye(4)
    pose[:3, 0], pose[:3, 1], pose[:3, 2] = c * x + s * y, c * y - s * x, z
    pose[:3, 3] = position
    return pose


def is_free(world: World, position: NDArray[np.floating], roof: bool, rng: np.random.Generator) -> bool:
    """Whether nothing is nearer than 0.35 m, something is below and, under a roof, nearly every ray hits something."""
    directions = rng.standard_normal((128, 3))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    directions[0] = [0, -1, 0]
    origins = np.tile(np.asarray(position, np.float32), (128, 1))
    t = world.cast(origins, directions.astype(np.float32)).t
    return bool(t.min() > CLEARANCE_M and t[0] < FAR and (not roof or (t < FAR).mean() > 0.8))


def shared_fraction(view0: View, depth0: Float32, view1: View, depth1: Float32) -> float:
    """Share of view 0's pixels that view 1 sees too, from depth maps of the views (any resolution)."""
    visible = warp_pixels(view0, depth0, view1, depth1, tolerance=0.04)[1]
    return float(visible.mean())


def warp_pixels(
    view0: View, depth0: Float32, view1: View, depth1: Float32, tolerance: float
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Where each pixel of view 0 lies in view 1 (H, W, 2), and whether it is visible there (H, W).

    Depth 1 is interpolated as inverse depth, which is linear in pixels on a plane.
    """
    transform = np.linalg.inv(view1.T_world_from_camera) @ view0.T_world_from_camera
    columns, rows = np.meshgrid(np.arange(view0.width, dtype=np.float64), np.arange(view0.height, dtype=np.float64))
    grid = np.stack([columns, rows], -1).reshape(-1, 2)
    z0 = depth0.reshape(-1).astype(np.float64)
    xy1, z1 = transfer(grid, z0, view0.K, view1.K, transform)
    visible = agrees(xy1, z1, depth1, tolerance) & np.isfinite(z0)
    return xy1.reshape(*depth0.shape, 2), visible.reshape(depth0.shape)


def transfer(
    xy0: NDArray[np.floating],
    depth: NDArray[np.floating],
    k0: NDArray[np.float64],
    k1: NDArray[np.float64],
    T_1_from_0: NDArray[np.float64],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Pixels (N, 2) with depth (N,) of camera 0 as pixels and depth of camera 1; not finite behind the camera."""
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        rays = np.concatenate([xy0, np.ones((len(xy0), 1))], 1) @ np.linalg.inv(k0).T
        points = (rays * depth[:, None]) @ T_1_from_0[:3, :3].T + T_1_from_0[:3, 3]
        z = np.where(points[:, 2] > 1e-6, points[:, 2], np.nan)
        projected = (points / z[:, None]) @ k1.T
    return projected[:, :2], z


def agrees(xy: NDArray[np.float64], z: NDArray[np.float64], depth: Float32, tolerance: float) -> NDArray[np.bool_]:
    """Whether a depth map shows the surface that is expected at pixels (N, 2) with depth z (N,)."""
    height, width = depth.shape
    with np.errstate(invalid="ignore"):
        ok = (xy[:, 0] >= 0) & (xy[:, 1] >= 0) & (xy[:, 0] <= width - 1) & (xy[:, 1] <= height - 1) & (z > 0)
    result = np.zeros(len(xy), np.bool_)
    x, y = xy[ok, 0], xy[ok, 1]
    x0 = np.minimum(np.floor(x).astype(np.int64), width - 2)
    y0 = np.minimum(np.floor(y).astype(np.int64), height - 2)
    fx, fy = x - x0, y - y0
    with np.errstate(divide="ignore"):
        inverse = 1 / depth.astype(np.float64)
    there = (inverse[y0, x0] * (1 - fx) + inverse[y0, x0 + 1] * fx) * (1 - fy) + (
        inverse[y0 + 1, x0] * (1 - fx) + inverse[y0 + 1, x0 + 1] * fx
    ) * fy
    result[ok] = np.abs(there * z[ok] - 1) < tolerance
    return result


@dataclass(frozen=True)
class Candidate:
    """A view with its coarse depth."""

    view: View
    coarse: View
    depth: Float32


def _candidate(world: World, view: View) -> Candidate:
    coarse = view.resized(*COARSE)
    return Candidate(view, coarse, depth_of(world, coarse))


def overlap(a: Candidate, b: Candidate) -> float:
    """The smaller of the two shares of pixels that the other view sees too."""
    return min(
        shared_fraction(a.coarse, a.depth, b.coarse, b.depth), shared_fraction(b.coarse, b.depth, a.coarse, a.depth)
    )


def _calibration(width: int, height: int, fov_deg: float) -> NDArray[np.float64]:
    f = width / (2 * np.tan(np.radians(fov_deg) / 2))
    return np.array([[f, 0, (width - 1) / 2], [0, f, (height - 1) / 2], [0, 0, 1]], np.float64)


def first_view(world: World, region: Region, rng: np.random.Generator, width: int, height: int) -> Candidate | None:
    """A view from free space that looks at something, or None when none was found in a few attempts."""
    for _ in range(60):
        x, z = rng.uniform(*region.x), rng.uniform(*region.z)
        above = rng.uniform(0.9, 2.2) if region.street else rng.uniform(0.35, 2.0)
        if region.street and rng.random() < 0.15:
            above = rng.uniform(2.5, 7.0)
        position = np.array([x, region.floor + above, z])
        if not is_free(world, position, region.roof, rng):
            continue
        if region.street and rng.random() < 0.8:
            # Mostly at the facades, which stand along x on both sides.
            yaw = rng.choice([0.0, np.pi]) + rng.normal(0, np.radians(35))
        else:
            yaw = rng.uniform(-np.pi, np.pi)
        pitch = np.radians(rng.normal(4 if region.street else -8, 9))
        forward = np.array([np.sin(yaw) * np.cos(pitch), np.sin(pitch), np.cos(yaw) * np.cos(pitch)])
        k = _calibration(width, height, float(rng.uniform(48, 85)))
        pose = camera_pose(position, forward, float(np.radians(rng.normal(0, 4))))
        candidate = _candidate(world, View(width, height, k, pose))
        if _is_worth(candidate):
            return candidate
    return None


def _is_worth(candidate: Candidate) -> bool:
    depth = candidate.depth
    hit = np.isfinite(depth)
    return bool(hit.mean() > 0.6 and np.median(depth[hit]) > 0.6 and np.quantile(depth[hit], 0.05) > 0.3)


def next_view(world: World, region: Region, first: Candidate, rng: np.random.Generator) -> Candidate | None:
    """Another view of what `first` sees: from the side, from nearer or farther, or only turned."""
    pose0 = first.view.T_world_from_camera
    right, down, forward = pose0[:3, 0], pose0[:3, 1], pose0[:3, 2]
    finite = first.depth[np.isfinite(first.depth)]
    for _ in range(25):
        depth = float(np.clip(rng.choice(finite), 0.8, 20))
        target = pose0[:3, 3] + forward * depth
        kind = rng.random()
        if kind < 0.6:  # round the target
            side, up, ahead = rng.normal(0, [0.42, 0.1, 0.16]) * depth
            look = target + rng.normal(0, 0.14, 3) * depth
        elif kind < 0.8:  # along the viewing direction
            side, up, ahead = rng.normal(0, 0.07) * depth, rng.normal(0, 0.04) * depth, rng.uniform(-0.4, 0.55) * depth
            look = target + rng.normal(0, 0.12, 3) * depth
        elif kind < 0.92:  # moved and turned independently
            side, up, ahead = rng.normal(0, [0.25, 0.06, 0.15]) * depth
            look = target + (right * rng.normal(0, 0.35) + down * rng.normal(0, 0.15)) * depth + right * side
        else:  # turned on the spot
            side = up = ahead = 0.0
            look = target + (right * rng.normal(0, 0.4) + down * rng.normal(0, 0.2)) * depth
        position = pose0[:3, 3] + right * side - down * up + forward * ahead
        position[1] = max(position[1], region.floor + 0.25)
        direction = look - position
        if np.linalg.norm(direction) < 0.3 or not is_free(world, position, region.roof, rng):
            continue
        roll = rng.uniform(-np.pi / 2, np.pi / 2) if rng.random() < 0.06 else np.radians(rng.normal(0, 8))
        k = first.view.K
        if rng.random() < 0.5:
            k = _calibration(first.view.width, first.view.height, float(rng.uniform(45, 90)))
        view = View(first.view.width, first.view.height, k, camera_pose(position, direction, float(roll)))
        cosine = float(forward @ view.T_world_from_camera[:3, 2])
        candidate = _candidate(world, view)
        if cosine > 0.5 and _is_worth(candidate) and 0.25 < overlap(first, candidate) < 0.93:
            return candidate
    return None
