"""Trajectories in TUM's text format: `stamp tx ty tz qx qy qz qw`, seconds and metres, camera to world."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from ros2_densematch.files.atomic import AtomicFile
from ros2_densematch.geometry import poses
from ros2_densematch.geometry.trajectory import Trajectory


def write_tum(path: str | Path, trajectory: Trajectory) -> None:
    """Write T_world_from_camera of every stamp; times keep all nanoseconds."""
    with AtomicFile(path) as file:
        for stamp_ns, T in zip(trajectory.stamps_ns, trajectory.T_world_from_camera, strict=True):
            seconds, nanoseconds = divmod(int(stamp_ns), 10**9)
            numbers = (*T[:3, 3], *poses.quaternion_from_matrix(T))
            # Adding 0.0 turns a negative zero into zero: the text does not depend on rounding noise around it.
            file.stream.write(f"{seconds}.{nanoseconds:09d} " + " ".join(f"{v + 0.0:.9f}" for v in numbers) + "\n")


def write_tum_segments(path: str | Path, segments: Mapping[int, Trajectory]) -> list[Path]:
    """Writes each segment into a file of its own, because segments have no common scale and no known relation.

    Args:
        path: the file of the first segment; each other one goes beside it, as NAME_segment_N.
        segments: by number, in this order.

    Raises:
        ValueError: there is no segment.
    """
    if not segments:
        raise ValueError(f"{path} is not written: no frame has a pose")
    first = Path(path)
    files = [first if i == 0 else first.with_stem(f"{first.stem}_segment_{n}") for i, n in enumerate(segments)]
    for file, trajectory in zip(files, segments.values(), strict=True):
        write_tum(file, trajectory)
    return files


def read_tum(path: str | Path) -> Trajectory:
    """Read such a file; lines that begin with # are skipped.

    Raises:
        ValueError: a line is no pose; the message names it.
        FileNotFoundError: there is no such file.
    """
    stamps, matrices = [], []
    for number, line in enumerate(Path(path).read_text("utf-8").splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        fields = line.split()
        try:
            if len(fields) != 8:
                raise ValueError(f"{len(fields)} numbers")
            whole, _, decimals = fields[0].partition(".")
            stamps.append(int(whole) * 10**9 + int(decimals.ljust(9, "0")[:9] or 0))
            values = [float(v) for v in fields[1:]]
            matrices.append(poses.pose_from_quaternion(values[:3], values[3:]))
        except ValueError as error:
            raise ValueError(f"{path}, line {number}: expected `stamp tx ty tz qx qy qz qw` ({error})") from None
    return Trajectory(np.array(stamps, np.int64), np.array(matrices, np.float64).reshape(-1, 4, 4))
