"""Strecha's multi-view benchmark (CVPR 2008): NNNN.jpg with NNNN.jpg.camera, in one folder or in images/ and
gt_dense_cameras/.

A `.camera` file holds K (3 lines), a line of zeros, R (3 lines, camera to world), the centre, and width and height.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ros2_densematch.evaluation.datasets.base import (
    Dataset,
    DatasetError,
    Layout,
    check_intrinsics,
    check_pose,
    matrix_of,
    read_lines,
)
from ros2_densematch.evaluation.datasets.posed_images import PosedImage, neighbouring_pairs
from ros2_densematch.geometry import poses

_NUMBERS = 9 + 3 + 9 + 3


def _scenes(path: Path) -> dict[Path, list[Path]]:
    """Scene folders with their camera files."""
    scenes: dict[Path, list[Path]] = {}
    for file in sorted(path.rglob("*.camera")) if path.is_dir() else []:
        folder = file.parent
        scene = folder.parent if folder.name in ("gt_dense_cameras", "images", "cameras") else folder
        scenes.setdefault(scene, []).append(file)
    return scenes


def read_strecha(path: Path) -> Dataset:
    """Pairs of neighbouring images of every scene.

    Raises:
        DatasetError: no folder has this form.
    """
    scenes = _scenes(path)
    if not scenes:
        raise DatasetError(f"{path} holds no NNNN.jpg.camera beside NNNN.jpg")
    pairs, unusable = [], []
    for scene, files in scenes.items():
        images = []
        for file in files:
            try:
                images.append(_posed(scene, file))
            except DatasetError as error:
                unusable.append((f"{scene.name}/{file.stem}", str(error)))
        pairs += list(neighbouring_pairs(images, scene.name))
    return Dataset(path.resolve().name, "pose", "Strecha", path, tuple(pairs), tuple(unusable))


def _posed(scene: Path, file: Path) -> PosedImage:
    words = " ".join(line for _, line in read_lines(file)).split()
    if len(words) < _NUMBERS:
        raise DatasetError(f"{file}: {len(words)} numbers, but K, R and the centre ({_NUMBERS}) are expected")
    K = check_intrinsics(matrix_of(words[:9], 3, 3, str(file)), str(file))
    T_world_from_camera = np.eye(4)
    T_world_from_camera[:3, :3] = matrix_of(words[12:21], 3, 3, str(file))
    T_world_from_camera[:3, 3] = matrix_of(words[21:24], 1, 3, str(file))[0]
    T = poses.inverse(check_pose(T_world_from_camera, str(file)))
    places = [file.with_suffix(""), scene / "images" / file.stem]
    return PosedImage(next((p for p in places if p.is_file()), places[-1]), K, T)


LAYOUT = Layout("Strecha", "pose", lambda path: bool(_scenes(path)), read_strecha, "NNNN.jpg with NNNN.jpg.camera")
