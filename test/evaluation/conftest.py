"""A small rendered pose-pair folder, and a matcher that knows the truth, for tests of both stages."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from ros2_densematch.simulation.flight import demo_camera, demo_flight
from ros2_densematch.simulation.renderer import render
from ros2_densematch.simulation.worlds import workshop

WIDTH, HEIGHT = 240, 180
FRAMES = (20, 24, 28)


def write_image(path: Path, size: tuple[int, int] = (40, 30), seed: int = 0) -> Path:
    """A PNG of noise with (width, height)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), np.uint8)
    cv2.imwrite(str(path), noise)
    return path


def numbers(matrix: NDArray[np.float64]) -> str:
    """A matrix as text, row-major."""
    return " ".join(f"{v:.12g}" for v in np.asarray(matrix).ravel())


@pytest.fixture(scope="session")
def rendered_pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with pairs.txt: all three pairs of three rendered views."""
    folder = tmp_path_factory.mktemp("pairs") / "rendered"
    (folder / "images").mkdir(parents=True)
    scene, camera, flight = workshop(), demo_camera(WIDTH, HEIGHT), demo_flight()
    poses = [flight.T_world_from_camera[i] for i in FRAMES]
    for i, T in zip(FRAMES, poses, strict=True):
        cv2.imwrite(str(folder / "images" / f"{i}.png"), render(scene, camera, T).image[..., ::-1])
    lines = ["# image0 image1 K0 K1 T_0to1"]
    for a in range(3):
        for b in range(a + 1, 3):
            T = np.linalg.inv(poses[b]) @ poses[a]
            images = f"images/{FRAMES[a]}.png images/{FRAMES[b]}.png"
            lines.append(f"{images} {numbers(camera.K)} {numbers(camera.K)} {numbers(T)}")
    (folder / "pairs.txt").write_text("\n".join(lines) + "\n", "utf-8")
    return folder
