"""Writes a graph as ONNX and compares it with PyTorch: a file that does not agree is never put in its place."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ros2_densematch import __version__
from ros2_densematch.files.atomic import replacing
from ros2_densematch.graphs.graph import Graph
from ros2_densematch.graphs.packages import FORMAT, RUNTIME, WRITER, package
from ros2_densematch.graphs.runtime import Session

# TensorRT reads GridSample of opset 20 wrongly and that of 18 rightly
OPSET = 18
MARK = "densematch_graph"  # a key of the file's metadata, by which our own files are known
# An element agrees when it differs by at most this share of the largest value; that many of an output's must.
_TOLERANCE, _LEAST_SHARE = 1e-4, 0.99
_LEAST = 4  # times the multiple: an open side is at least so long
_LARGEST_FILE = 2_000_000_000  # bytes: a protobuf message holds no more


class Written(NamedTuple):
    """What is known of a graph that was written.

    Attributes:
        shapes: name of an input or output -> its shape; a side that is left open has a name.
        types: name of an input or output -> type of its elements.
        difference: name of an output -> largest difference from PyTorch, as a share of the largest value.
    """

    shapes: Mapping[str, list[int | str]]
    types: Mapping[str, str]
    difference: Mapping[str, float]


def write_onnx(graph: Graph, path: Path, *, dynamic: bool = False) -> Written:
    """Writes a graph, in one step.

    Args:
        graph: what to write; its module stays as it is.
        path: the file; its folder must exist.
        dynamic: leave height and width of the image open.

    Raises:
        MissingPackage: a package of the extra `onnx` is not installed.
        ValueError: the graph has an operation that ONNX lacks or that runtimes lack, its sides cannot be left open, or
            what was written does not agree with PyTorch; nothing is written then.
    """
    for needed in (RUNTIME, FORMAT, WRITER):
        package(needed)
    if dynamic and not graph.multiple:
        raise ValueError(f"the {graph.name} has a fixed size: leave out --dynamic")
    weights = sum(t.numel() * t.element_size() for t in graph.module.state_dict().values())
    if weights > _LARGEST_FILE:
        raise ValueError(f"the {graph.name} has {weights / 1e9:.1f} GB of weights, an ONNX file holds 2 GB")
    program = _exported(graph, dynamic)
    program.model.metadata_props.update({MARK: __version__, "graph": graph.name})
    with replacing(path) as temporary:
        program.save(str(temporary), external_data=False)
        model = package(FORMAT).load(str(temporary))
        _refuse_volumes(model, graph.name)
        difference = _differences(graph, Session(temporary, "cpu"))
    shapes, types = _signature(model)
    return Written(shapes, types, difference)


def _exported(graph: Graph, dynamic: bool) -> Any:
    open_sides: dict[int, Any] = {}
    if dynamic:
        rows, columns = (torch.export.Dim(name, min=_LEAST, max=4096) for name in ("rows", "columns"))
        open_sides = {2: rows * graph.multiple, 3: columns * graph.multiple}
    try:
        with _quietly(), torch.no_grad():
            return torch.onnx.export(
                graph.module,
                tuple(graph.inputs.values()),
                opset_version=OPSET,
                dynamo=True,
                verbose=False,
                optimize=True,
                input_names=list(graph.inputs),
                output_names=list(graph.outputs),
                dynamic_shapes=tuple(open_sides for _ in graph.inputs) if dynamic else None,
            )
    except (torch.onnx.errors.OnnxExporterError, RuntimeError) as error:
        raise ValueError(f"the {graph.name} cannot be written as ONNX: {_cause(error)}") from error


def _cause(error: BaseException) -> str:
    """The innermost reason in one line."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__


@contextmanager
def _quietly() -> Iterator[None]:
    """Without the exporter's words on optional packages and on its own deprecations."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def _refuse_volumes(model: Any, name: str) -> None:
    """Execution providers sample pictures, (N, C, H, W), and no volumes."""
    weights = {entry.name for entry in model.graph.initializer}
    ranks = {v.name: len(v.type.tensor_type.shape.dim) for v in (*model.graph.value_info, *model.graph.input)}
    for node in model.graph.node:
        if node.op_type == "GridSample" and node.input[0] not in weights and ranks.get(node.input[0], 4) != 4:
            raise ValueError(f"the {name} samples a tensor of {ranks[node.input[0]]} dimensions: runtimes sample four")


def _differences(graph: Graph, session: Session) -> dict[str, float]:
    """Largest differences from PyTorch on the graph's own inputs."""
    inputs = tuple(graph.inputs.values())
    with torch.no_grad():
        wanted = graph.module(*inputs)
    return compare(graph, wanted if isinstance(wanted, tuple) else (wanted,), session(*inputs))


def compare(graph: Graph, wanted: tuple[Tensor, ...], found: tuple[Tensor, ...]) -> dict[str, float]:
    """Largest differences of outputs, as shares of the largest value.

    Raises:
        ValueError: they do not agree.
    """
    differences = {}
    pairs = dict(zip(graph.outputs, zip(wanted, found, strict=True), strict=True))
    if graph.table:
        pairs |= _same_rows(graph, pairs)
    for name, (a, b) in pairs.items():
        if a.shape != b.shape:
            raise ValueError(
                f"{name} of the {graph.name} has shape {tuple(b.shape)} in ONNX, {tuple(a.shape)} in torch"
            )
        apart = (a.double() - b.double()).abs() / a.double().abs().max().clamp_min(1e-12)
        share = float((apart <= _TOLERANCE).double().mean())
        if not share >= _LEAST_SHARE:
            raise ValueError(
                f"{name} of the {graph.name} differs from PyTorch in {1 - share:.1%} of its elements: not written"
            )
        differences[name] = float(apart.max())
    return differences


def _same_rows(graph: Graph, pairs: Mapping[str, tuple[Tensor, Tensor]]) -> dict[str, tuple[Tensor, Tensor]]:
    """The rows of a table that both have, in one order.

    Raises:
        ValueError: too few rows are in both.
    """
    places = [[tuple(row) for row in side[0].tolist()] for side in pairs[graph.table[0]]]
    where = {row: number for number, row in enumerate(places[1])}
    both = [(number, where[row]) for number, row in enumerate(places[0]) if row in where]
    if len(both) < _LEAST_SHARE * len(places[0]):
        raise ValueError(
            f"{graph.table[0]} of the {graph.name}: only {len(both)} of {len(places[0])} rows are those of PyTorch"
        )
    first, second = (torch.tensor(column) for column in zip(*both, strict=True))
    return {name: (pairs[name][0][:, first], pairs[name][1][:, second]) for name in graph.table}


def _signature(model: Any) -> tuple[dict[str, list[int | str]], dict[str, str]]:
    """Shapes and types of inputs and outputs, as the file has them."""
    helper = package(FORMAT).helper
    shapes, types = {}, {}
    for entry in (*model.graph.input, *model.graph.output):
        tensor = entry.type.tensor_type
        shapes[entry.name] = [d.dim_param or d.dim_value for d in tensor.shape.dim]
        types[entry.name] = str(helper.tensor_dtype_to_np_dtype(tensor.elem_type))
    return shapes, types


def on_cpu(module: nn.Module) -> nn.Module:
    """The module itself where it is on the CPU in float32, else a copy that is."""
    from copy import deepcopy

    tensors = list(module.state_dict().values())
    if all(t.device.type == "cpu" and t.dtype in (torch.float32, torch.int64) for t in tensors):
        return module
    return deepcopy(module).cpu().float()
