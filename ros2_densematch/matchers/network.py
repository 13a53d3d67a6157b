"""What all matchers with a network need: it is built, seeded, loaded, folded and moved here, once."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar, TypeAlias, TypeVar

import torch
from torch import Tensor, nn

from ros2_densematch.arrays import Image
from ros2_densematch.graphs.cache import load_cached
from ros2_densematch.graphs.export import on_cpu
from ros2_densematch.graphs.graph import Graph
from ros2_densematch.graphs.packages import RUNTIME, package
from ros2_densematch.matchers.base import Matcher
from ros2_densematch.matchers.onnx_network import OnnxNetwork
from ros2_densematch.nn.batch_norm import fold_batch_norms
from ros2_densematch.nn.device import to_channels_last
from ros2_densematch.weights.catalogue import SHIPPED, path_of
from ros2_densematch.weights.loading import load_exactly, read_state
from ros2_densematch.weights.official import OFFICIAL
from ros2_densematch.weights.store import read_checkpoint, require

State: TypeAlias = Mapping[str, Tensor]
# None: the usual ones; "random"; the name of an official checkpoint; a file; tensors by key
Weights: TypeAlias = "str | Path | State | None"
ModuleT = TypeVar("ModuleT", bound=nn.Module)
RANDOM = "random"


class NetworkMatcher(Matcher):
    """A matcher around a network.

    A subclass names its checkpoint and builds the network; after that `self.network` is ready for inference.
    """

    has_network = True
    network: Any
    # whether convolutions take their weights with channels last: half the time of planes on a CPU
    channels_last: ClassVar[bool] = True
    # what `densematch export onnx` can write of it; docs/onnx.md says why the rest cannot be
    PARTS: ClassVar[tuple[str, ...]] = ()

    def __init__(
        self,
        *,
        device: str = "auto",
        preset: str = "base",
        weights: Weights = None,
        backend: str = "torch",
        **options: Any,
    ) -> None:
        """
        Args:
            device: "auto", "cpu", "cuda" or "cuda:N".
            preset: one of `PRESETS`.
            weights: None for the usual ones, "random", the name of an official checkpoint, a file, or tensors by key.
            backend: "torch", or "onnx" where the matcher can: the network runs in ONNX Runtime, as a graph that is
                written once and kept in the user's cache.
            options: fields of `Config` that take the place of the preset's.

        Raises:
            ValueError: unknown preset, option or device, a value out of range, or weights of another network.
            FileNotFoundError: no such file, or the checkpoint was not fetched; the message says how to get it.
            MissingPackage: a package that backend "onnx" needs is not installed.
        """
        super().__init__(device=device, preset=preset, weights=weights, backend=backend, **options)
        if backend == "onnx":
            package(RUNTIME)  # says so before anything is loaded
        self.network = self._ready(self._loaded(weights))
        if backend == "onnx":
            session = load_cached(self._network_graph(on_cpu(self.network)), device)
            self.network = OnnxNetwork(self.network, session, self._network_output)

    @abstractmethod
    def _checkpoint(self) -> str:
        """Name of the shipped or official checkpoint that is loaded unless another is asked for."""

    @abstractmethod
    def _build(self, state: State | None) -> Any:
        """The network, untrained; `state` are the weights that will be loaded, where the network depends on them."""

    def _loaded(self, weights: Weights) -> Any:
        """The network with its weights; a subclass overrides it where the weights are of several files or parts."""
        return load_network(self._build, self._checkpoint(), weights)

    def checkpoints(self) -> tuple[str, ...]:
        """Names of the shipped or official checkpoints that are loaded unless others are asked for."""
        return (self._checkpoint(),)

    def graph(self, part: str, reference: Image, query: Image) -> Graph:
        """A part as a graph for images of the shown size; it runs on the CPU, in float32.

        Args:
            part: one of `PARTS`.
            reference, query: uint8 RGB (H, W, 3), two views of something: the graph is checked on them.

        Raises:
            ValueError: this matcher has no such part.
        """
        if part not in self.PARTS:
            known = f"choose one of {', '.join(self.PARTS)}" if self.PARTS else "it cannot be written as a graph yet"
            raise ValueError(f"{self.name} has no part {part!r} that can be exported: {known}")
        network = self.network.original if isinstance(self.network, OnnxNetwork) else self.network
        return self._graph(part, on_cpu(network), reference, query)

    def _graph(self, part: str, network: Any, reference: Image, query: Image) -> Graph:
        """A part of `PARTS` as a graph, from the network on the CPU in float32."""
        raise NotImplementedError(f"{type(self).__name__} has PARTS and lacks _graph")

    def _network_graph(self, network: Any) -> Graph:
        """The whole network, (1, 3, H, W) in, with sides left open: what backend "onnx" runs."""
        raise NotImplementedError(f"{type(self).__name__} has the backend onnx and lacks _network_graph")

    def _network_output(self, *outputs: Tensor) -> Any:
        """What the network returns, of the outputs of its graph."""
        return outputs[0] if len(outputs) == 1 else outputs

    def _ready(self, network: Any) -> Any:
        """The network for inference, in place; a subclass overrides it where only a part is to be changed."""
        ready = for_inference(network).to(self.device)
        return to_channels_last(ready) if self.channels_last else ready


def for_inference(network: ModuleT) -> ModuleT:
    """No training, no gradients, batch norms folded into convolutions; the results stay the same up to rounding."""
    network.eval().requires_grad_(False)
    fold_batch_norms(network)
    for module in network.modules():
        prepare = getattr(module, "prepare_for_inference", None)
        if prepare is not None:
            prepare()
    return network


@contextmanager
def seeded(seed: int = 0) -> Iterator[None]:
    """Random numbers of one seed inside; the caller's own are as before afterwards."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        yield


def read_weights(checkpoint: str, weights: Weights) -> tuple[State, Path] | None:
    """Tensors by key, and where they come from for messages; None where untrained weights are asked for.

    Args:
        checkpoint: name of a shipped or official checkpoint.
        weights: as of `NetworkMatcher`.

    Raises:
        ValueError: damaged, or of another network.
        FileNotFoundError: no such file, or the checkpoint was not fetched.
    """
    if isinstance(weights, Mapping):
        return dict(weights), Path("the state dictionary")
    if weights == RANDOM:
        return None
    named = weights is None or (str(weights) in OFFICIAL and not Path(weights).exists())
    name = str(weights or checkpoint) if named else checkpoint
    if name in SHIPPED:
        path = path_of(name) if named else Path(str(weights))
        return read_state(path), path
    return read_checkpoint(name, None if named else str(weights)), Path(str(weights or checkpoint))


def load_network(
    build: Callable[[State | None], ModuleT], checkpoint: str, weights: Weights, *, lean: bool = False
) -> ModuleT:
    """A network with its weights, on the CPU.

    Args:
        build: makes the network, from the weights that it will get where it depends on them.
        checkpoint: name of its shipped or official checkpoint.
        weights: as of `NetworkMatcher`.
        lean: build without memory or time for initial values that would be overwritten; not for networks that keep
            tensors outside their state.

    Raises:
        ValueError, FileNotFoundError: as of `read_weights`.
    """
    found = read_weights(checkpoint, weights)
    with seeded():
        if found is None:
            return build(None)
        state, where = found
        with torch.device("meta" if lean else "cpu"):
            network = build(state)
    load_exactly(network, dict(state), where)
    return network


def require_all(parts: Iterable[tuple[str, Weights]]) -> None:
    """One error for all checkpoints of a matcher that were not fetched.

    Args:
        parts: name of an official checkpoint, and the argument that may ask for another.

    Raises:
        FileNotFoundError: the message names every missing checkpoint, its licence and its command.
    """
    names = (checkpoint if weights is None else weights for checkpoint, weights in parts)
    require([n for n in names if isinstance(n, str) and n in OFFICIAL and not Path(n).exists()])
