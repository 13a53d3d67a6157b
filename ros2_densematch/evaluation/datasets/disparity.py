"""Stereo pairs with dense true disparity: Middlebury's layouts of 2001 to 2021, and KITTI's of 2012 and 2015.

| layout | left, right | truth |
| --- | --- | --- |
| Middlebury 2001, 2003 | im2.*, im6.* | disp2.* times 8, 4 (cones, teddy) or 16 (tsukuba); 0 = unknown |
| Middlebury 2014, 2021 | im0.png, im1.png | disp0.pfm (disp0GT.pfm); infinite = unknown |
| KITTI 2015 | image_2/N_10.png, image_3/N_10.png | disp_occ_0/N_10.png, 16 bit times 256; 0 = unknown |
| KITTI 2012 | colored_0 (image_0), colored_1 (image_1) | disp_occ/N_10.png |

Pixel (u, v) of the left image is (u - d, v) of the right one.
"""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from ros2_densematch.evaluation.datasets.base import Dataset, DatasetError, FlowTruth, Layout, Pair

_FACTORS = {"cones": 4.0, "teddy": 4.0, "tsukuba": 16.0}
_DEFAULT_FACTOR = 8.0
_KITTI_FACTOR = 256.0

Flow = tuple[NDArray[np.float32], NDArray[np.bool_]]


def _first(folder: Path, *patterns: str) -> Path | None:
    return next((f for pattern in patterns for f in sorted(folder.glob(pattern))), None)


def _scenes(path: Path) -> list[Path]:
    def is_scene(folder: Path) -> bool:
        return _first(folder, "disp2.*", "disp0.pfm", "disp0GT.pfm") is not None

    for folder in (path, path / "dense" / "stereo", path / "stereo", path / "training", path / "trainingF"):
        if folder.is_dir():
            if is_scene(folder):
                return [folder]
            found = sorted(f for f in folder.iterdir() if f.is_dir() and is_scene(f))
            if found:
                return found
    return []


def read_middlebury(path: Path) -> Dataset:
    """One pair a scene.

    Raises:
        DatasetError: no folder has this form.
    """
    scenes = _scenes(path)
    if not scenes:
        raise DatasetError(f"{path} holds no scene with disp2.png (2001, 2003) or disp0.pfm (2014, 2021)")
    pairs = []
    for scene in scenes:
        old = _first(scene, "disp2.*")
        if old is not None:
            images = _first(scene, "im2.*") or scene / "im2.png", _first(scene, "im6.*") or scene / "im6.png"
            factor = _FACTORS.get(scene.name.lower(), _DEFAULT_FACTOR)
            truth = FlowTruth(partial(_from_image, old, factor))
        else:
            images = scene / "im0.png", scene / "im1.png"
            truth = FlowTruth(partial(_from_pfm, _first(scene, "disp0.pfm", "disp0GT.pfm") or scene / "disp0.pfm"))
        pairs.append(Pair(scene.name, scene.name, *images, truth))
    return Dataset(path.resolve().name, "dense", "Middlebury stereo", path, tuple(pairs))


def _kitti(path: Path) -> tuple[Path, str, str, str] | None:
    for folder in (path, path / "training"):
        for truth, left, right in (
            ("disp_occ_0", "image_2", "image_3"),
            ("disp_occ", "colored_0", "colored_1"),
            ("disp_occ", "image_0", "image_1"),
        ):
            if (folder / truth).is_dir() and (folder / left).is_dir():
                return folder, truth, left, right
    return None


def read_kitti_stereo(path: Path) -> Dataset:
    """Every disparity map with its two images.

    Raises:
        DatasetError: the folders are not there.
    """
    found = _kitti(path)
    if found is None:
        raise DatasetError(f"{path} has no disp_occ_0 with image_2 and image_3 (KITTI 2015) or disp_occ (2012)")
    folder, truth, left, right = found
    pairs = tuple(
        Pair(
            file.stem,
            "",
            folder / left / file.name,
            folder / right / file.name,
            FlowTruth(partial(_from_image, file, _KITTI_FACTOR)),
        )
        for file in sorted((folder / truth).glob("*.png"))
    )
    return Dataset(path.resolve().name, "dense", "KITTI stereo", path, pairs)


def _from_image(file: Path, factor: float) -> Flow:
    """Displacement of a disparity map stored as an image."""
    values = cv2.imread(str(file), cv2.IMREAD_UNCHANGED) if file.is_file() else None
    if values is None:
        raise DatasetError(f"cannot read the disparity {file}: restore the file")
    disparity = (values[..., 0] if values.ndim == 3 else values).astype(np.float32) / np.float32(factor)
    return _displacement(disparity, disparity > 0)


def _from_pfm(file: Path) -> Flow:
    disparity = read_pfm(file)
    return _displacement(disparity, np.isfinite(disparity) & (disparity > 0))


def _displacement(disparity: NDArray[np.float32], known: NDArray[np.bool_]) -> Flow:
    flow = np.stack([-np.where(known, disparity, 0), np.zeros_like(disparity)], -1)
    return flow.astype(np.float32), known


def read_pfm(file: Path) -> NDArray[np.float32]:
    """A grey portable float map, (H, W), rows from the top.

    Raises:
        DatasetError: the file is missing or no such map.
    """
    try:
        data = file.read_bytes()
    except OSError as error:
        raise DatasetError(f"cannot read {file} ({error.strerror}): restore the file") from error
    header = re.match(rb"Pf\s+(\d+)\s+(\d+)\s+([-+.\deE]+)\s", data)
    if header is None:
        raise DatasetError(f"{file} is no grey PFM file (Pf, width, height, scale): fetch it again")
    width, height, scale = int(header[1]), int(header[2]), float(header[3])
    body = data[header.end() :]
    if len(body) != 4 * width * height:
        raise DatasetError(f"{file} is cut: {len(body)} bytes for {width} x {height} floats: fetch it again")
    values = np.frombuffer(body, "<f4" if scale < 0 else ">f4").reshape(height, width)
    return np.ascontiguousarray(values[::-1], np.float32)


MIDDLEBURY = Layout(
    "Middlebury stereo",
    "dense",
    lambda path: bool(_scenes(path)),
    read_middlebury,
    "scene folders with im2.*, im6.*, disp2.* or im0.png, im1.png, disp0.pfm",
)
KITTI = Layout(
    "KITTI stereo", "dense", lambda path: _kitti(path) is not None, read_kitti_stereo, "disp_occ_0, image_2, image_3"
)
