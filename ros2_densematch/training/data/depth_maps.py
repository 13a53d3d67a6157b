"""Depth maps of published sets."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ros2_densematch.arrays import Float32
from ros2_densematch.training.images import TrainingDataError


def read_depth_hdf5(path: Path) -> Float32:
    """The data set `depth` of an HDF5 file as float32 (H, W); 0 and what is not finite becomes NaN.

    Raises:
        TrainingDataError: missing or damaged, of another shape, or without any depth.
    """
    import h5py  # type: ignore[import-untyped]

    if not path.is_file():
        raise TrainingDataError(f"no depth file {path}: fetch it, or leave its scene out")
    try:
        with h5py.File(path, "r") as file:
            depth = np.asarray(file["depth"], np.float32)
    except (OSError, KeyError, ValueError, TypeError) as error:
        raise TrainingDataError(f"cannot read {path}: {error}: fetch it again") from error
    return checked_depth(depth, path)


def checked_depth(depth: NDArray[np.float32], path: Path) -> Float32:
    """A depth map whose unknown places are NaN.

    Raises:
        TrainingDataError: it is no map, or holds no depth at all.
    """
    if depth.ndim != 2:
        raise TrainingDataError(f"depth {path} has the shape {depth.shape}, not (height, width): fetch it again")
    with np.errstate(invalid="ignore"):
        known = np.isfinite(depth) & (depth > 0)
    if not known.any():
        raise TrainingDataError(f"depth {path} holds no finite positive value: fetch it again or leave it out")
    return np.where(known, depth, np.float32(np.nan)).astype(np.float32)
