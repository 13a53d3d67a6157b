"""Graphs that `backend="onnx"` runs, kept in the user's cache: written once for each weights and version."""

from __future__ import annotations

import hashlib
from pathlib import Path

from torch import nn

from ros2_densematch import __version__
from ros2_densematch.files.user_cache import cache_folder
from ros2_densematch.graphs.export import OPSET, write_onnx
from ros2_densematch.graphs.graph import Graph
from ros2_densematch.graphs.runtime import DamagedGraph, Session

_LAYOUT = 1  # raised when a network's operations change while its weights and the version stay


def graphs_folder() -> Path:
    """`$DENSEMATCH_GRAPHS`, else `densematch/graphs` in the user's cache folder."""
    return cache_folder("graphs", "DENSEMATCH_GRAPHS")


def cached_file(graph: Graph) -> Path:
    """Where the cache keeps a graph of open size, whether or not it is there."""
    words = graph.name.replace(" ", "-"), digest_of(graph.module)[:16], __version__, f"opset{OPSET}", f"{_LAYOUT}"
    return graphs_folder() / f"{'-'.join(words)}.onnx"


def load_cached(graph: Graph, device: str) -> Session:
    """A session of a graph of open size; the graph is written where the cache lacks it or has a damaged file.

    Raises:
        MissingPackage: ONNX Runtime is not installed, or the graph must be written and what writes it is not.
        ValueError: the device is not there, or the graph cannot be written.
    """
    file = cached_file(graph)
    if file.is_file():
        try:
            return Session(file, device)
        except DamagedGraph:
            file.unlink(missing_ok=True)
    file.parent.mkdir(parents=True, exist_ok=True)
    write_onnx(graph, file, dynamic=True)
    return Session(file, device)


def digest_of(module: nn.Module) -> str:
    """SHA-256 of all weights of a module and their names, hexadecimal."""
    found = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        found.update(f"{name} {tuple(tensor.shape)} {tensor.dtype};".encode())
        found.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return found.hexdigest()
