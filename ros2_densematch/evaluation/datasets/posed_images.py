"""From single images with cameras in one world to pairs: what the layouts of ETH3D, Strecha and sequences share."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ros2_densematch.arrays import Float64
from ros2_densematch.evaluation.datasets.base import Pair, PoseTruth
from ros2_densematch.geometry import poses

# as the pairs of ../shared/data were drawn
MAX_ROTATION_DEG = 60.0
MAX_STEP = 10


@dataclass(frozen=True, eq=False)
class PosedImage:
    """An image file with K (3, 3), T_camera_from_world (4, 4) and distortion k1 k2 p1 p2 k3 or None."""

    path: Path
    K: Float64
    T_camera_from_world: Float64
    D: Float64 | None = None


def pair_of(a: PosedImage, b: PosedImage, name: str, subset: str, min_baseline: float = 0.0) -> Pair:
    """The pose pair of two images of one world."""
    T = b.T_camera_from_world @ poses.inverse(a.T_camera_from_world)
    return Pair(name, subset, a.path, b.path, PoseTruth(a.K, b.K, T, a.D, b.D, min_baseline))


def neighbouring_pairs(images: Sequence[PosedImage], subset: str) -> Iterator[Pair]:
    """All pairs at most `MAX_STEP` images apart whose cameras turn by at most `MAX_ROTATION_DEG`."""
    for i, a in enumerate(images):
        for b in images[i + 1 : i + 1 + MAX_STEP]:
            turn = poses.rotation_angle_deg(a.T_camera_from_world, b.T_camera_from_world)
            if turn <= MAX_ROTATION_DEG:
                yield pair_of(a, b, f"{subset}/{a.path.stem}-{b.path.stem}", subset)
