"""ScanNet-1500 as LoFTR published it: `test.npz` (pairs) and `intrinsics.npz`, images and poses in scene folders.

`test.npz` holds `name` (N, 4): scene, sub-scan, frame, frame. A scene is `sceneSSSS_SS/` with `color/F.jpg` and
`pose/F.txt` (camera to world), below the data folder or below `scannet_test_1500/`. K belongs to images of 640 x
480; where
the stored images are larger, K grows with them. SuperGlue's text list of the same pairs is read by `pair_lists`.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

import cv2
import numpy as np

from ros2_densematch.arrays import Float64
from ros2_densematch.evaluation.datasets.base import (
    Dataset,
    DatasetError,
    Layout,
    Pair,
    PoseTruth,
    check_intrinsics,
    check_pose,
    read_matrix,
)
from ros2_densematch.files.restricted_pickle import NumpyFileError, read_numpy_dictionary
from ros2_densematch.geometry import poses

_K_SIZE = (640, 480)


def _list(path: Path) -> Path | None:
    if not path.is_dir():
        return None
    return next((f for f in sorted(path.rglob("test.npz")) if (f.parent / "intrinsics.npz").is_file()), None)


def read_scannet1500(path: Path) -> Dataset:
    """All pairs in the order of the list.

    Raises:
        DatasetError: a list is missing, damaged, or asks for more than arrays and plain containers.
    """
    file = _list(path)
    if file is None:
        raise DatasetError(f"{path} holds no test.npz with intrinsics.npz: see eval pose scannet1500 --download-help")
    try:
        names = read_numpy_dictionary(file).get("name")
        intrinsics = read_numpy_dictionary(file.parent / "intrinsics.npz")
    except NumpyFileError as error:
        raise DatasetError(str(error)) from error
    if not isinstance(names, np.ndarray) or names.ndim != 2 or names.shape[1] != 4:
        raise DatasetError(f"{file} has no array name of N x 4 (scene, sub-scan, frame, frame): fetch it again")
    pairs: list[Pair] = []
    unusable: list[tuple[str, str]] = []
    for scene, scan, first, second in names.astype(int).tolist():
        folder = f"scene{scene:04d}_{scan:02d}"
        name = f"{folder}/{first}-{second}"
        try:
            pairs.append(_pair(path, folder, first, second, intrinsics, name))
        except DatasetError as error:
            unusable.append((name, str(error)))
    return Dataset("scannet1500", "pose", "ScanNet-1500", path, tuple(pairs), tuple(unusable))


def _pair(root: Path, scene: str, first: int, second: int, intrinsics: dict[str, Float64], name: str) -> Pair:
    if scene not in intrinsics:
        raise DatasetError(f"intrinsics.npz has no {scene}")
    folder = next((f for f in (root / scene, root / "scannet_test_1500" / scene) if f.is_dir()), root / scene)
    K = check_intrinsics(np.asarray(intrinsics[scene], np.float64)[:3, :3], scene)
    images = [folder / "color" / f"{k}.jpg" for k in (first, second)]
    T0, T1 = (check_pose(read_matrix(folder / "pose" / f"{k}.txt", 4, 4), scene) for k in (first, second))
    K = _for_image(K, images[0])
    return Pair(name, "", images[0], images[1], PoseTruth(K, K, poses.inverse(T1) @ T0))


def _for_image(K: Float64, image: Path) -> Float64:
    size = _size(image)
    if size is None:
        return K
    sx, sy = size[0] / _K_SIZE[0], size[1] / _K_SIZE[1]
    return np.asarray(np.array([[sx, 0, 0.5 * (sx - 1)], [0, sy, 0.5 * (sy - 1)], [0, 0, 1]]) @ K, np.float64)


@cache
def _size(image: Path) -> tuple[int, int] | None:
    """(width, height) of an image; None where it cannot be read (its pairs then count as missing)."""
    found = cv2.imread(str(image), cv2.IMREAD_GRAYSCALE) if image.is_file() else None
    return None if found is None else (found.shape[1], found.shape[0])


LAYOUT = Layout(
    "ScanNet-1500",
    "pose",
    lambda path: _list(path) is not None,
    read_scannet1500,
    "LoFTR's test.npz and intrinsics.npz with sceneSSSS_SS/color and pose",
)
