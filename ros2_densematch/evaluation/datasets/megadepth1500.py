"""MegaDepth-1500 as LoFTR published it: five `*.npz` files with image paths, K, poses and the pairs of scenes 0015,
0022.

The files lie in the data folder or below it (`assets/megadepth_test_1500_scene_info` in LoFTR's repository); images
under `Undistorted_SfM/` in the data folder. Sun et al., CVPR 2021, section 4.2.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from ros2_densematch.evaluation.datasets.base import (
    Dataset,
    DatasetError,
    Layout,
    Pair,
    PoseTruth,
    check_intrinsics,
    check_pose,
)
from ros2_densematch.files.restricted_pickle import NumpyFileError, read_numpy_dictionary
from ros2_densematch.geometry import poses

_KEYS = ("image_paths", "intrinsics", "poses", "pair_infos")


def _lists(path: Path) -> list[Path]:
    names = ("00*_*.npz",)  # 0015_0.1_0.3.npz, 0022_0.5_0.7.npz, ...
    found = [f for name in names for f in path.rglob(name)] if path.is_dir() else []
    return sorted(f for f in found if f.stem[:4] in ("0015", "0022"))


def read_megadepth1500(path: Path) -> Dataset:
    """All pairs in the order of the files.

    Raises:
        DatasetError: a file is missing, damaged, or asks for more than arrays and plain containers.
    """
    files = _lists(path)
    if not files:
        raise DatasetError(
            f"{path} holds no list 0015_*.npz or 0022_*.npz: see eval pose megadepth1500 --download-help"
        )
    pairs: list[Pair] = []
    unusable: list[tuple[str, str]] = []
    for file in files:
        try:
            content = read_numpy_dictionary(file)
        except NumpyFileError as error:
            raise DatasetError(str(error)) from error
        missing = [key for key in _KEYS if key not in content]
        if missing:
            raise DatasetError(f"{file} has no {', '.join(missing)}: it is not one of LoFTR's lists; fetch it again")
        for number, info in enumerate(content["pair_infos"]):
            name = f"{file.stem}/{number}"
            try:
                pairs.append(_pair(path, file.stem[:4], name, content, info))
            except (DatasetError, LookupError, TypeError, ValueError) as error:
                unusable.append((name, f"{file}, pair {number}: {error}"))
    return Dataset("megadepth1500", "pose", "MegaDepth-1500", path, tuple(pairs), tuple(unusable))


def _pair(root: Path, scene: str, name: str, content: dict[str, Any], info: Any) -> Pair:
    i, j = (int(v) for v in info[0])
    cameras = []
    for k in (i, j):
        K = np.asarray(content["intrinsics"][k], np.float64).reshape(3, 3)
        T = np.asarray(content["poses"][k], np.float64).reshape(4, 4)
        cameras.append((check_intrinsics(K, name), check_pose(T, name)))
    T = cameras[1][1] @ poses.inverse(cameras[0][1])
    images = [root / str(content["image_paths"][k]) for k in (i, j)]
    return Pair(name, scene, images[0], images[1], PoseTruth(cameras[0][0], cameras[1][0], T))


LAYOUT = Layout(
    "MegaDepth-1500",
    "pose",
    lambda path: bool(_lists(path)),
    read_megadepth1500,
    "LoFTR's 0015_*.npz and 0022_*.npz with Undistorted_SfM/",
)
