"""A small rendered sequence with known poses, and a way to run a command in this process."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from ros2_densematch.cli.main import main

WIDTH, HEIGHT, FOCAL = 320, 240, 260.0
K = np.array([[FOCAL, 0, 159.5], [0, FOCAL, 119.5], [0, 0, 1.0]])
FRAMES = 8


@dataclass(frozen=True)
class Outcome:
    """Exit code and text of a command."""

    code: int
    out: str
    err: str


@pytest.fixture
def densematch(capsys: pytest.CaptureFixture[str]) -> Callable[..., Outcome]:
    """Runs `densematch` with the given words."""

    def run(*words: object) -> Outcome:
        capsys.readouterr()
        code = main([str(word) for word in words])
        text = capsys.readouterr()
        return Outcome(code, text.out, text.err)

    return run


@pytest.fixture(scope="session")
def flight(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with frames.csv and camera.json: a wall, a board before it, the camera moving right and turning."""
    folder = tmp_path_factory.mktemp("flight")
    (folder / "rgb").mkdir()
    wall, board = _texture(1, 900), _texture(2, 300)
    lines = ["index,timestamp_ns,image,depth,tx,ty,tz,qx,qy,qz,qw"]
    for i in range(FRAMES):
        yaw, x = np.deg2rad(0.6 * i), 0.06 * i
        image = _render(wall, board, yaw, x)
        cv2.imwrite(str(folder / "rgb" / f"{i:06d}.png"), image)
        pose = f"{x},0,0,0,{np.sin(yaw / 2):.9f},0,{np.cos(yaw / 2):.9f}"
        lines.append(f"{i},{1_000_000_000 + i * 100_000_000},rgb/{i:06d}.png,,{pose}")
    (folder / "frames.csv").write_text("\n".join(lines) + "\n", "utf-8")
    camera = {"width": WIDTH, "height": HEIGHT, "K": K.ravel().tolist(), "distortion_model": "none", "D": [0.0] * 5}
    (folder / "camera.json").write_text(json.dumps(camera), "utf-8")
    return folder


def _texture(seed: int, size: int) -> NDArray[np.uint8]:
    noise = np.random.default_rng(seed).integers(0, 256, (size // 6, size // 6), np.uint8)
    return np.asarray(cv2.resize(noise, (size, size), interpolation=cv2.INTER_CUBIC), np.uint8)


def _render(wall: NDArray[np.uint8], board: NDArray[np.uint8], yaw: float, x: float) -> NDArray[np.uint8]:
    """The wall 4 m away (9 m wide) and the board 2 m away (1.2 m wide), from a camera at (x, 0, 0) turned by yaw."""
    c, s = np.cos(yaw), np.sin(yaw)
    R_camera_from_world = np.array([[c, 0, -s], [0, 1, 0], [s, 0, c]])  # inverse of a turn by yaw about y
    image = np.zeros((HEIGHT, WIDTH), np.uint8)
    for texture, side, depth in ((wall, 9.0, 4.0), (board, 1.2, 2.0)):
        size = texture.shape[0]
        # Columns: what one texture pixel to the right, one down, and pixel (0, 0) are in the world.
        corner = np.array([-side / 2 - x, -side / 2, depth])
        world = np.stack([[side / size, 0, 0], [0, side / size, 0], corner], 1)
        H = K @ R_camera_from_world @ world
        seen = cv2.warpPerspective(texture, H, (WIDTH, HEIGHT), flags=cv2.INTER_LINEAR)
        there = cv2.warpPerspective(np.full_like(texture, 255), H, (WIDTH, HEIGHT), flags=cv2.INTER_NEAREST)
        image[there > 0] = seen[there > 0]
    return image
