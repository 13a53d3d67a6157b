"""Known 3-D points, a matcher that projects them with noise, outliers and gaps, and camera paths, for tests."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any

import numpy as np

from ros2_densematch.geometry import poses
from ros2_densematch.geometry.camera import Camera
from ros2_densematch.geometry.correspondences import Correspondences
from ros2_densematch.matchers.base import Encoding, Matcher
from ros2_densematch.tracking.frame import Frame
from ros2_densematch.tracking.tracker import TrackedFrame, Tracker

# the tracker does not ask the matcher about images that show nothing
_TEXTURE = np.kron(np.random.default_rng(0).integers(0, 256, (30, 40)), np.ones((16, 16))).astype(np.uint8)
CAMERA = Camera.from_matrix([[500.0, 0, 319.5], [0, 500.0, 239.5], [0, 0, 1]], 640, 480)


class World:
    """Points on the walls of a room and on boxes inside it, each with a number; one wall is blank."""

    def __init__(self, points: int = 9000, seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        side = rng.integers(0, 5, points)
        u, v = rng.uniform(-4, 4, points), rng.uniform(-2, 2, points)
        walls = np.stack(
            [
                np.where(side == 0, u, np.where(side == 1, 4.0, np.where(side == 2, -4.0, u))),
                np.where(side < 3, v, np.where(side == 3, 2.0, -2.0)),
                np.where(side == 0, 8.0, np.where(side < 3, 4 + u, 4 + v * 2)),
            ],
            1,
        )
        boxes = rng.integers(0, 8, points // 3)
        centres = np.stack([rng.uniform(-3, 3, 8), rng.uniform(-1, 1, 8), rng.uniform(4, 7, 8)], 1)
        self.points = np.concatenate([walls, centres[boxes] + rng.uniform(-0.3, 0.3, (len(boxes), 3))])

    def see(self, T_world_from_camera: np.ndarray, camera: Camera) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Numbers, pixels and depths of the points in view."""
        X = poses.transform_points(poses.inverse(T_world_from_camera), self.points)
        front = np.flatnonzero(X[:, 2] > 0.3)
        xy = camera.project(X[front])
        inside = (xy > 0).all(1) & (xy[:, 0] < camera.width - 1) & (xy[:, 1] < camera.height - 1)
        return front[inside], xy[inside], X[front[inside], 2]


@dataclass
class PointMatcher(Matcher):
    """Knows the pose of an image by the number in its first pixels, and sees the points of a world from there."""

    world: World
    trajectory: np.ndarray
    noise_px: float = 0.3
    outliers: float = 0.15
    missing: float = 0.4
    blind: frozenset[int] = frozenset()
    name = "points"

    def __post_init__(self) -> None:
        self.reference_calls: list[int] = []
        self.encode_calls: list[int] = []

    def sight(self, number: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Numbers, pixels and depths of the points that image `number` shows."""
        return self.world.see(self.trajectory[number], CAMERA)

    def _encode(self, image: np.ndarray, *, reference: bool, mask: Any) -> Any:
        number = int(image[0, 0]) + 256 * int(image[0, 1])
        (self.reference_calls if reference else self.encode_calls).append(number)
        height, width = image.shape[:2]
        if number in self.blind:
            return number, np.zeros(0, int), np.zeros((0, 2))
        ids, xy, _ = self.sight(number)
        rng = np.random.default_rng(number)
        kept = rng.random(len(ids)) > self.missing
        if mask is not None:
            column, row = np.rint(xy).astype(int).T
            kept &= mask[np.clip(row, 0, height - 1), np.clip(column, 0, width - 1)]
        # the noise is fixed with the image, as a detector's is
        return number, ids[kept], xy[kept] + rng.normal(0, self.noise_px, (int(kept.sum()), 2))

    def _match(self, reference: Encoding, query: Encoding, *, max_matches: int | None, seed: int) -> Correspondences:
        (i, a_ids, a_xy), (j, b_ids, b_xy) = reference.data, query.data
        _, a, b = np.intersect1d(a_ids, b_ids, return_indices=True)
        rng = np.random.default_rng((i, j))
        order = rng.permutation(len(a))[:max_matches]
        a, b = a[order], b[order]
        query_xy = b_xy[b].copy()
        wrong = rng.random(len(a)) < self.outliers
        query_xy[wrong] = rng.uniform(0, 1, (int(wrong.sum()), 2)) * [639, 479]
        score = np.full(len(a), 0.5, np.float32)
        return Correspondences(
            a_xy[a].astype(np.float32),
            query_xy.astype(np.float32),
            score,
            len(a) / max(len(a_ids), 1),
            reference.size,
            query.size,
        )


def image_of(number: int) -> np.ndarray:
    image = _TEXTURE.copy()
    image[0, 0], image[0, 1] = number % 256, number // 256
    return image


def look(x: float, y: float, z: float, yaw_deg: float = 0.0, pitch_deg: float = 0.0) -> np.ndarray:
    yaw, pitch = np.radians([yaw_deg, pitch_deg])
    R = poses.exp_rotation([0, yaw, 0]) @ poses.exp_rotation([pitch, 0, 0])
    return poses.make_pose(R, [x, y, z])


def through(keys: list[tuple[int, np.ndarray]]) -> np.ndarray:
    """Poses (N, 4, 4) through key poses, so many frames after each other, with smooth speed."""
    trajectory = [keys[0][1]]
    for (_, before), (frames, after) in itertools.pairwise(keys):
        for k in range(1, frames + 1):
            s = k / frames
            trajectory.append(poses.interpolate(before, after, s * s * (3 - 2 * s)))
    return np.stack(trajectory)


def run(
    tracker: Tracker, trajectory: np.ndarray, numbers: list[int] | None = None, **fields: Any
) -> list[TrackedFrame]:
    """Tracks frames; `fields` are functions of the frame number that give further fields of `Frame`, `numbers` the
    poses of the matcher's trajectory where they are not simply the first ones."""
    results = []
    for i in numbers if numbers is not None else range(len(trajectory)):
        extra = {name: value(i) for name, value in fields.items()}
        frame = Frame(image_of(i), 1_000_000_000 + 33_333_333 * i, i, **{"camera": CAMERA, **extra})
        results.append(tracker.process(frame))
    return results


def similarity_error(results: list[TrackedFrame], truth: np.ndarray) -> tuple[float, float, float]:
    """Root mean square position error after similarity alignment over the path length, the scale, mean rotation error
    from frame to frame in degrees."""
    index = [i for i, r in enumerate(results) if r.T_world_from_camera is not None]
    estimate = np.stack([results[i].T_world_from_camera for i in index])
    a, b = estimate[:, :3, 3], truth[index][:, :3, 3]
    ma, mb = a.mean(0), b.mean(0)
    U, S, Vt = np.linalg.svd((b - mb).T @ (a - ma) / len(a))
    D = np.diag([1, 1, np.sign(np.linalg.det(U @ Vt))])
    R = U @ D @ Vt
    scale = np.trace(np.diag(S) @ D) / ((a - ma) ** 2).sum(1).mean()
    error = scale * (a - ma) @ R.T - (b - mb)
    path = np.linalg.norm(np.diff(truth[:, :3, 3], axis=0), axis=1).sum()
    turns = [
        poses.rotation_angle_deg(
            poses.inverse(estimate[k]) @ estimate[k + 1], poses.inverse(truth[index[k]]) @ truth[index[k + 1]]
        )
        for k in range(len(index) - 1)
    ]
    return float(np.sqrt((error**2).sum(1).mean()) / path), float(scale), float(np.mean(turns))
