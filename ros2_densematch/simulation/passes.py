"""Short passes of a hand-held camera through a scene, with what disturbs a tracker and the truth for every pixel."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from ros2_densematch.arrays import Float64, Image, Mask
from ros2_densematch.geometry.camera import Camera
from ros2_densematch.simulation.flight import look
from ros2_densematch.simulation.ground_truth import warp
from ros2_densematch.simulation.renderer import render
from ros2_densematch.simulation.scene import Scene
from ros2_densematch.simulation.sensor import Sensor

KINDS = ("plain", "fast", "occluder", "overlay", "exposure", "zoom", "roll", "gap")
_RATE_HZ = 30.0
_GAP_S = 1.0
_LEAST_DEPTH = 0.5  # metres that the nearest hundredth of the pixels keeps in every frame
_TRIES = 60
_RIGHT_PX, _WRONG_PX = 1.5, 3.0


@dataclass(frozen=True)
class PassFrame:
    """One frame of a pass.

    Attributes:
        image: uint8 RGB (H, W, 3), as the sensor sees it.
        depth: float32 (H, W), exact, metres along the optical axis; 0 where there is nothing.
        camera: pinhole camera.
        T_world_from_camera: (4, 4).
        scenery: bool (H, W), False where something that is no part of the scene hides it.
    """

    image: Image
    depth: NDArray[np.float32]
    camera: Camera
    T_world_from_camera: Float64
    scenery: Mask


def fly_pass(
    scene: Scene, kind: str, *, seed: int, frames: int = 24, width: int = 640, rate_hz: float = _RATE_HZ
) -> list[PassFrame]:
    """Renders a pass.

    Args:
        scene: `worlds.workshop` or `worlds.tabletop`.
        kind: one of `KINDS`: what happens on the way. "occluder": things pass before the camera; "overlay": a static
            picture covers part of it; "exposure": it steps in the middle; "zoom", "roll": by up to 1.6 and 60 degrees;
            "gap": one second is missing in the middle.
        seed: of the path, the sensor and the disturbance.
        frames: how many.
        width: of the images in pixels; they are 4 : 3.
        rate_hz: frames a second.

    Raises:
        ValueError: unknown kind, or the scene leaves no free path.
    """
    if kind not in KINDS:
        raise ValueError(f"unknown kind of pass {kind!r}: choose one of {', '.join(KINDS)}")
    rng = np.random.default_rng([seed, KINDS.index(kind)])
    height = width * 3 // 4
    focal = 0.5 * width / np.tan(np.deg2rad(rng.uniform(55.0, 80.0)) / 2)
    time = np.arange(frames) / rate_hz
    if kind == "gap":
        time[frames // 2 :] += _GAP_S
    share = np.linspace(0.0, 1.0, frames)
    zoom = 1.0 + share * (rng.choice([-0.35, 0.6]) if kind == "zoom" else 0.0)
    roll = np.deg2rad(share * (rng.choice([-1, 1]) * rng.uniform(30, 60) if kind == "roll" else 0.0))
    cameras = [_camera(focal * z, width, height) for z in zoom]
    poses = _free_path(scene, cameras, time, roll, fast=kind == "fast", rng=rng)
    noise = float(rng.uniform(1.0, 3.0))
    sensor = Sensor(noise=noise, exposure_drift=float(rng.uniform(0.0, 0.1)), exposure_period=60.0, seed=seed)
    gain = np.where(share > 0.5, rng.choice([0.6, 1.5]), 1.0) if kind == "exposure" else np.ones(frames)
    cover = _cover(kind, width, height, rng)
    result = []
    for i, (camera, pose) in enumerate(zip(cameras, poses, strict=True)):
        view = render(scene, camera, pose)
        picture, hidden = cover(i, view.image)
        picture = np.clip(picture * gain[i], 0, 255).astype(np.uint8)
        image = sensor.expose(picture, i)
        if kind == "overlay":  # drawn into the picture after the sensor
            image[hidden] = picture[hidden]
        result.append(PassFrame(image, view.depth, camera, pose, ~hidden))
    return result


def judge(reference: PassFrame, query: PassFrame, reference_xy: Float64, query_xy: Float64) -> NDArray[np.int8]:
    """Labels (N,) on matches: 1 right within 1.5 px, 0 wrong by more than 3 px or hidden in the query, -1 neither.

    Args:
        reference_xy: (N, 2) pixels of the reference frame.
        query_xy: (N, 2) pixels of the query frame.
    """
    error, hidden = errors(reference, query, reference_xy, query_xy)
    label = np.full(len(error), -1, np.int8)
    label[error <= _RIGHT_PX] = 1
    label[(error > _WRONG_PX) | hidden] = 0
    return label


def errors(reference: PassFrame, query: PassFrame, reference_xy: Float64, query_xy: Float64) -> tuple[Float64, Mask]:
    """Distance (N,) in pixels from the true place, NaN where nobody can tell, and whether that place is hidden (N,).

    Hidden points have the distance infinity: whatever was matched there is not this point. Within three pixels of an
    outline of either image nobody can tell.
    """
    known = reference.depth > 0
    true, visible = warp(
        reference.depth,
        reference.camera,
        reference.T_world_from_camera,
        query.depth,
        query.camera,
        query.T_world_from_camera,
        tolerance=0.02,
    )
    _, about = warp(
        reference.depth,
        reference.camera,
        reference.T_world_from_camera,
        query.depth,
        query.camera,
        query.T_world_from_camera,
        tolerance=0.06,
    )
    height, width = reference.depth.shape
    x, y = np.rint(reference_xy).astype(np.intp).T
    x, y = x.clip(0, width - 1), y.clip(0, height - 1)
    # the true place of the nearest pixel, carried to the position by the slope of the truth there
    place = _slope_corrected(true, reference_xy, x, y)
    px, py = np.rint(np.nan_to_num(place, nan=-1.0)).astype(np.intp).T
    inside = (px >= 0) & (py >= 0) & (px < query.depth.shape[1]) & (py < query.depth.shape[0])
    px, py = px.clip(0, query.depth.shape[1] - 1), py.clip(0, query.depth.shape[0] - 1)
    covered = ~_eroded(query.scenery)[py, px] & inside
    surely_covered = ~query.scenery[py, px] & inside
    in_reference = _eroded(reference.scenery)[y, x] & known[y, x] & ~_outline(reference.depth)[y, x]
    seen = visible[y, x] & inside & ~covered & ~_outline(query.depth)[py, px]
    error = np.where(in_reference & seen, np.linalg.norm(query_xy - place, axis=1), np.nan)
    hidden = in_reference & np.isfinite(place).all(1) & (~about[y, x] | surely_covered | ~inside)
    # what covers the reference is no part of the scene: no match from there is right, unless it left the picture
    hidden |= ~reference.scenery[y, x] & _eroded(~reference.scenery)[y, x]
    return np.where(hidden, np.inf, error), hidden


def _slope_corrected(true: Float64, xy: Float64, x: NDArray[np.intp], y: NDArray[np.intp]) -> Float64:
    height, width = true.shape[:2]
    place = true[y, x].copy()
    for axis, (dx, dy) in enumerate(((1, 0), (0, 1))):
        ahead = true[(y + dy).clip(0, height - 1), (x + dx).clip(0, width - 1)]
        behind = true[(y - dy).clip(0, height - 1), (x - dx).clip(0, width - 1)]
        rest = (xy[:, axis] - (x, y)[axis])[:, None]
        place += np.where(rest == 0, 0.0, np.nan_to_num(ahead - behind) / 2 * rest)
    return np.asarray(place, np.float64)


def _outline(depth: NDArray[np.float32]) -> Mask:
    """Pixels within three of a jump of the depth."""
    inverse = np.where(depth > 0, 1.0 / np.maximum(depth, 1e-6), 0.0).astype(np.float32)
    box = np.ones((3, 3), np.uint8)
    jump = np.asarray(cv2.dilate(inverse, box)) > 1.05 * np.asarray(cv2.erode(inverse, box))
    # a slanted plane changes by less than this from pixel to pixel
    return np.asarray(cv2.dilate(jump.astype(np.uint8), np.ones((5, 5), np.uint8))) > 0


def _eroded(mask: Mask) -> Mask:
    return np.asarray(cv2.erode(mask.astype(np.uint8), np.ones((9, 9), np.uint8))) > 0


def _camera(focal: float, width: int, height: int) -> Camera:
    K = np.array([[focal, 0, (width - 1) / 2], [0, focal, (height - 1) / 2], [0, 0, 1]])
    return Camera.from_matrix(K, width, height)


def _free_path(
    scene: Scene, cameras: list[Camera], time: Float64, roll: Float64, *, fast: bool, rng: np.random.Generator
) -> list[Float64]:
    """Poses (4, 4) of a path that keeps away from everything."""
    low, high = scene_bounds(scene)
    for _ in range(_TRIES):
        start = rng.uniform(low, high)
        heading = rng.uniform(-0.6, 0.6)
        speed = rng.uniform(0.8, 1.6) if fast else rng.uniform(0.1, 0.7)  # metres a second
        turning = np.deg2rad(rng.uniform(50, 110) if fast else rng.uniform(5, 45))
        direction = rng.normal(size=3) * (1, 1, 0.4)
        offset = time[:, None] * speed * direction / np.linalg.norm(direction)
        rates = rng.normal(size=3) * (1, 0.6, 0.3)
        angles = time[:, None] * turning * rates / np.linalg.norm(rates)
        # a hand shakes: a few hertz, some millimetres and tenths of a degree
        phase, beat = rng.uniform(0, 2 * np.pi, (2, 3)), rng.uniform(2, 6, (2, 3))
        shake = np.sin(2 * np.pi * beat * time[:, None, None] + phase)
        offset = offset + 0.008 * shake[:, 0]
        angles = angles + np.deg2rad(0.4) * shake[:, 1]
        poses = [
            look(start + offset[i], heading + angles[i, 0], 0.08 + angles[i, 1], angles[i, 2] + roll[i])
            for i in range(len(time))
        ]
        if all(_is_free(scene, cameras[i], poses[i]) for i in {0, len(time) // 2, len(time) - 1}):
            return poses
    raise ValueError(f"no free path of {len(time)} frames in this scene after {_TRIES} tries: choose another seed")


def scene_bounds(scene: Scene) -> tuple[Float64, Float64]:
    """Where a camera may begin: in the near third of the scene along x, at eye height."""
    corners = np.concatenate([[s.origin, s.origin + s.edge_u + s.edge_v] for s in scene.surfaces])
    low, high = corners.min(0), corners.max(0)
    size = high - low
    return low + size * (0.05, 0.25, 0.35), low + size * (0.35, 0.75, 0.6)


def _is_free(scene: Scene, camera: Camera, pose: Float64) -> bool:
    small = camera.resized(80, 60)
    depth = render(scene, small, pose).depth
    return bool((depth > 0).mean() > 0.9 and np.quantile(depth[depth > 0], 0.01) > _LEAST_DEPTH)


def _cover(
    kind: str, width: int, height: int, rng: np.random.Generator
) -> Callable[[int, Image], tuple[Float64, Mask]]:
    """What is drawn over frame i of the pass: the picture as float and where it hides the scene."""
    if kind == "occluder":
        return _occluders(width, height, rng)
    if kind == "overlay":
        return _overlay(width, height, rng)

    def nothing(index: int, image: Image) -> tuple[Float64, Mask]:
        return image.astype(np.float64), np.zeros((height, width), np.bool_)

    return nothing


def _occluders(width: int, height: int, rng: np.random.Generator) -> Callable[[int, Image], tuple[Float64, Mask]]:
    """Two textured discs that pass before the camera."""
    radius = rng.uniform(0.08, 0.2, 2) * width
    start = rng.uniform(0.1, 0.9, (2, 2)) * (width, height)
    angle = rng.uniform(0, 2 * np.pi, 2)
    speed = rng.uniform(0.004, 0.03, 2) * width  # pixels a frame
    texture = _speckle(2 * max(width, height), rng)

    def draw(index: int, image: Image) -> tuple[Float64, Mask]:
        picture, hidden = image.astype(np.float64), np.zeros((height, width), np.bool_)
        for k in range(2):
            shift = index * speed[k] * np.array([np.cos(angle[k]), np.sin(angle[k])])
            centre = (start[k] + shift) % (width, height)
            disc = np.zeros((height, width), np.uint8)
            cv2.circle(disc, (round(centre[0]), round(centre[1])), round(radius[k]), 1, -1)
            moved = cv2.warpAffine(
                texture,
                np.array([[1, 0, shift[0] - width / 2], [0, 1, shift[1] - height / 2]]),
                (width, height),
                borderMode=cv2.BORDER_REFLECT,
            )
            picture = np.where(disc[..., None] > 0, moved, picture)
            hidden |= disc > 0
        return picture, hidden

    return draw


def _overlay(width: int, height: int, rng: np.random.Generator) -> Callable[[int, Image], tuple[Float64, Mask]]:
    """A static panel with writing at one side of the picture, and a frame number's place in another corner."""
    hidden = np.zeros((height, width), np.bool_)
    picture = np.zeros((height, width, 3))
    left, top = int(rng.uniform(0.05, 0.5) * width), int(rng.uniform(0.05, 0.6) * height)
    hidden[top : top + height // 4, left : left + width // 3] = True
    picture[hidden] = _speckle(max(width, height), rng)[:height, :width][hidden]
    for _ in range(12):
        at = (left + int(rng.integers(0, width // 4)), top + int(rng.integers(10, height // 4)))
        cv2.putText(picture, "REC 12:34", at, cv2.FONT_HERSHEY_SIMPLEX, 0.4, (255.0, 240.0, 220.0), 1, cv2.LINE_AA)
    picture[~hidden] = 0

    def draw(index: int, image: Image) -> tuple[Float64, Mask]:
        return np.where(hidden[..., None], picture, image.astype(np.float64)), hidden.copy()

    return draw


def _speckle(size: int, rng: np.random.Generator) -> Float64:
    """A random texture (size, size, 3) with detail at several scales."""
    total = np.zeros((size, size, 3))
    for cells in (size // 4, size // 12, size // 40):
        small = rng.normal(size=(max(cells, 2), max(cells, 2), 3))
        total += np.asarray(cv2.resize(small, (size, size), interpolation=cv2.INTER_CUBIC))
    return np.asarray(np.clip(120 + 35 * total + rng.uniform(-40, 40, 3), 0, 255), np.float64)
