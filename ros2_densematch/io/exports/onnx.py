"""Parts of a matcher as ONNX files, each with a JSON file that says what goes in, what comes out and whose weights."""

from __future__ import annotations

import json
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from ros2_densematch import __version__
from ros2_densematch.arrays import Image
from ros2_densematch.files.atomic import write_text
from ros2_densematch.files.results_folder import make_room
from ros2_densematch.files.shipped import sample_file
from ros2_densematch.graphs.export import MARK, OPSET, Written, write_onnx
from ros2_densematch.matchers.base import Matcher
from ros2_densematch.matchers.identity import licensed_weights
from ros2_densematch.matchers.network import NetworkMatcher
from ros2_densematch.weights.catalogue import digest

_VERSIONS_OF = ("torch", "onnx", "onnxscript", "onnxruntime")


def write_graphs(
    matcher: Matcher, weights: str, folder: Path, size: tuple[int, int], *, dynamic: bool = False
) -> Iterator[tuple[Path, Written]]:
    """Writes every part of a matcher that can be exported; each file and what is known of it, as it is written.

    Args:
        matcher: loaded.
        weights: file that it was loaded from, "random", or "" for the usual ones.
        folder: must exist.
        size: width and height of the camera's images.
        dynamic: leave the sides open, where a part can; the others are left out.

    Raises:
        MissingPackage: a package of the extra `onnx` is not installed.
        ValueError: the matcher has no part that can be exported, or one cannot be written.
        ForeignFileError: a file of that name is not ours.
    """
    if not isinstance(matcher, NetworkMatcher) or not matcher.PARTS:
        raise ValueError(f"{matcher.name} has no part that can be exported: docs/onnx.md lists the matchers that have")
    pictures = [_picture(name, size) for name in ("a.jpg", "b.jpg")]
    graphs = {part: matcher.graph(part, pictures[0], pictures[1]) for part in matcher.PARTS}
    if dynamic:
        graphs = {part: graph for part, graph in graphs.items() if graph.multiple} or graphs
    for part, graph in graphs.items():
        shape = "dynamic" if dynamic else f"{size[0]}x{size[1]}"
        file = folder / f"{matcher.name}-{matcher.preset}-{part}-{shape}.onnx"
        names = file.name, f"{file.stem}.json"
        make_room(folder, names, ours=_is_ours(file))
        written = write_onnx(graph, file, dynamic=dynamic)
        about = {
            "matcher": matcher.name,
            "preset": matcher.preset,
            "part": part,
            "file": {"name": file.name, "sha256": digest(file), "opset": OPSET},
            "image_size": None if dynamic else list(size),
            **({} if dynamic else graph.facts),
            "inputs": _described(graph.preparation, written),
            "outputs": _described(graph.outputs, written),
            "sides_are_multiples_of": graph.multiple if dynamic else None,
            "weights": licensed_weights(matcher, weights),
            "options": matcher.config.model_dump(mode="json"),
            "largest_difference_from_torch": written.difference,
            "versions": {"densematch": __version__, **{name: metadata.version(name) for name in _VERSIONS_OF}},
        }
        write_text(folder / names[1], json.dumps(about, indent=1) + "\n")
        yield file, written


def _described(words: Any, written: Written) -> dict[str, Any]:
    return {
        name: {"shape": written.shapes[name], "type": written.types[name], "what": what} for name, what in words.items()
    }


def _picture(name: str, size: tuple[int, int]) -> Image:
    """One of the two photos that ship, at this size."""
    picture = cv2.imread(str(sample_file(Path("sample") / name)), cv2.IMREAD_COLOR)
    if picture is None:
        raise FileNotFoundError(f"sample/{name} is missing from the installation: install densematch again")
    return np.ascontiguousarray(cv2.resize(picture, size, interpolation=cv2.INTER_AREA)[..., ::-1], dtype=np.uint8)


def _is_ours(file: Path) -> bool:
    return file.is_file() and MARK.encode() in file.read_bytes()
