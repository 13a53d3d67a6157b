"""Reads pickled NumPy files without running code: only arrays, numbers, text and plain containers are admitted."""

from __future__ import annotations

import io
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import numpy as np

_CORE = ("numpy.core", "numpy._core")  # NumPy 1 and 2 name their modules differently


class NumpyFileError(ValueError):
    """A file of NumPy arrays cannot be used; the message names the file and the remedy."""


def _encode(text: str, encoding: str = "latin1") -> bytes:
    """What Python pickles bytes with under protocols 0 to 2, and nothing beyond that."""
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"the encoding {encoding!r} is not admitted")
    return text.encode("latin1")


def _admitted() -> dict[tuple[str, str], Callable[..., Any]]:
    reconstruct = np.zeros(1).__reduce__()[0]
    scalar = np.float64(0).__reduce__()[0]
    from_buffer = np.zeros(1).__reduce_ex__(5)[0]
    assert callable(reconstruct)
    assert callable(scalar)
    assert callable(from_buffer)
    known: dict[tuple[str, str], Callable[..., Any]] = {
        ("numpy", "ndarray"): np.ndarray,
        ("numpy", "dtype"): np.dtype,
        ("_codecs", "encode"): _encode,
    }
    for builtins in ("builtins", "__builtin__"):  # Python 3 and 2
        known[builtins, "set"] = set
        known[builtins, "frozenset"] = frozenset
    for core in _CORE:
        known[f"{core}.multiarray", "_reconstruct"] = reconstruct
        known[f"{core}.multiarray", "scalar"] = scalar
        known[f"{core}.numeric", "_frombuffer"] = from_buffer
    return known


class RestrictedUnpickler(pickle.Unpickler):
    """An unpickler that finds the parts of NumPy arrays and nothing else."""

    _known = _admitted()

    def find_class(self, module: str, name: str) -> Any:
        known = self._known.get((module, name))
        if known is None:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}")
        return known


def read_numpy_dictionary(path: Path) -> dict[str, Any]:
    """The dictionary in a .npy file (pickled, one object) or in a .npz file (an array a key).

    Raises:
        NumpyFileError: the file is missing, damaged, holds no dictionary, or asks for anything but arrays and plain
            containers; nothing was executed.
    """
    try:
        if path.suffix == ".npz":
            with zipfile.ZipFile(path) as archive:
                return {name.removesuffix(".npy"): _array(archive.read(name)) for name in archive.namelist()}
        content = _array(path.read_bytes())
    except OSError as error:
        raise NumpyFileError(f"cannot read {path}: {error.strerror or error}: restore the file") from error
    except pickle.UnpicklingError as error:
        raise NumpyFileError(
            f"{path} is refused: it contains more than arrays and plain containers, or is damaged ({error}); nothing "
            f"was "
            "executed: fetch the file again from its publisher"
        ) from error
    except Exception as error:  # a damaged file fails anywhere in the reader, with any type
        raise NumpyFileError(f"{path} is damaged ({error}): fetch it again") from error
    if isinstance(content, np.ndarray) and content.shape == ():
        content = content.item()
    if not isinstance(content, dict):
        raise NumpyFileError(f"{path} contains {type(content).__name__} instead of a dictionary: fetch it again")
    return content


def _array(data: bytes) -> Any:
    """The array of one .npy file; that of a scalar object array is the object itself."""
    stream: IO[bytes] = io.BytesIO(data)
    version = np.lib.format.read_magic(stream)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    _, _, dtype = read(stream)
    if not dtype.hasobject:
        return np.load(io.BytesIO(data), allow_pickle=False)
    return RestrictedUnpickler(stream, encoding="latin1").load()
