"""Sequences with frames.csv and camera.json as pose pairs: frames matched to keyframes at fixed offsets.

The first frame of every block is the keyframe; frames at fixed offsets behind it are matched to it. Block, offsets
and the least baseline below which the direction of the translation is not judged are those of `PAIRING`.
"""

from __future__ import annotations

import csv
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ros2_densematch.arrays import Float64
from ros2_densematch.evaluation.datasets.base import Dataset, DatasetError, Layout, check_intrinsics
from ros2_densematch.evaluation.datasets.posed_images import PosedImage, pair_of
from ros2_densematch.geometry import poses


@dataclass(frozen=True)
class Pairing:
    """Frames of a block, offsets from its keyframe, least baseline in metres, and the images' longer side."""

    step: int
    offsets: tuple[int, ...]
    min_baseline: float
    longer_side: int | None = None


DEFAULT = Pairing(20, (1, 2, 5, 10), 0.05)
PAIRING = {
    "tum_fr1_rpy": Pairing(20, (2, 5, 10, 15), 0.05),
    "hololens": Pairing(20, (1, 2, 4, 6), 0.05),
    "kitti_a": Pairing(10, (1, 2, 4, 7), 0.3, 1300),
}


def read_sequence(path: Path) -> Dataset:
    """Pairs of one sequence.

    Raises:
        DatasetError: a file is missing or damaged, or no frame has a pose.
    """
    pairing = PAIRING.get(path.resolve().name, DEFAULT)
    K, D = _camera(path / "camera.json")
    images = [None if T is None else PosedImage(file, K, poses.inverse(T), D) for file, T in _frames(path)]
    pairs = []
    for k in range(0, len(images), pairing.step):
        for offset in pairing.offsets:
            a, b = images[k], images[k + offset] if k + offset < len(images) else None
            if a is not None and b is not None:
                pairs.append(pair_of(a, b, f"{k}+{offset}", f"offset {offset}", pairing.min_baseline))
    if not pairs:
        raise DatasetError(f"{path / 'frames.csv'} has no two frames with poses at the offsets {pairing.offsets}")
    notes = (
        f"Keyframe every {pairing.step} frames, frames at offsets {', '.join(map(str, pairing.offsets))}; below "
        f"{pairing.min_baseline:g} m of baseline only the rotation counts.",
    )
    return Dataset(
        path.resolve().name, "pose", "frames.csv", path, tuple(pairs), longer_side=pairing.longer_side, notes=notes
    )


def _camera(file: Path) -> tuple[Float64, Float64 | None]:
    """K (3, 3) and the distortion k1 k2 p1 p2 k3, or None."""
    try:
        content = json.loads(file.read_text("utf-8"))
        K = check_intrinsics(np.asarray(content["K"], np.float64).reshape(3, 3), str(file))
        model, D = content.get("distortion_model", "none"), np.asarray(content.get("D", []), np.float64)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DatasetError(f"{file} gives no camera ({error}): it must hold K, distortion_model and D") from error
    if model == "none":
        return K, None
    if model != "plumb_bob" or len(D) not in (4, 5):
        raise DatasetError(f"{file}: distortion_model {model!r} with {len(D)} coefficients; undistort the images")
    return K, np.concatenate([D, np.zeros(5 - len(D))])


def _frames(path: Path) -> list[tuple[Path, Float64 | None]]:
    """Image and T_world_from_camera of every frame; None where its pose is missing."""
    found: list[tuple[Path, Float64 | None]] = []
    try:
        with (path / "frames.csv").open(newline="", encoding="utf-8") as stream:
            for row in csv.DictReader(stream):
                values = [row.get(key) or "" for key in ("tx", "ty", "tz", "qx", "qy", "qz", "qw")]
                numbers = [float(v) for v in values] if all(values) else []
                T = poses.pose_from_quaternion(numbers[:3], numbers[3:]) if numbers else None
                found.append((path / row["image"], T))
    except (OSError, ValueError, KeyError, csv.Error) as error:
        raise DatasetError(f"{path / 'frames.csv'} cannot be read ({error}): see docs/formats.md") from error
    return found


LAYOUT = Layout(
    "frames.csv", "pose", lambda path: (path / "frames.csv").is_file(), read_sequence, "frames.csv and camera.json"
)
