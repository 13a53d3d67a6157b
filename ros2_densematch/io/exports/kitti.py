"""Trajectories as rows of KITTI's odometry benchmark: the twelve numbers of [R t], camera to world, row by row."""

from __future__ import annotations

from pathlib import Path

from ros2_densematch.files.atomic import AtomicFile
from ros2_densematch.geometry.trajectory import Trajectory


def write_kitti(path: Path, trajectory: Trajectory) -> None:
    """Writes one row a pose, atomically. The form has no times: its rows are those of the tracked frames, in order."""
    with AtomicFile(path) as file:
        for T in trajectory.T_world_from_camera:
            file.stream.write(" ".join(f"{v + 0.0:.9e}" for v in T[:3].ravel()) + "\n")
