"""COLMAP text models, as ETH3D publishes its cameras: `cameras.txt` and `images.txt` with the images.

The files lie in the scene's folder or below it (`dslr_calibration_undistorted/`, `sparse/0/`), the images in `images/`.
COLMAP's pixel (0, 0) is the corner of the top-left pixel: half a pixel is taken from its principal point.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ros2_densematch.arrays import Float64
from ros2_densematch.evaluation.datasets.base import Dataset, DatasetError, Layout, check_intrinsics, read_lines
from ros2_densematch.evaluation.datasets.posed_images import PosedImage, neighbouring_pairs
from ros2_densematch.geometry import poses

# model -> how its parameters give (fx, fy, cx, cy, k1, k2, p1, p2)
_MODELS: dict[str, tuple[int | None, ...]] = {
    "SIMPLE_PINHOLE": (0, 0, 1, 2),
    "PINHOLE": (0, 1, 2, 3),
    "SIMPLE_RADIAL": (0, 0, 1, 2, 3),
    "RADIAL": (0, 0, 1, 2, 3, 4),
    "OPENCV": (0, 1, 2, 3, 4, 5, 6, 7),
}


def _models(path: Path) -> list[Path]:
    if not path.is_dir():
        return []
    return sorted(f.parent for f in path.rglob("cameras.txt") if (f.parent / "images.txt").is_file())


def read_colmap_models(path: Path) -> Dataset:
    """Pairs of neighbouring images, in the order of their names, of every model below the folder.

    Raises:
        DatasetError: there is no model, or a file of one is damaged.
    """
    models = _models(path)
    if not models:
        raise DatasetError(f"{path} holds no cameras.txt with images.txt (COLMAP text model)")
    pairs, unusable = [], []
    for model in models:
        scene = _scene_of(model)
        images = []
        cameras = _cameras(model / "cameras.txt")
        for name, camera, T in _images(model / "images.txt"):
            if camera not in cameras:
                unusable.append(
                    (f"{scene.name}/{name}", f"{model / 'images.txt'} names camera {camera}, which is unknown")
                )
                continue
            K, D = cameras[camera]
            places = [scene / "images" / name, scene / name, model / name]
            images.append(PosedImage(next((p for p in places if p.is_file()), places[0]), K, T, D))
        images.sort(key=lambda image: image.path.name)
        pairs += list(neighbouring_pairs(images, scene.name))
    return Dataset(path.resolve().name, "pose", "ETH3D", path, tuple(pairs), tuple(unusable))


def _scene_of(model: Path) -> Path:
    return next((p for p in (model, *model.parents[:3]) if (p / "images").is_dir()), model)


def _cameras(file: Path) -> dict[int, tuple[Float64, Float64 | None]]:
    found = {}
    for number, line in read_lines(file):
        words, where = line.split(), f"{file}, line {number}"
        try:
            index, model, values = int(words[0]), words[1], [float(w) for w in words[4:]]
            order = _MODELS[model]
            fx, fy, cx, cy, *distortion = (values[i] for i in order if i is not None)
        except KeyError:
            raise DatasetError(
                f"{where}: camera model {words[1]}; undistort the images (known: {', '.join(_MODELS)})"
            ) from None
        except (IndexError, ValueError) as error:
            raise DatasetError(f"{where} is no camera of COLMAP ({error}): export the model again") from None
        K = check_intrinsics(np.array([[fx, 0, cx - 0.5], [0, fy, cy - 0.5], [0, 0, 1]]), where)
        D = np.zeros(5) if distortion else None
        if D is not None:
            D[: len(distortion)] = distortion
        found[index] = K, D
    return found


def _images(file: Path) -> list[tuple[str, int, Float64]]:
    """Name, camera and T_camera_from_world of every image; every second line lists its points and is passed over."""
    found = []
    # the line of points may be empty, so empty lines count here
    lines = [line for line in file.read_text("utf-8").splitlines() if not line.startswith("#")]
    for line in lines[::2]:
        words = line.split()
        if not words:
            continue
        try:
            qw, qx, qy, qz, *t = (float(w) for w in words[1:8])
            T = poses.pose_from_quaternion(t, [qx, qy, qz, qw])
            found.append((" ".join(words[9:]), int(words[8]), T))
        except (IndexError, ValueError) as error:
            raise DatasetError(
                f"{file}: {line[:60]!r} is no image of COLMAP ({error}): export the model again"
            ) from None
    return found


LAYOUT = Layout(
    "ETH3D", "pose", lambda path: bool(_models(path)), read_colmap_models, "cameras.txt and images.txt (COLMAP)"
)
