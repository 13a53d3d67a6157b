"""Pairs with true optical flow: Middlebury and Sintel (.flo), KITTI 2012 and 2015 (16-bit PNG), TSS (.flo with masks).

| layout | images | truth |
| --- | --- | --- |
| Middlebury flow | SCENE/frame10.png, frame11.png | SCENE/flow10.flo, there or in a folder beside |
| Sintel | final/SCENE/frame_0001.png (or clean) | flow/SCENE/frame_0001.flo |
| KITTI | image_2/N_10.png, N_11.png (2012: colored_0, image_0) | flow_occ/N_10.png |
| TSS | SET/PAIR/image1.png, image2.png | SET/PAIR/flow1.flo (image 1 to 2), flow2.flo; unknown outside the object |
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from ros2_densematch.evaluation.datasets.base import Dataset, DatasetError, FlowTruth, Layout, Pair

_MAGIC = 202021.25
_UNKNOWN = 1e9  # larger values are unknown (Middlebury)

Flow = tuple[NDArray[np.float32], NDArray[np.bool_]]


def read_flo(file: Path) -> Flow:
    """Displacement (H, W, 2) and mask of a .flo file.

    Raises:
        DatasetError: the file is missing or no such file.
    """
    try:
        data = file.read_bytes()
    except OSError as error:
        raise DatasetError(f"cannot read {file} ({error.strerror}): restore the file") from error
    if len(data) < 12 or np.frombuffer(data[:4], "<f4")[0] != np.float32(_MAGIC):
        raise DatasetError(f"{file} is no .flo file (PIEH is missing): fetch it again")
    width, height = (int(v) for v in np.frombuffer(data[4:12], "<i4"))
    if width < 1 or height < 1 or len(data) != 12 + 8 * width * height:
        raise DatasetError(f"{file} is cut: {len(data)} bytes for {width} x {height} vectors: fetch it again")
    flow = np.frombuffer(data[12:], "<f4").reshape(height, width, 2).astype(np.float32)
    known = np.asarray((np.abs(np.nan_to_num(flow, nan=np.inf)) < _UNKNOWN).all(-1), np.bool_)
    return np.where(known[..., None], flow, np.float32(0)), known


def read_kitti_flow(file: Path) -> Flow:
    """Displacement and mask of a KITTI flow map: 16-bit PNG, u and v as (value - 2^15) / 64, the third channel valid.

    Raises:
        DatasetError: the file is missing or no such image.
    """
    values = cv2.imread(str(file), cv2.IMREAD_UNCHANGED) if file.is_file() else None
    if values is None or values.ndim != 3 or values.dtype != np.uint16:
        raise DatasetError(f"{file} is no KITTI flow map (16-bit PNG with three channels): restore the file")
    valid, v, u = np.moveaxis(values.astype(np.float32), -1, 0)  # OpenCV gives blue, green, red
    known = valid > 0
    flow = np.stack([(u - 2**15) / 64, (v - 2**15) / 64], -1)
    return np.where(known[..., None], flow, 0).astype(np.float32), known


def _middlebury(path: Path) -> list[tuple[Path, Path]]:
    """Scene folders with images, and their flow files."""
    found = []
    for file in sorted(path.rglob("flow10.flo")) if path.is_dir() else []:
        scene = file.parent
        places = [scene, *(f / scene.name for f in sorted(path.iterdir()) if f.is_dir())]
        images = next((p for p in places if (p / "frame10.png").is_file()), None)
        if images is not None:
            found.append((images, file))
    return found


def read_middlebury_flow(path: Path) -> Dataset:
    """frame10 to frame11 of every scene.

    Raises:
        DatasetError: no scene has this form.
    """
    pairs = tuple(
        Pair(
            images.name,
            images.name,
            images / "frame10.png",
            images / "frame11.png",
            FlowTruth(partial(read_flo, file)),
        )
        for images, file in _middlebury(path)
    )
    return _dataset(path, "Middlebury flow", pairs)


def _sintel(path: Path) -> tuple[Path, Path] | None:
    for folder in (path, path / "training"):
        for kind in ("final", "clean"):
            if (folder / "flow").is_dir() and (folder / kind).is_dir():
                return folder / kind, folder / "flow"
    return None


def read_sintel(path: Path) -> Dataset:
    """Every frame with a flow file, to the next frame.

    Raises:
        DatasetError: the folders are not there.
    """
    found = _sintel(path)
    pairs = []
    if found is not None:
        images, flow = found
        for file in sorted(flow.glob("*/*.flo")):
            scene, number = file.parent.name, int(file.stem.rpartition("_")[2])
            first = images / scene / f"frame_{number:04d}.png"
            second = images / scene / f"frame_{number + 1:04d}.png"
            pairs.append(Pair(f"{scene}/{number}", scene, first, second, FlowTruth(partial(read_flo, file))))
    return _dataset(path, "Sintel", tuple(pairs))


def _kitti(path: Path) -> tuple[Path, Path] | None:
    for folder in (path, path / "training"):
        for images in ("image_2", "colored_0", "image_0"):
            if (folder / "flow_occ").is_dir() and (folder / images).is_dir():
                return folder / images, folder / "flow_occ"
    return None


def read_kitti_flow_set(path: Path) -> Dataset:
    """Every flow map with its two images.

    Raises:
        DatasetError: the folders are not there.
    """
    found = _kitti(path)
    pairs = []
    if found is not None:
        images, flow = found
        for file in sorted(flow.glob("*_10.png")):
            second = images / file.name.replace("_10", "_11")
            pairs.append(Pair(file.stem, "", images / file.name, second, FlowTruth(partial(read_kitti_flow, file))))
    return _dataset(path, "KITTI flow", tuple(pairs))


def _tss(path: Path) -> list[Path]:
    if not path.is_dir():
        return []
    return sorted(f.parent for f in path.rglob("flow1.flo") if (f.parent / "image1.png").is_file())


def read_tss(path: Path) -> Dataset:
    """Both directions of every pair of TSS; PCK at 0.05 of the larger side, as in Taniai et al., CVPR 2016, section 5.

    Raises:
        DatasetError: no folder has this form.
    """
    pairs = []
    for folder in _tss(path):
        subset, name = folder.parent.name, f"{folder.parent.name}/{folder.name}"
        first, second = folder / "image1.png", folder / "image2.png"
        pairs.append(
            Pair(f"{name}/1-2", subset, first, second, FlowTruth(partial(read_flo, folder / "flow1.flo"), True))
        )
        if (folder / "flow2.flo").is_file():
            truth = FlowTruth(partial(read_flo, folder / "flow2.flo"), True)
            pairs.append(Pair(f"{name}/2-1", subset, second, first, truth))
    return _dataset(path, "TSS", tuple(pairs))


def _dataset(path: Path, layout: str, pairs: tuple[Pair, ...]) -> Dataset:
    if not pairs:
        raise DatasetError(f"{path} holds no pair in the layout {layout}: check the folder")
    return Dataset(path.resolve().name, "dense", layout, path, pairs)


MIDDLEBURY = Layout(
    "Middlebury flow",
    "dense",
    lambda p: bool(_middlebury(p)),
    read_middlebury_flow,
    "SCENE/frame10.png with flow10.flo",
)
SINTEL = Layout("Sintel", "dense", lambda p: _sintel(p) is not None, read_sintel, "final/SCENE with flow/SCENE")
KITTI = Layout("KITTI flow", "dense", lambda p: _kitti(p) is not None, read_kitti_flow_set, "image_2 with flow_occ")
TSS = Layout("TSS", "dense", lambda p: bool(_tss(p)), read_tss, "SET/PAIR/image1.png with flow1.flo")
