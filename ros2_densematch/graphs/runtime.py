"""Runs a graph in ONNX Runtime, with the best execution provider that is present."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ros2_densematch.graphs.packages import RUNTIME, package

# Best first. TensorRT is not among them: it builds an engine for every shape, which takes minutes, so it is used where
# an engine was built beforehand (docs/onnx.md).
_GPU, _OPENVINO, _CPU = "CUDAExecutionProvider", "OpenVINOExecutionProvider", "CPUExecutionProvider"
_WORDS = {_GPU: "CUDA", _OPENVINO: "OpenVINO", _CPU: "CPU"}


class DamagedGraph(ValueError):
    """A file that ONNX Runtime cannot load."""


class Choice(NamedTuple):
    """Execution providers to try, best first, and why a better one is not among them.

    Attributes:
        providers: names as ONNX Runtime has them; the CPU is always the last.
        reason: in words, "" where the best there is was taken.
    """

    providers: tuple[str, ...]
    reason: str


def choose_providers(present: list[str], device: str) -> Choice:
    """CUDA before OpenVINO before the CPU, as far as they are present and the device allows them.

    Args:
        present: what the installed ONNX Runtime was built with.
        device: "auto", "cpu", "cuda" or "cuda:N".

    Raises:
        ValueError: CUDA was asked for and this ONNX Runtime lacks it.
    """
    if device.startswith("cuda") and _GPU not in present:
        raise ValueError(
            f"device {device!r} was asked for, but this ONNX Runtime has no CUDA: use cpu or auto, "
            "or install onnxruntime-gpu in place of onnxruntime"
        )
    wanted = [p for p in (_GPU, _OPENVINO) if p in present and not (device == "cpu" and p == _GPU)]
    if device == "cpu" and _GPU in present:
        reason = "device cpu was asked for"
    else:
        absent = [_WORDS[p] for p in (_GPU, _OPENVINO) if p not in present]
        reason = "" if wanted else f"this package has no {' and no '.join(absent)}"
    return Choice((*wanted, _CPU), reason)


class Session:
    """A graph that was loaded; safe to use from several threads.

    Args:
        path: an ONNX file.
        device: "auto", "cpu", "cuda" or "cuda:N".

    Attributes:
        provider: "CUDA", "OpenVINO" or "CPU", the one that really runs.
        sentence: which runtime and provider, and why no better one.

    Raises:
        MissingPackage: ONNX Runtime is not installed.
        DamagedGraph: the file is no graph that this runtime can load.
        ValueError: the device is not there.
    """

    def __init__(self, path: Path, device: str = "auto") -> None:
        runtime = package(RUNTIME)
        choice = choose_providers(runtime.get_available_providers(), device)
        options = runtime.SessionOptions()
        options.log_severity_level = 3  # errors
        # as many as torch has, which --threads and the parameter `threads` set; idle ones sleep
        count = options.intra_op_num_threads = torch.get_num_threads()
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        settings: dict[str, dict[str, Any]] = {
            _GPU: {"device_id": int(device.partition(":")[2] or 0)},
            # left to itself it may take a lower precision, as bfloat16
            _OPENVINO: {"device_type": "CPU", "precision": "FP32", "num_of_threads": str(count)},
            _CPU: {},
        }
        given = [(name, settings[name]) for name in choice.providers]
        try:
            self._session: Any = runtime.InferenceSession(str(path), options, providers=given)
        except Exception as error:
            raise DamagedGraph(f"{path} cannot be loaded by ONNX Runtime: {_first_line(error)}") from error
        running = self._session.get_providers()[0]
        reason = choice.reason
        if running != choice.providers[0]:
            reason = f"{_WORDS[choice.providers[0]]} is in this package, but did not start"
        self.provider = _WORDS.get(running, running)
        self._inputs = [entry.name for entry in self._session.get_inputs()]
        threads = f", {count} thread{'s' if count > 1 else ''}" if running != _GPU else ""
        self.sentence = (
            f"ONNX Runtime {runtime.__version__}, {self.provider}{threads}{f' ({reason})' if reason else ''}"
        )

    def __call__(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """Runs the graph; the outputs are on the CPU."""
        arrays = {name: _array(tensor) for name, tensor in zip(self._inputs, inputs, strict=True)}
        return tuple(torch.from_numpy(np.asarray(found)) for found in self._session.run(None, arrays))


def _array(tensor: Tensor) -> NDArray[Any]:
    found: NDArray[Any] = tensor.detach().cpu().contiguous(memory_format=torch.contiguous_format).numpy()
    return found


def _first_line(error: BaseException) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
