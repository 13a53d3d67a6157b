"""Pickled NumPy files among training material: read restricted, with the error that the sources of pairs handle."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ros2_densematch.files import restricted_pickle
from ros2_densematch.training.images import TrainingDataError


def read_numpy_dictionary(path: Path) -> dict[str, Any]:
    """See `files.restricted_pickle.read_numpy_dictionary`.

    Raises:
        TrainingDataError: the file is missing, damaged, or asks for anything but arrays and plain containers.
    """
    try:
        return restricted_pickle.read_numpy_dictionary(path)
    except restricted_pickle.NumpyFileError as error:
        raise TrainingDataError(str(error)) from error
