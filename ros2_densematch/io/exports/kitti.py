"""Trajectories as rows of KITTI's odometry benchmark: the twelve numbers of [R t], camera to world, row by row."""

from __future__ import annotations

from pathlib import Path

from ros2_densematch.files.atomic import AtomicFile
from ros2_densematch.files.results_folder import refuse_foreign
from ros2_densematch.geometry.trajectory import Trajectory


def write_kitti(path: Path, trajectory: Trajectory) -> None:
    """Writes one row a pose, atomically. The form has no times: its rows are those of the tracked frames, in order.

    Raises:
        ForeignFileError: the file exists and does not hold such rows.
    """
    refuse_foreign(path, ours=_is_export(path))
    with AtomicFile(path) as file:
        for T in trajectory.T_world_from_camera:
            file.stream.write(" ".join(f"{v + 0.0:.9e}" for v in T[:3].ravel()) + "\n")


def _is_export(path: Path) -> bool:
    """Whether the file holds rows of twelve numbers."""
    try:
        with path.open(encoding="utf-8") as stream:
            return all(len([float(word) for word in line.split()]) == 12 for line in stream)
    except (OSError, ValueError):
        return False
